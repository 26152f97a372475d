"""What is wrong with the settings of no component, `seed`, `tau` and `run`, and with the trainer's."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from p2p_bench.app.compose import first_line
from p2p_bench.app.paths import folder_fault, user_path
from p2p_bench.app.schema import COMPONENT_GROUPS, RootConfig, RunNode, TauNode
from p2p_bench.app.secrets import holds_password
from p2p_bench.errors import ConfigError, nearest
from p2p_bench.fields import fault_of, fits, words_of
from p2p_bench.remote import is_url
from p2p_bench.types import Feather, RepairKind

STRATEGIES = ("ddp_spawn", "ddp")
"""How several processes share a run: they are started by it, or were by torchrun or srun."""


@dataclass(frozen=True)
class _Rule:
    """What a setting of the trainer may be.

    Attributes:
        holds: Whether a value may stand.
        expected: That in words.
        remedy: What to do instead.
    """

    holds: Callable[[Any], bool]
    expected: str
    remedy: str


_TRAINER = {
    "accelerator": _Rule(
        lambda value: isinstance(value, str), "the name of one", "such as cpu, gpu, mps or auto"
    ),
    "limit_test_batches": _Rule(
        lambda value: value is None or (isinstance(value, float) and value == 1),
        "1.0, all batches",
        "edit fewer pairs with dataset.limit=N",
    ),
    "fast_dev_run": _Rule(
        lambda value: value is False or value is None or value == 0,
        "false",
        "edit fewer pairs with dataset.limit=N",
    ),
    "callbacks": _Rule(lambda value: not value, "null", "the run brings its own"),
    "plugins": _Rule(lambda value: not value, "null", "leave it out"),
    "precision": _Rule(
        lambda value: value in (None, 32, "32", "32-true"),
        "32",
        "set the format of the model with model.dtype=bfloat16 or float16",
    ),
    "num_nodes": _Rule(
        lambda value: value == 1,
        "1",
        "torchrun and srun say how many there are: trainer=torchrun, trainer=slurm",
    ),
    "strategy": _Rule(
        lambda value: value in ("auto", "single_device", *STRATEGIES),
        "auto, ddp_spawn or ddp",
        "trainer=ddp starts a process per device, trainer=torchrun and slurm share a run that those started",
    ),
}
"""Settings that would leave pairs out or change what is computed."""


def trainer_faults(trainer: Mapping[str, Any]) -> Iterator[ConfigError]:
    """What a run cannot let its trainer do.

    Args:
        trainer: The trainer's node, as plain values.
    """
    for key, rule in _TRAINER.items():
        if key in trainer and not rule.holds(trainer[key]):
            yield ConfigError(f"trainer.{key}: expected {rule.expected}, got {trainer[key]!r}; {rule.remedy}")


def run_faults(config: DictConfig) -> Iterator[ConfigError]:
    """What is wrong with `seed`, `tau` and `run`: unknown and missing keys, wrong types, values out of range.

    Args:
        config: The composed configuration, without Hydra's own node.
    """
    faulty: set[str] = set()
    for where, schema in (("", RootConfig), ("run", RunNode), ("tau", TauNode)):
        for key, fault in _typed_faults(config, where, schema):
            faulty.add(key)
            yield fault
    for key in ("run.output", "run.cache"):
        if holds_password(str(OmegaConf.select(config, key, throw_on_resolution_failure=False))):
            faulty.add(key)
            yield ConfigError(
                f"{key}: the URL holds a password, which files of the run would show; leave it to "
                "the store's own settings, such as the variables AWS_SECRET_ACCESS_KEY or FSSPEC_FTP_PASSWORD"
            )
    for key, hint in _REPAIR.items():
        if not faulty & {key, "run"} and (wrong := fault_of(key, OmegaConf.select(config, key), hint)):
            yield wrong
    for key, holds, expected in _RANGES:
        if not faulty & {key, key.partition(".")[0]} and not holds(value := OmegaConf.select(config, key)):
            yield ConfigError(f"{key}: expected {expected}, got {value!r}")


_REPAIR = {"run.repair": RepairKind, "run.repair_feather": Feather}


def _is_cache(value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return True
    return isinstance(value, str) and (is_url(value) or _is_folder(value))


def _is_folder(value: str | None) -> bool:
    return value is None or (bool(value.strip()) and not folder_fault(user_path(value)))


def _is_name(value: str) -> bool:
    bare = bool(value.strip()) and "/" not in value and "\\" not in value and value not in (".", "..")
    return bare and not folder_fault(user_path(f"./{value}"))


_RANGES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("run.batch_size", lambda value: value >= 1, "at least 1"),
    ("run.images", lambda value: value is None or value >= 0, "at least 0, or null for all pairs"),
    ("run.cache", _is_cache, "true, false, a URL or a directory that may be written"),
    ("run.cache_gb", lambda value: 0 < value < float("inf"), "a finite number above 0"),
    ("run.resume", lambda value: value is True or value is False or value == "force", "true, false or force"),
    ("run.timeout", lambda value: value is None or 0 < value < float("inf"), "a number of seconds, or null"),
    ("run.max_errors", lambda value: value is None or value >= 0, "at least 0, or null for any number"),
    ("run.name", _is_name, "the name of a folder"),
    ("run.dir", _is_folder, "a directory that may be written, or null for a new one"),
    ("run.output", lambda value: value is None or is_url(value), "a URL such as s3://bucket/folder, or null"),
    ("seed", lambda value: 0 <= value < 2**63, "at least 0 and below 2**63"),
)


def _typed_faults(config: DictConfig, where: str, schema: type) -> Iterator[tuple[str, ConfigError]]:
    """Faults of a typed node, each with its key; values by interpolation are not checked when composed."""
    node = config if not where else config.get(where)
    if not isinstance(node, DictConfig):
        yield where, ConfigError(f"{where}: expected its settings, got {node!r}; leave the node as it is")
        return
    prefix = f"{where}." if where else ""
    hints = get_type_hints(schema)
    known = [field.name for field in fields(schema)]
    for key in node:
        if key not in known:
            name = str(key)
            yield f"{prefix}{name}", ConfigError(f"{prefix}{name}: unknown key.{nearest(name, known)}")
    for key in known:
        if key in (*COMPONENT_GROUPS, "run", "tau") or (hints[key] is Any and key in node):
            continue
        try:
            value = node[key]
        except OmegaConfBaseException as error:
            reason = "is missing; a run needs it" if key not in node else first_line(error)
            yield f"{prefix}{key}", ConfigError(f"{prefix}{key}: {reason}")
            continue
        plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        if not (fits(plain, hints[key]) or (hints[key] != list[str] and OmegaConf.is_config(value))):
            yield (
                f"{prefix}{key}",
                ConfigError(f"{prefix}{key}: expected {words_of(hints[key])}, got {plain!r}"),
            )
