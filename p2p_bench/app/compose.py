"""Composes the configuration and turns Hydra's and OmegaConf's complaints into one line each."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from p2p_bench.app.console import status_console
from p2p_bench.app.instantiate import signature_of
from p2p_bench.app.loader import load
from p2p_bench.app.optional import OPTIONAL
from p2p_bench.app.schema import SEVERAL, register_schema
from p2p_bench.app.signatures import source_signature
from p2p_bench.app.spelling import for_shell, spelled
from p2p_bench.app.trust import may_name
from p2p_bench.errors import ConfigError, ErrorList, nearest
from p2p_bench.resources import resource_path

CONFIG_NAME = "config"
_EXTRAS = dict.fromkeys(
    ("hydra/launcher/joblib", "hydra/launcher/submitit_local", "hydra/launcher/submitit_slurm"), "launchers"
)
"""Options of Hydra's own groups that are installed apart, and the extra that holds them."""

_BASIC = "BasicSweeper"
_MOST = 10_000
"""Values of a range, at most."""
_COMPOSE_ERRORS = (HydraException, OmegaConfBaseException, ValueError)


def config_dir() -> Path:
    """The folder of the shipped configuration."""
    return resource_path("conf")


def compose(overrides: Sequence[str], config_name: str = CONFIG_NAME, keep_hydra: bool = False) -> DictConfig:
    """Composes the configuration; the overrides are known to be good (see `checked_overrides`)."""
    config = load(config_name, overrides)
    if not keep_hydra:
        with open_dict(config):
            del config["hydra"]
    return config


def composed(overrides: tuple[str, ...], config_name: str = CONFIG_NAME) -> DictConfig:
    """`compose` with Hydra's node, to be read only, so that what is resolved in it is resolved once."""
    own_files = any("hydra.searchpath" in override for override in overrides)  # which may change meanwhile
    return _composed.__wrapped__(overrides, config_name) if own_files else _composed(overrides, config_name)


@functools.lru_cache(maxsize=64)
def _composed(overrides: tuple[str, ...], config_name: str) -> DictConfig:
    config = compose(overrides, config_name, keep_hydra=True)
    OmegaConf.set_readonly(config, True)
    return config


def group_options(group: str) -> list[str]:
    """Names of the options of a config group."""
    return sorted(path.stem for path in config_dir().joinpath(group).glob("*.yaml"))


def checked_overrides(
    overrides: Sequence[str], multirun: bool = False, config_name: str = CONFIG_NAME
) -> list[str]:
    """The overrides in a form that Hydra accepts.

    Values that a component's class takes but its YAML does not state are let through, and so are keys
    of a mapping that the YAML leaves empty; Hydra alone would refuse both.

    Args:
        overrides: `KEY=VALUE` as typed.
        multirun: Whether values may be comma-separated choices; each choice is tried.
        config_name: Name of the root YAML.

    Raises:
        ErrorList: At least one is faulty; every faulty one is listed.
    """
    register_schema()
    faults: list[ConfigError] = []
    overrides = [spelled(text) for text in overrides]
    parsed = {index: override for index, text in enumerate(overrides) if (override := _parse(text, faults))}
    if not faults and _all_compose(one_job_each(overrides) if multirun else [list(overrides)], config_name):
        return list(overrides)
    # Something is wrong or needs a "+": one override after the other tells which.
    accepted: dict[int, str] = {}
    one_job: list[str] = []
    optional: list[str] = []
    for index, override in sorted(parsed.items(), key=lambda item: _rank(item[1])):
        options = _options_of(override.key_or_group, parsed.values()) if multirun else []
        having = [option for option in options if _has(option, override, one_job, config_name)]
        if 0 < len(having) < len(options):
            optional.append(override.key_or_group)
            accepted[index] = f"++{override.input_line}".replace("+++", "++")
            one_job += [f"++{text.lstrip('+')}" for text in _choices(override, multirun)[:1]]
            _tell_optional(override.key_or_group, [option for option in options if option not in having])
            continue
        choices = [_attempt(text, one_job, config_name) for text in _choices(override, multirun)]
        faults += [choice for choice in choices if isinstance(choice, ConfigError)]
        good = [choice for choice in choices if isinstance(choice, str)]
        typed = overrides[index]
        added = any(choice.startswith("+") for choice in good) and not typed.startswith("+")
        accepted[index] = f"+{typed}" if added else typed
        one_job += good[:1]
    if faults:
        raise ErrorList(faults)
    left = [f"{OPTIONAL}=[{','.join(optional)}]"] if optional else []
    return [accepted[index] for index in sorted(accepted)] + left


