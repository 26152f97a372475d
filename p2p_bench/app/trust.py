"""What a configuration may run: the classes its nodes may name, and what a received folder may say.

A `_target_` is any importable callable to Hydra. Here it is what its group holds, unless the user says
`run.trust=true`. Settings that were stored by another run are trusted less than those that are typed: see
`stored_faults`.
"""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

import hydra.utils
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from p2p_bench.errors import ConfigError


@dataclass(frozen=True)
class Role:
    """What a node of a group may name.

    Attributes:
        package: Where the class, or the function that makes one, has to be defined.
        members: What the object has to have.
    """

    package: str
    members: tuple[str, ...] = ()


ROLES: Mapping[str, Role] = {
    "model": Role("p2p_bench.models", ("spec", "reader", "load")),
    "controller": Role("p2p_bench.controllers", ("bind", "for_pair")),
    "inversion": Role("p2p_bench.inversion", ("invert",)),
    "editor": Role("p2p_bench.editors", ("ready",)),
    "dataset": Role("p2p_bench.data", ("pairs", "load")),
    "sampler": Role("p2p_bench.sampling", ("stepper",)),
    "metrics": Role("p2p_bench.metrics", ("columns", "check", "__call__")),
    "logger": Role("p2p_bench.bench", ("write",)),
    "trainer": Role("lightning", ("test",)),
    "world": Role("p2p_bench.world.training"),
}
"""What each group may hold. A controller and what is inside it are controllers, and so on."""

_SPECIAL = ("_args_", "_recursive_", "_convert_", "_partial_")
_PARTIAL = "trainer"
"""The group whose node waits for further arguments."""

_LOGGING_CLASSES = (
    "logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "logging.Formatter",
    "logging.handlers.RotatingFileHandler", "colorlog.ColoredFormatter",
    "p2p_bench.app.logs.JsonLines",
)  # fmt: skip
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
_NAMES = ("${hydra.job.name}",)
"""References that stand for a name, whatever is set."""

_WORD = r"_(target|partial|args|recursive|convert)_"
_STORED_HYDRA = re.compile(
    r"hydra/(launcher|sweeper)"
    r"|hydra\.launcher\.(inner\.)?"
    r"(n_jobs|timeout_min|cpus_per_task|gpus_per_node|mem_gb|nodes|tasks_per_node|array_parallelism)"
    r"|hydra\.sweeper\.(params(\.[\w.]+)?|n_trials|n_jobs|seed|population_size|sampler|max_batch_size)"
    r"|hydra\.(verbose|job\.chdir)"
)
"""Settings of Hydra's own that cannot make it run or write anything else."""


def target_faults(node: Any, where: str, group: str, trusted: bool) -> Iterator[ConfigError]:
    """What a component node names and may not name; nothing outside the group's package is imported.

    Args:
        node: The node as plain values; nodes inside it are looked at too.
        where: Key of the node, for the messages.
        group: Its group, a key of `ROLES`.
        trusted: Whether targets of any kind are wanted.
    """
    if isinstance(node, list):
        for index, value in enumerate(node):
            yield from target_faults(value, f"{where}[{index}]", group, trusted)
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        yield from target_faults(value, f"{where}.{key}", group, trusted)
    for key in _SPECIAL:
        if key in node and not (key == "_partial_" and bool(node[key]) == (where == _PARTIAL)):
            yield ConfigError(f"{where}.{key}: cannot be set; leave it out")
    if where == _PARTIAL and "_partial_" not in node:
        yield ConfigError(f"{where}._partial_: has to be true; leave it as it is")
    if "_target_" in node and not trusted and (reason := _refusal(node["_target_"], group)):
        yield ConfigError(
            f"{where}._target_: {node['_target_']!r} {reason}; run.trust=true takes any class, and runs "
            "its code"
        )


def may_name(target: Any, group: str) -> bool:
    """Whether a node of a group may name a target; nothing outside the group's package is imported."""
    return group in ROLES and not _refusal(target, group)


def _refusal(target: Any, group: str) -> str:
    """Why a group may not hold a target; "" if it may, or if there is no such thing in its package."""
    role = ROLES[group]
    if not isinstance(target, str) or not target.startswith(f"{role.package}."):
        return f"is not in {role.package}, where group {group!r} has its classes"
    try:
        found = hydra.utils.get_object(target)
    except Exception:  # noqa: BLE001  # whatever importing raises, `node_faults` tells why it cannot be used
        return ""
    defined = getattr(found, "__module__", None) or ""
    if not (inspect.isclass(found) or inspect.isfunction(found)) or not defined.startswith(role.package):
        return f"is not a class of {role.package}, but leads out of it"
    made: Any = found
    if inspect.isfunction(found) and role.members:
        made = get_type_hints(found).get("return")
    options = getattr(made, "__args__", (made,))  # a union of classes
    if not all(hasattr(option, member) for option in options for member in role.members):
        return f"is nothing that group {group!r} can hold"
    return ""


