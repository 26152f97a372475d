"""Which two metrics show the trade-off of a run: what an edit keeps against what it changes."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from p2p_bench.report.columns import Column

_EDITABILITY = ("attribute_changed", "clip_direction", "clip_target")
_FIDELITY = ("psnr_outside", "mse_outside", "background_error", "lpips", "ssim", "psnr")


@dataclass(frozen=True)
class Axes:
    """Metrics on the axes of the trade-off plot.

    Attributes:
        x: Editability: how much of the asked change happened.
        y: Fidelity: how much of the source was kept.
    """

    x: str
    y: str


def level_metrics(summaries: Iterable[Mapping[str, Any]]) -> set[str]:
    """The metrics of which all variants of some runs have one and the same mean: they tell none apart."""
    variants = [variant["metrics"] for summary in summaries for variant in summary["variants"].values()]
    means: dict[str, set[float]] = {}
    for variant in variants:
        for name, mean in variant.items():
            means.setdefault(name, set()).add(mean["mean"])
    return {name for name, found in means.items() if len(variants) > 1 and len(found) == 1}


def choose_axes(
    metrics: Sequence[Column], counts: Mapping[str, int], level: Collection[str] = ()
) -> Axes | None:
    """The pair of metrics to plot first.

    The roles come from the rows' metrics. Within a role those that most edits have go first, of these those
    that tell variants apart, then the well-known ones, then one that measures outside the mask before one of
    the whole picture.

    Args:
        metrics: Metric columns of the run or runs.
        counts: Number of values of each metric; one without an entry has none.
        level: Metrics with the same mean everywhere.

    Returns:
        None where no metric has a value. With one role only, both axes come from what there is.
    """
    usable = [metric for metric in metrics if counts.get(metric.name, 0)]
    if not usable:
        return None
    enough = max(counts.values()) / 2
    often = {metric.name for metric in usable if counts[metric.name] >= enough}
    order = [often - set(level), often, set(counts)]
    x = _first("editability", _EDITABILITY, usable, order)
    y = _first("fidelity", _FIDELITY, usable, order)
    others = [metric.name for metric in usable if metric.name not in (x, y)] or [usable[0].name]
    return Axes(x=x or others[0], y=y or others[-1])


def _first(
    role: str, preferred: Sequence[str], metrics: Sequence[Column], order: Sequence[Collection[str]]
) -> str | None:
    """The best known metric of a role in the first group of `order` that has any."""
    names = [metric.name for metric in metrics if metric.role == role]
    common = next((found for group in order if (found := [name for name in names if name in group])), [])
    return next((name for name in preferred if name in common), common[0] if common else None)