def first_line(error: Exception) -> str:
    """What Hydra or OmegaConf says, without the lines for those who know them."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def composing() -> Iterator[None]:
    """Turns what Hydra and OmegaConf find wrong with settings only when they are used into one line.

    Raises:
        ConfigError: The settings cannot be composed or resolved.
    """
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(first_line(error)) from error


def _options_of(key: str, overrides: Iterable[Override]) -> list[str]:
    """The options of a key's group that a sweep goes through, as overrides; none where it is not swept."""
    group = key.partition(".")[0]
    swept = [one for one in overrides if one.key_or_group == group and one.is_sweep_override()]
    return _choices(swept[-1], True) if swept and "." in key and _is_group(swept[-1]) else []


def _has(option: str, override: Override, others: Sequence[str], config_name: str) -> bool:
    """Whether a key may be set where an option of its group is chosen."""
    key = override.key_or_group
    try:
        config = compose([*others, option], config_name)
    except _COMPOSE_ERRORS:
        return False
    parent = OmegaConf.select(config, key.rpartition(".")[0])
    if isinstance(parent, DictConfig) and key.rpartition(".")[2] in parent:
        return True
    return parent is not None and _is_free(key, config)


def _tell_optional(key: str, lacking: Sequence[str]) -> None:
    status_console().print(
        f"{key}: left out of the jobs with {', '.join(lacking)}, which does not have it", markup=False
    )


def one_job_each(overrides: Sequence[str]) -> list[list[str]]:
    """Jobs that hold every choice of a sweep, and the ends of a range: all firsts, then each other alone.

    Args:
        overrides: As returned by `checked_overrides` with `multirun`.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    choices = [_choices(override, True) for override in parsed]
    first = [options[0] for options in choices if options]
    jobs = [first]
    for index, options in enumerate(choices):
        jobs += [[*first[:index], option, *first[index + 1 :]] for option in options[1:]]
    return jobs


def swept_keys(overrides: Sequence[str]) -> tuple[str, ...]:
    """Keys of the overrides that have several choices, or a range to choose from, in order."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return tuple(override.get_key_element() for override in parsed if override.is_sweep_override())


def searches(hydra: DictConfig) -> bool:
    """Whether the sweeper chooses jobs by what earlier ones returned.

    Args:
        hydra: Hydra's own node.
    """
    return not str(hydra.sweeper.get("_target_", _BASIC)).endswith(_BASIC)


