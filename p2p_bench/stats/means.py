"""Means that carry their counts and their intervals."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

NAN = float("nan")

_BLOCK = 1 << 20
"""Drawn groups that are in memory at once."""


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
    names = _names(len(x), groups)
    defined = ~np.isnan(x)
    count = int(defined.sum())
    if count == 0:
        return Mean(NAN, 0, NAN, NAN)
    member, number = _members(names, defined)
    sums = np.bincount(member, weights=x[defined], minlength=number)
    sizes = np.bincount(member, minlength=number)
    mean = float(x[defined].mean())
    if number < 2:
        return Mean(mean, count, NAN, NAN)
    even = bool((sizes == sizes[0]).all())  # then every bootstrap sample is of as many values
    means = np.concatenate(
        [
            sums[draws].sum(axis=1) / (sizes[0] * number if even else sizes[draws].sum(axis=1))
            for draws in _blocks_of_draws(number, seed, resamples)
        ]
    )
    low, high = np.percentile(means, [2.5, 97.5])
    return Mean(mean, count, float(low), float(high))


def median(values: Sequence[float]) -> float:
    """Median of the values that are not NaN; NaN where there is none.

    >>> median([3.0, float("nan"), 1.0])
    2.0
    """
    x = np.asarray(values, dtype=np.float64)
    defined = x[~np.isnan(x)]
    return float(np.median(defined)) if len(defined) else NAN


def ratio_interval(
    numerator: Sequence[float],
    denominator: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> Mean:
    """Ratio of two means over the same rows, such as rows spent over rows alone, with its interval.

    A ratio of means, not a mean of ratios: large rows weigh more, and no small denominator dominates.

    Args:
        numerator: One value per row.
        denominator: One value per row. Rows where either value is NaN are left out.
        groups: Group of each row; None takes every row for itself.
        seed: Seed of the resampling.
        resamples: Number of bootstrap samples.

    Returns:
        The ratio as `mean`; NaN where the denominators sum to zero.

    Raises:
        ValueError: The arguments differ in length.
    """
    x, y = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    if len(x) != len(y):
        raise ValueError(f"denominator: expected one per numerator ({len(x)}), got {len(y)}")
    names = _names(len(x), groups)
    defined = ~(np.isnan(x) | np.isnan(y))
    count = int(defined.sum())
    total = float(y[defined].sum())
    if total == 0:
        return Mean(NAN, count, NAN, NAN)
    ratio = float(x[defined].sum()) / total
    member, number = _members(names, defined)
    if number < 2:
        return Mean(ratio, count, NAN, NAN)
    above, below = (np.bincount(member, weights=one[defined], minlength=number) for one in (x, y))
    drawn = [
        (above[draws].sum(axis=1), below[draws].sum(axis=1))
        for draws in _blocks_of_draws(number, seed, resamples)
    ]
    over, under = (np.concatenate(part) for part in zip(*drawn, strict=True))
    if (under == 0).any():
        return Mean(ratio, count, NAN, NAN)
    low, high = np.percentile(over / under, [2.5, 97.5])
    return Mean(ratio, count, float(low), float(high))


def draw_groups(number: int, seed: int, resamples: int) -> Int[np.ndarray, "resamples number"]:
    """Indices of the groups in each bootstrap sample, drawn with replacement."""
    return np.random.default_rng(seed).integers(number, size=(resamples, number))


def _blocks_of_draws(number: int, seed: int, resamples: int) -> Iterator[Int[np.ndarray, "block number"]]:
    """The same as `draw_groups`, some bootstrap samples at a time: those of a million groups take 8 GB."""
    generator, size = np.random.default_rng(seed), max(1, _BLOCK // number)
    for first in range(0, resamples, size):
        yield generator.integers(number, size=(min(size, resamples - first), number))


def group_means(
    values: Float[np.ndarray, " n"], groups: Sequence[Hashable]
) -> tuple[Float[np.ndarray, " g"], list[Hashable]]:
    """Mean of each group in the order of first appearance, and the groups' names.

    Args:
        values: No NaN.
        groups: Group of each value.
    """
    member, number = _members(list(groups), np.ones(len(values), dtype=bool))
    sums = np.bincount(member, weights=values, minlength=number)
    return sums / np.bincount(member, minlength=number), list(dict.fromkeys(groups))


def _names(count: int, groups: Sequence[Hashable] | None) -> list[Hashable]:
    if groups is not None and len(groups) != count:
        raise ValueError(f"groups: expected one per value ({count}), got {len(groups)}")
    return list(range(count)) if groups is None else list(groups)


def _members(names: Sequence[Hashable], defined: np.ndarray) -> tuple[Int[np.ndarray, " m"], int]:
    """Number of the group of each defined row, and how many groups there are."""
    index: dict[Hashable, int] = {}
    member = [index.setdefault(name, len(index)) for name, ok in zip(names, defined, strict=True) if ok]
    return np.array(member, dtype=np.int64), len(index)
