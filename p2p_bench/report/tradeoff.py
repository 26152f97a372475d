"""Which two metrics show the trade-off of a run: what an edit keeps against what it changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


def choose_axes(metrics: Sequence[Column], counts: Mapping[str, int]) -> Axes | None:
    """The pair of metrics to plot first.

    The roles come from the rows' metrics. Within a role those that most edits have go first, then the
    well-known ones, then one that measures outside the mask before one of the whole picture.

    Args:
        metrics: Metric columns of the run or runs.
        counts: Number of values of each metric; one without an entry has none.

    Returns:
        None where no metric has a value. With one role only, both axes come from what there is.
    """
    usable = [metric for metric in metrics if counts.get(metric.name, 0)]
    if not usable:
        return None
    enough = max(counts.values()) / 2
    x = _first("editability", _EDITABILITY, usable, counts, enough)
    y = _first("fidelity", _FIDELITY, usable, counts, enough)
    others = [metric.name for metric in usable if metric.name not in (x, y)] or [usable[0].name]
    return Axes(x=x or others[0], y=y or others[-1])


def _first(
    role: str, preferred: Sequence[str], metrics: Sequence[Column], counts: Mapping[str, int], enough: float
) -> str | None:
    names = [metric.name for metric in metrics if metric.role == role]
    common = [name for name in names if counts[name] >= enough] or names
    return next((name for name in preferred if name in common), common[0] if common else None)
