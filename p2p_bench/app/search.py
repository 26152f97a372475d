"""Searches: what a job returns to a Hydra sweeper that chooses further jobs by it; whether the two fit."""

import math
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from omegaconf import DictConfig, OmegaConf

from p2p_bench.app.compose import searches
from p2p_bench.bench.task import Task
from p2p_bench.errors import ConfigError, nearest

SEARCH = "p2p_search_sweeper.search_sweeper.SearchSweeper"
"""Where the sweeper of this project lies among Hydra's plugins."""

_HIGHER = {"maximize": True, "minimize": False}


def search_faults(config: DictConfig, task: Task, multirun: bool) -> Iterator[ConfigError]:
    """What keeps the objectives from being measured, or the sweeper from using them as they are meant.

    Args:
        config: The composed configuration of a job, with Hydra's node.
        task: What it describes.
        multirun: Whether the sweeper is asked at all.
    """
    names = [str(name) for name in config.run.objectives]
    columns = {column.name: column for metric in task.metrics.values() for column in metric.columns}
    for name in names:
        if name not in columns:
            known = f" Known: {', '.join(columns)}" if columns else " The run has no metrics."
            yield ConfigError(
                f"run.objectives: there is no metric column {name!r}.{nearest(name, columns)}{known}"
            )
    if names and len(_edited(task, config)) != 1:
        yield ConfigError(
            "run.objectives: a search takes runs of one schedule each; leave tau.sweep null and search over "
            "tau.cross and tau.self_attn"
        )
    undirected = [name for name in names if name in columns and columns[name].higher_is_better is None]
    for name in undirected:
        yield ConfigError(f"run.objectives: {name} is neither better nor worse when it is higher")
    if searches(config.hydra):
        own = str(config.hydra.sweeper._target_).endswith(SEARCH)
        if multirun and own and find_spec("optuna") is None:
            yield ConfigError("hydra/sweeper=search needs optuna; add the extra p2p_bench[search]")
        yield from _sweeper_faults(config.hydra.sweeper, names, columns, multirun)


def objective_values(config: DictConfig, summary: Mapping[str, Any]) -> tuple[float, ...] | float | None:
    """What a job returns to the sweeper: the means of its objectives.

    Args:
        config: The configuration of the job.
        summary: Its summary.

    Returns:
        A number for one objective, else one for each; None, which sweepers take for a failure, if edits
        failed (a mean over the others would reward failing), or if an objective has no value.
    """
    names = list(config.run.objectives)
    if not names:
        return None
    (edited,) = [
        variant
        for name, variant in summary["variants"].items()
        if len(summary["variants"]) == 1 or name != "none"
    ]
    values = tuple(float(edited["metrics"][name]["mean"]) for name in names)
    if edited["failed"] or not all(map(math.isfinite, values)):
        return None
    return values if len(values) > 1 else values[0]


def _edited(task: Task, config: DictConfig) -> list[str]:
    """Names of the variants without the baseline."""
    names = [variant.name for variant in task.variants]
    return [name for name in names if name != "none"] if config.run.baseline and len(names) > 1 else names


def _sweeper_faults(
    sweeper: DictConfig, names: list[str], columns: Mapping[str, Any], multirun: bool
) -> Iterator[ConfigError]:
    title = str(sweeper._target_).rpartition(".")[2]
    if names and not multirun:
        yield ConfigError(
            f"{title} chooses jobs one after the other: add -m, or run.objectives=[] for a single run"
        )
    if multirun and not names:
        yield ConfigError(
            f"{title} needs objectives: name metric columns, such as run.objectives=[background_error,"
            "clip_direction]"
        )
    if sweeper.get("direction") is None or not names:
        return
    directions = _directions(sweeper.direction)
    if len(directions) != len(names):
        yield ConfigError(
            f"hydra.sweeper.direction: expected one for each of the objectives {', '.join(names)}, got "
            f"{', '.join(directions)}"
        )
        return
    for name, direction in zip(names, directions, strict=True):
        if name in columns and columns[name].higher_is_better != _HIGHER.get(direction):
            right = "maximize" if columns[name].higher_is_better else "minimize"
            yield ConfigError(
                f"hydra.sweeper.direction: {direction} for {name}, of which "
                f"{'more' if right == 'maximize' else 'less'} is better; write {right}"
            )


def _directions(value: Any) -> list[str]:
    """Directions as words, whether the sweeper has an enumeration, a word or a list of them."""
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else [value]
    assert isinstance(plain, list)
    return [str(getattr(one, "name", one)) for one in plain]
