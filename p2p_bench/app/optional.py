"""Options that only some of the options of a group have, in a sweep over that group.

`-m inversion=ddim,null_text inversion.learning_rate=0.1`: every job gets the key, and `run.optional` names
it; a job whose class does not take it leaves it out.
"""

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from p2p_bench.app.instantiate import signature_of
from p2p_bench.app.signatures import source_signature
from p2p_bench.app.trust import may_name
from p2p_bench.errors import ConfigError

OPTIONAL = "run.optional"


def leave_out(config: DictConfig) -> None:
    """Removes the optional keys that the chosen options do not have, and the list of them.

    Args:
        config: A composed configuration; changed.
    """
    for key in _optional(config):
        if (place := _foreign(config, key)) is not None:
            parent, last = place
            with read_write(parent), open_dict(parent):
                del parent[last]
    if _optional(config):
        with read_write(config.run):
            config.run.optional = []


def applied(config: DictConfig, overrides: Sequence[str]) -> tuple[str, ...]:
    """The overrides that count for a job: without those that `leave_out` leaves out.

    Args:
        config: The composed configuration of the job, as composed.
        overrides: Its overrides.
    """
    keys = _optional(config)
    apart = {key for key in keys if _foreign(config, key) is not None} | ({OPTIONAL} if keys else set())
    return tuple(text for text in overrides if text.split("=", 1)[0].lstrip("+") not in apart)


def _optional(config: DictConfig) -> list[str]:
    run = config.get("run")
    return list(run.get("optional") or ()) if isinstance(run, DictConfig) else []


def _foreign(config: DictConfig, key: str) -> tuple[DictConfig, str] | None:
    """The node and the key in it to delete, where the chosen option does not have an optional key."""
    parts = key.split(".")
    node: Any = config
    component: tuple[DictConfig, str] | None = None
    for index, part in enumerate(parts):
        if not isinstance(node, DictConfig) or part not in node:
            break
        if "_target_" in node:
            component = node, part
        elif index == len(parts) - 1 and component is None:
            return _untargeted(config, parts)
        node = None if OmegaConf.is_missing(node, part) else node[part]
    if component is None or takes(component[0], component[1], parts[0], trusted=bool(config.run.trust)):
        return None
    return component


def _untargeted(config: DictConfig, parts: Sequence[str]) -> tuple[DictConfig, str] | None:
    """What was made by setting a key of a component that is not there."""
    return (config[parts[0]], parts[1]) if len(parts) > 2 and parts[1] in config[parts[0]] else None


def takes(component: DictConfig, argument: str, group: str, trusted: bool) -> bool:
    """Whether the class that a node names takes an argument; also where that cannot be told.

    Args:
        component: A node with a `_target_`.
        argument: The argument.
        group: Group of the node.
        trusted: Whether targets of any kind are wanted.
    """
    try:
        read = source_signature(component["_target_"])  # without an import, so of any target
        if read is None:
            if not (trusted or may_name(component["_target_"], group)):
                return True
            read = signature_of(component["_target_"])
        return argument in read.parameters
    except ConfigError:
        return True
