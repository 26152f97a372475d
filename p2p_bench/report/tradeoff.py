"""Which two metrics show the trade-off of a run: what an edit keeps against what it changes."""

from collections.abc import Iterable, Sequence
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


def choose_axes(metrics: Sequence[Column], defined: Iterable[str]) -> Axes | None:
    """The pair of metrics to plot first.

    The roles come from the rows' metrics; within a role a well-known metric goes first, and one that
    measures outside the mask before one of the whole picture.

    Args:
        metrics: Metric columns of the run or runs.
        defined: Names of those that have values.

    Returns:
        None where no metric has a value. With one role only, both axes come from what there is.
    """
    having = set(defined)
    usable = [metric for metric in metrics if metric.name in having]
    if not usable:
        return None
    x = _first("editability", _EDITABILITY, usable)
    y = _first("fidelity", _FIDELITY, usable)
    others = [metric.name for metric in usable if metric.name not in (x, y)] or [usable[0].name]
    return Axes(x=x or others[0], y=y or others[-1])


def _first(role: str, preferred: Sequence[str], metrics: Sequence[Column]) -> str | None:
    names = [metric.name for metric in metrics if metric.role == role]
    return next((name for name in preferred if name in names), names[0] if names else None)
