"""Two methods on the same samples: is one better, by how much, and how sure is that?"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from p2p_bench.stats.means import NAN, Mean, group_means, mean_interval

EXACT_GROUPS = 12
"""Up to this many groups every one of the 2^n sign patterns is tried."""

_ROUNDING = 1e-12
"""Share of the largest value below which a difference is none."""


@dataclass(frozen=True)
class Paired:
    """A paired comparison; differences are first minus second.

    Attributes:
        difference: Mean over pairs with its interval by group; `count` is the number of pairs.
        groups: Number of independent groups behind them.
        effect: Standardised effect d_z: mean of the groups' differences over their standard deviation;
            NaN below two groups or where they do not vary.
        p_permutation: Two-sided p of the sign-flip permutation test on the groups' mean differences.
        p_wilcoxon: Two-sided p of Wilcoxon's signed-rank test on the same; 1 where all are zero.
    """

    difference: Mean
    groups: int
    effect: float
    p_permutation: float
    p_wilcoxon: float


def compare_paired(
    first: Sequence[float],
    second: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = 10_000,
) -> Paired:
    """Compare two methods on the same samples.

    Several pairs of one group (targets of one source scene) are no independent evidence: tests and
    effect are on one mean difference per group.

    Args:
        first: One value per pair.
        second: One value per pair. Pairs where either is NaN are left out.
        groups: Group of each pair; None takes every pair for itself.
        seed: Seed of the resampling.
        resamples: Sign patterns drawn where there are too many to try all.

    Returns:
        The comparison; its numbers are NaN where no pair is defined.

    Raises:
        ValueError: The arguments differ in length.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if len(a) != len(b):
        raise ValueError(f"second: expected one per value of first ({len(a)}), got {len(b)}")
    delta = a - b
    difference = mean_interval(delta.tolist(), groups, seed)
    if difference.count == 0:
        return Paired(difference, 0, NAN, NAN, NAN)
    names = list(range(len(delta))) if groups is None else list(groups)
    defined = ~np.isnan(delta)
    means, found = group_means(delta[defined], [name for name, ok in zip(names, defined, strict=True) if ok])
    means = _without_rounding(means, float(np.abs([a[defined], b[defined]]).max()))
    spread = float(means.std(ddof=1)) if len(means) > 1 else 0.0
    return Paired(
        difference=difference,
        groups=len(found),
        effect=float(means.mean()) / spread if spread > _ROUNDING * np.abs(means).max() else NAN,
        p_permutation=permutation_p(means, seed, resamples),
        p_wilcoxon=_wilcoxon_p(means),
    )


def permutation_p(differences: Float[np.ndarray, " n"], seed: int = 0, resamples: int = 10_000) -> float:
    """Two-sided p of the sign-flip test that the differences are symmetric about zero.

    All 2^n sign patterns are tried up to `EXACT_GROUPS` differences; beyond, `resamples` are drawn and
    the observed one is counted among them, so p is never 0 (Phipson and Smyth 2010).

    Args:
        differences: One independent difference each.
        seed: Seed of the drawn patterns.
        resamples: Number of drawn patterns.
    """
    n = len(differences)
    exact = n <= EXACT_GROUPS
    if exact:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    else:
        bits = np.random.default_rng(seed).integers(2, size=(resamples, n), dtype=np.int8)
    sums = np.abs((1.0 - 2.0 * bits) @ differences)
    observed = abs(float(differences.sum()))
    extreme = int((sums >= observed - 1e-12 * float(np.abs(differences).sum())).sum())
    return extreme / len(sums) if exact else (extreme + 1) / (len(sums) + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number (Holm 1979), in the given order; NaN stays and does not count.

    Raises:
        ValueError: A value lies outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if ((p < 0) | (p > 1)).any():
        raise ValueError(f"p_values: expected values in [0, 1], got {list(p_values)}")
    corrected = np.full(len(p), NAN)
    order = [i for i in np.argsort(p, kind="stable") if not np.isnan(p[i])]
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * float(p[i])))
        corrected[i] = largest
    return corrected.tolist()


def _without_rounding(differences: Float[np.ndarray, " n"], largest: float) -> Float[np.ndarray, " n"]:
    """Differences of values up to `largest`: 0.3 - 0.2 and 0.2 - 0.1 are equal, 0.1 + 0.2 - 0.3 is none."""
    unit = _ROUNDING * largest
    return np.round(differences / unit) * unit if 0 < unit < np.inf else differences


def _wilcoxon_p(differences: Float[np.ndarray, " n"]) -> float:
    from scipy.stats import wilcoxon  # imported late: it takes a second, and only comparisons need it

    if not differences.any():
        return 1.0
    return float(wilcoxon(differences, method="asymptotic" if len(differences) > 50 else "auto").pvalue)