def hydra_faults(hydra_node: DictConfig, trusted: bool) -> Iterator[ConfigError]:
    """What Hydra's own node would run besides its plugins.

    Args:
        hydra_node: The composed node `hydra`.
        trusted: Whether targets of any kind are wanted.
    """
    if trusted:
        return
    plain = OmegaConf.to_container(hydra_node, resolve=False)
    assert isinstance(plain, dict)
    for part in ("launcher", "sweeper"):
        for where, target in _values(plain[part], f"hydra.{part}", "_target_"):
            if not _is_plugin(target):
                yield ConfigError(f"{where}: {target!r} is no plugin of Hydra; run.trust=true takes it")
    for name in plain.get("callbacks") or ():
        yield ConfigError(f"hydra.callbacks.{name}: callbacks run code; run.trust=true takes them")
    for part in ("job_logging", "hydra_logging"):
        yield from _logging_faults(plain[part], f"hydra.{part}")
    for part in ("launcher", "sweeper", "job_logging", "hydra_logging"):
        for where, text in _texts(plain[part], f"hydra.{part}"):
            if re.fullmatch(r"\$\{.*\}", text) and text not in _NAMES:
                yield ConfigError(f"{where}: {text!r} may stand for anything; write the value itself")


def _is_plugin(target: Any) -> bool:
    known = Plugins.instance().class_name_to_class
    return isinstance(target, str) and target in known


def _logging_faults(node: Any, where: str) -> Iterator[ConfigError]:
    """Parts of a logging configuration that name anything but usual handlers."""
    for key in ("()", "class"):
        for place, value in _values(node, where, key):
            if value not in _LOGGING_CLASSES:
                yield ConfigError(f"{place}: {value!r} is no usual handler; run.trust=true takes it")
    for place, value in _texts(node, where):
        if value.startswith("ext://") and value not in _STREAMS:
            yield ConfigError(f"{place}: {value!r} names other code; run.trust=true takes it")


def _values(node: Any, where: str, wanted: str) -> Iterator[tuple[str, Any]]:
    """Values of a key anywhere in a plain node, with their places."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == wanted:
                yield f"{where}.{key}", value
            yield from _values(value, f"{where}.{key}", wanted)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _values(value, f"{where}[{index}]", wanted)


def _texts(node: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _texts(value, f"{where}.{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _texts(value, f"{where}[{index}]")
    elif isinstance(node, str):
        yield where, node


def stored_faults(overrides: Sequence[str]) -> list[ConfigError]:
    """What stored settings say that could run code, read the environment or write elsewhere.

    Args:
        overrides: `KEY=VALUE`, as a run or a sweep stored them.
    """
    return [ConfigError(f"{text}: {reason}") for text in overrides if (reason := _stored_fault(text))]


def _stored_fault(text: str) -> str:
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:
        return "is not a setting"
    key = override.key_or_group
    if re.search(_WORD, text):
        return "names code"
    if "${" in text and ":" in text.split("${", 1)[1]:
        return "asks a resolver, as for the environment"
    if re.match(r"hydra\b", key) and not _STORED_HYDRA.fullmatch(key):
        return "sets Hydra itself"
    if key.startswith("hydra.sweeper.") and re.search(r"hydra|trust|run\.(dir|cache)", text[len(key) :]):
        return "sets Hydra itself"
    if re.match(r"(hydra/|experiment\b)", key) and re.search(r"\.\.|=\s*/", text):
        return "reads settings from elsewhere"
    if "/" in key and not key.startswith("hydra/"):
        return "reads settings from elsewhere"
    if override.package is not None:
        return "puts a group elsewhere"
    return ""


def placed_faults(config: DictConfig) -> list[ConfigError]:
    """What a composed configuration of stored settings would write outside the run's directory, or trust.

    Args:
        config: The composed configuration.
    """
    faults = []
    if config.run.trust:
        faults.append(ConfigError("run.trust: runs any code"))
    if isinstance(config.run.cache, str):
        faults.append(ConfigError(f"run.cache={config.run.cache}: writes elsewhere"))
    if config.run.output is not None:
        faults.append(ConfigError(f"run.output={config.run.output}: writes elsewhere"))
    if config.trainer.get("default_root_dir"):
        faults.append(ConfigError("trainer.default_root_dir: writes elsewhere"))
    loggers = OmegaConf.to_container(OmegaConf.create({"logger": config.logger}), resolve=False)
    for where, value in _texts(loggers, ""):
        if "_target_" not in where and re.search(r"[/\\]|\.\.", value):
            faults.append(ConfigError(f"{where.lstrip('.')}={value}: writes elsewhere"))
    return faults
