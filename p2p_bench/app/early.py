"""Faults of the arguments that can be told before torch is imported, which takes seconds.

A fault is told at once only if nothing else was typed that its class has to judge: all faults are listed
together, and for a value such as `inversion.learning_rate=-1` the class, and with it torch, is needed.
"""

from collections.abc import Iterable, Iterator, Sequence

from omegaconf import DictConfig, OmegaConf

from p2p_bench.app.build import group_faults, tau_faults
from p2p_bench.app.schema import COMPONENT_GROUPS
from p2p_bench.app.settings import run_faults
from p2p_bench.app.signatures import source_signature
from p2p_bench.errors import ErrorList, P2PError

_OF_A_CLASS = ("run.repair", "run.repair_feather", *(f"{group}." for group in COMPONENT_GROUPS))
"""How keys begin whose values a class judges."""


def refuse_early(configs: Sequence[DictConfig], overrides: Sequence[str]) -> None:
    """Stops at faults that need no class to be seen.

    Args:
        configs: Composed configurations, one or one per choice of a sweep.
        overrides: What was typed for them.

    Raises:
        ErrorList: There are such faults, and no others can be.
    """
    faults = {str(fault): fault for config in configs for fault in _faults(config)}
    if faults and not any(_needs_class(configs[0], text, faults) for text in overrides):
        raise ErrorList(list(faults.values()))


def _faults(config: DictConfig) -> Iterator[P2PError]:
    found = list(run_faults(config, repairs=False))
    yield from found
    if found:  # the others refer to these
        return
    yield from tau_faults(config)
    for group in COMPONENT_GROUPS:
        yield from group_faults(config, group, source_signature)


def _needs_class(config: DictConfig, override: str, faults: Iterable[str]) -> bool:
    """Whether an override sets a value that only a class can find wrong, and that is not known to be."""
    key = override.partition("=")[0].lstrip("+~")
    if not key.startswith(_OF_A_CLASS) or any(text.startswith(f"{key}:") for text in faults):
        return False
    return not isinstance(OmegaConf.select(config, key, throw_on_resolution_failure=False), bool)
