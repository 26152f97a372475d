"""Trade-offs of two quantities, both the larger the better: fronts, hypervolume, area under the front."""

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float

from p2p_bench.stats.means import NAN, Mean, draw_groups


def pareto_front(points: Float[np.ndarray, "n d"]) -> list[int]:
    """Indices of the points that no other point beats: none is as good everywhere and better somewhere.

    Equal points stand or fall together. Points with a NaN are never on the front.

    Args:
        points: Larger is better in every column.
    """
    found = []
    for i, point in enumerate(points):
        if np.isnan(point).any():
            continue
        beats = (points >= point).all(axis=1) & (points > point).any(axis=1)
        if not beats.any():
            found.append(i)
    return found


def hypervolume(points: Float[np.ndarray, "n 2"], reference: tuple[float, float]) -> float:
    """Area of the part of the plane that lies between the reference and at least one point.

    Args:
        points: Larger is better in both columns; those with a NaN are left out.
        reference: A point that is worse; points that do not beat it in both columns add nothing.
    """
    area, height = 0.0, reference[1]
    for x, y in _descending(points):
        if x <= reference[0]:
            break
        if y > height:
            area += (x - reference[0]) * (y - height)
            height = y
    return area


def area_under_front(
    points: Float[np.ndarray, "n 2"], x_range: tuple[float, float], y_range: tuple[float, float]
) -> float:
    """Area under the front of a method, as a share of the rectangle of the two ranges.

    The front's points are joined by straight lines. Left of its first point the front is level (who can
    change more can also change less), right of its last point it is zero: what a method cannot reach earns
    nothing. Points are clipped to the ranges.

    Args:
        points: Editability and fidelity of one method's settings, larger is better; NaN is left out.
        x_range: Editability that counts as none and as all.
        y_range: Fidelity that counts as none and as all.

    Returns:
        A number in [0, 1]; NaN without a point.

    Raises:
        ValueError: A range is empty.
    """
    for name, (low, high) in (("x_range", x_range), ("y_range", y_range)):
        if not low < high:
            raise ValueError(f"{name}: expected a lower and a higher end, got {(low, high)}")
    origin = np.array([x_range[0], y_range[0]])
    size = np.array([x_range[1], y_range[1]]) - origin
    unit = np.clip((points[~np.isnan(points).any(axis=1)] - origin) / size, 0.0, 1.0)
    if not len(unit):
        return NAN
    front = unit[pareto_front(unit)]
    front = front[np.argsort(front[:, 0], kind="stable")]
    x, y = np.concatenate([[0.0], front[:, 0]]), np.concatenate([front[:1, 1], front[:, 1]])
    return float(((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2).sum())


def area_interval(
    x: Float[np.ndarray, "n settings"],
    y: Float[np.ndarray, "n settings"],
    groups: Sequence[Hashable],
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    seed: int = 0,
    resamples: int = 400,
) -> Mean:
    """Area under the front of a method's mean curve, with a bootstrap interval by source scene.

    Args:
        x: Editability of each sample at each setting (tau), larger is better, NaN where undefined.
        y: Fidelity, likewise.
        groups: Source scene of each sample; whole scenes are drawn.
        x_range: See `area_under_front`.
        y_range: See `area_under_front`.
        seed: Seed of the resampling.
        resamples: Number of bootstrap samples.

    Returns:
        The area; `count` is the number of samples, the interval NaN below two scenes.

    Raises:
        ValueError: The shapes differ, or a range is empty.
    """
    if x.shape != y.shape or len(groups) != len(x):
        raise ValueError(f"x, y, groups: expected one row each, got {x.shape}, {y.shape}, {len(groups)}")
    index: dict[Hashable, int] = {}
    member = np.array([index.setdefault(name, len(index)) for name in groups], dtype=np.int64)
    sums, counts = zip(*(_by_group(values, member, len(index)) for values in (x, y)), strict=True)

    def area(chosen: np.ndarray) -> float:
        with np.errstate(invalid="ignore", divide="ignore"):
            means = [
                total[chosen].sum(axis=0) / number[chosen].sum(axis=0)
                for total, number in zip(sums, counts, strict=True)
            ]
        return area_under_front(np.stack(means, axis=1), x_range, y_range)

    value = area(np.arange(len(index)))
    if len(index) < 2 or np.isnan(value):
        return Mean(value, len(x), NAN, NAN)
    found = np.array([area(chosen) for chosen in draw_groups(len(index), seed, resamples)])
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return Mean(value, len(x), float(low), float(high))


def _by_group(values: np.ndarray, member: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum and count of the defined values of each group, per column."""
    sums, counts = np.zeros((number, values.shape[1])), np.zeros((number, values.shape[1]))
    np.add.at(sums, member, np.nan_to_num(values))
    np.add.at(counts, member, ~np.isnan(values))
    return sums, counts


def _descending(points: np.ndarray) -> list[tuple[float, float]]:
    """Defined points, the largest first column first, and of equal ones the largest second."""
    defined = points[~np.isnan(points).any(axis=1)]
    return sorted(((float(x), float(y)) for x, y in defined), reverse=True)
