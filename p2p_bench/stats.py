"""Means that carry their counts and their intervals."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mean:
    """A mean over the defined values of a column.

    Attributes:
        mean: NaN where no value is defined.
        count: Number of values that are not NaN.
        low: Lower end of the 95 % interval; NaN below two groups.
        high: Upper end of the 95 % interval; NaN below two groups.
    """

    mean: float
    count: int
    low: float
    high: float


def mean_interval(
    values: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> Mean:
    """Mean with a percentile bootstrap interval, resampled by group.

    Values of one group (one source scene, say) are not independent, so whole groups are drawn.

    Args:
        values: One value per row; NaN means undefined and is left out.
        groups: Group of each row; None takes every row for itself.
        seed: Seed of the resampling.
        resamples: Number of bootstrap samples.

    Raises:
        ValueError: `groups` and `values` differ in length.
    """
    x = np.asarray(values, dtype=np.float64)
    if groups is not None and len(groups) != len(x):
        raise ValueError(f"groups: expected one per value ({len(x)}), got {len(groups)}")
    defined = ~np.isnan(x)
    count = int(defined.sum())
    if count == 0:
        return Mean(float("nan"), 0, float("nan"), float("nan"))
    names = list(range(len(x))) if groups is None else list(groups)
    index: dict[Hashable, int] = {}
    member = np.array(
        [index.setdefault(name, len(index)) for name, ok in zip(names, defined, strict=True) if ok]
    )
    sums = np.bincount(member, weights=x[defined], minlength=len(index))
    sizes = np.bincount(member, minlength=len(index))
    mean = float(x[defined].mean())
    if len(index) < 2:
        return Mean(mean, count, float("nan"), float("nan"))
    draws = np.random.default_rng(seed).integers(len(index), size=(resamples, len(index)))
    means = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Mean(mean, count, float(low), float(high))
