"""`p2p-bench train-world`: trains the embedded world anew."""

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from omegaconf import OmegaConf

from p2p_bench.app.compose import checked_overrides, compose, group_options
from p2p_bench.app.console import result_console, status_console
from p2p_bench.app.instantiate import instantiate, node_faults
from p2p_bench.app.trust import target_faults
from p2p_bench.errors import ErrorList

_CONFIG = "train_world"
_TARGET = "p2p_bench.world.training.train_world"


def main(arguments: list[str], debug: bool) -> int:
    """Runs the stages of the training that are not done yet.

    Args:
        arguments: `world=OPTION` and `world.KEY=VALUE`.
        debug: Unused; errors are shown by the caller.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="p2p-bench train-world",
        description="Trains the embedded world, stage by stage; a stopped training goes on where it was.",
        epilog=f"Options of the group: {', '.join(group_options('world'))}. "
        "Example: p2p-bench train-world world.device=cuda",
    )
    parser.add_argument("override", nargs="*", metavar="KEY=VALUE", help="world=OPTION or world.KEY=VALUE")
    overrides = checked_overrides(parser.parse_args(arguments).override, config_name=_CONFIG)
    node = OmegaConf.merge({"_target_": _TARGET}, compose(overrides, _CONFIG).world)
    plain = OmegaConf.to_container(node, resolve=True)
    faults = list(target_faults(plain, "world", "world", trusted=False)) or node_faults(node, "world")
    if faults:
        raise ErrorList(faults)
    status_console().print("training the embedded world; an interrupted training goes on when started again")
    with _log_shown():
        weights = instantiate(node, "world")
    result_console().print(f"weights: {weights}", markup=False)
    return 0


@contextmanager
def _log_shown() -> Iterator[None]:
    """The training tells its progress by its log."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("p2p_bench")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