def intervals(overrides: Sequence[str]) -> list[str]:
    """The overrides whose values only a sweeper that searches can choose."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [str(one.input_line) for one in parsed if isinstance(one.value(), IntervalSweep)]


def with_sweeper_params(overrides: Sequence[str], hydra: DictConfig) -> list[str]:
    """The overrides of a sweep, before them those of the sweeper's own `params` that they leave alone.

    Args:
        overrides: As returned by `checked_overrides` with `multirun`.
        hydra: Hydra's own node.
    """
    keys = {one.get_key_element() for one in OverridesParser.create().parse_overrides(list(overrides))}
    params = hydra.sweeper.get("params") or {}
    return [f"{key}={value}" for key, value in params.items() if key not in keys] + list(overrides)


def _parse(text: str, faults: list[ConfigError]) -> Override | None:
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        key, equal, value = text.partition("=")
        reason = f"{text!r} is not a setting; expected KEY=VALUE, such as tau.cross=0.6"
        if equal and key:
            reason = (
                f"{text}: its value cannot be read ({first_line(error)}); as plain text it is "
                f"{for_shell(key, value)}"
            )
        faults.append(ConfigError(reason))
        return None
    if fault := _override_fault(override):
        faults.append(ConfigError(fault))
        return None
    return override


def _override_fault(override: Override) -> str:
    """What is wrong with an override that can be read; "" if nothing is."""
    text, key, value = override.input_line, override.key_or_group, override._value
    if not key:
        return f"{text!r} is not a setting; expected KEY=VALUE, such as tau.cross=0.6"
    if isinstance(value, Glob):
        return f"{text}: glob() is not known here; name the choices, separated by commas"
    if isinstance(value, list) and "." not in key and _is_group(override) and key not in SEVERAL:
        return f"{text}: expected one option of group {key!r}, got {len(value)}"
    if isinstance(value, RangeSweep):
        assert value.start is not None, "the grammar fills it in"
        assert value.stop is not None, "the grammar fills it in"
        if not value.step:
            return f"{text}: the step of a range cannot be 0"
        number = (value.stop - value.start) / value.step
        if not number > 0:
            return f"{text}: the range is empty; the first number comes before the last"
        if number > _MOST:
            return f"{text}: the range has {number:.3g} values; expected at most {_MOST}"
    return ""


def _rank(override: Override) -> int:
    """Where folders with further options come first, then options, then values."""
    return 0 if override.key_or_group == "hydra.searchpath" else 1 if _is_group(override) else 2


def _is_group(override: Override) -> bool:
    return config_dir().joinpath(override.key_or_group).is_dir()


def _choices(override: Override, multirun: bool) -> list[str]:
    """The override once per choice of its sweep; of a range or an interval the two ends."""
    if not (multirun and override.is_sweep_override()):
        return [override.input_line or ""]
    value = override.value()
    if isinstance(value, IntervalSweep):
        return [f"{override.get_key_element()}={end}" for end in (value.start, value.end)]
    choices = [f"{override.get_key_element()}={choice}" for choice in override.sweep_string_iterator()]
    return list(dict.fromkeys([*choices[:1], *choices[-1:]])) if isinstance(value, RangeSweep) else choices


def _all_compose(jobs: Iterable[Sequence[str]], config_name: str) -> bool:
    try:
        for job in jobs:
            composed(tuple(job), config_name)
    except _COMPOSE_ERRORS:
        return False
    return True


def _attempt(text: str, others: Sequence[str], config_name: str) -> str | ConfigError:
    """The override as Hydra accepts it on top of `others`, or what is wrong with it."""
    try:
        composed((*others, text), config_name)
        return text
    except _COMPOSE_ERRORS as error:
        key = text.split("=", 1)[0]
        config = composed(tuple(others), config_name)
        if _unknown_key(error) and _is_free(key, composed(tuple(_stated(others)), config_name)):
            return f"+{text}"
        return _explained(text, error, config)


def _unknown_key(error: Exception) -> bool:
    return isinstance(error.__cause__, ConfigAttributeError | ConfigKeyError)


def _stated(overrides: Sequence[str]) -> list[str]:
    """The overrides that set what the YAML states."""
    return [override for override in overrides if not override.startswith("+")]


def _is_free(key: str, config: DictConfig) -> bool:
    """Whether a key that no YAML states may be set: an argument of its class, or part of an open mapping."""
    parent = OmegaConf.select(config, key.rpartition(".")[0]) if "." in key else None
    is_open = isinstance(parent, DictConfig) and len(parent) == 0
    return is_open or key.rpartition(".")[2] in _parameters(config, key)


def _parameters(config: DictConfig, key: str) -> list[str]:
    """Arguments of the class whose node holds `key`; none if the node has no class."""
    node = OmegaConf.select(config, key.rpartition(".")[0]) if "." in key else None
    if not isinstance(node, DictConfig) or "_target_" not in node:
        return []
    read = source_signature(node["_target_"])  # without an import, so of any target
    if read is None:
        group = key.partition(".")[0]
        if not (may_name(node["_target_"], group) or OmegaConf.select(config, "run.trust")):
            return []
        read = signature_of(node["_target_"])
    return list(read.parameters)


def _explained(text: str, error: Exception, config: DictConfig) -> ConfigError:
    key, _, value = text.partition("=")
    key = key.lstrip("+~")
    if isinstance(error, MissingConfigException):
        group, _, option = (error.missing_cfg_file or value).rpartition("/")
        options = error.options or group_options(group or key)
        extra = _EXTRAS.get(f"{group or key}/{option}")
        hint = f" It comes with the extra p2p_bench[{extra}]." if extra else nearest(option, options)
        return ConfigError(
            f"{text}: group {group or key!r} has no option {option!r}.{hint} Options: {', '.join(options)}"
        )
    if isinstance(error, ConfigCompositionException) and "Ambiguous value" in str(error):
        return ConfigError(
            f"{text}: several values; add -m for a job each, or write {key}=[{value}] for a list, "
            f"{for_shell(key, value)} for one text"
        )
    cause = error.__cause__
    if _unknown_key(error) or "No match in the defaults list" in str(error):
        unknown = str(cause).split("'")[1] if cause is not None else key
        known = _siblings(config, key, unknown)
        return ConfigError(f"{text}: unknown key {unknown!r}.{nearest(unknown, known)}{_listing(known)}")
    return ConfigError(f"{text}: {first_line(cause if isinstance(cause, Exception) else error)}")


def _siblings(config: DictConfig, key: str, unknown: str) -> list[str]:
    """Keys that may stand where `key` stands, or, for a key inside a list or dictionary value, inside it."""
    parent, _, last = key.rpartition(".")
    if unknown != last:
        return ["cross", "self_attn"] if key == "tau.sweep" else []
    node: Any = OmegaConf.select(config, parent) if parent else config
    while parent and not isinstance(node, DictConfig):
        parent = parent.rpartition(".")[0]
        node = OmegaConf.select(config, parent) if parent else config
    return _without_private(
        [
            *(name for name in node if name != "hydra"),
            *_parameters(config, key),
            *(["experiment"] if not parent else []),
        ]
    )


def _listing(names: Sequence[str], most: int = 14) -> str:
    """The known names as a sentence, unless there are too many to read or none."""
    return f" Known: {', '.join(names)}" if 0 < len(names) <= most else ""


def _without_private(names: Iterable[Any]) -> list[str]:
    return sorted({str(name) for name in names if not str(name).startswith("_")})
