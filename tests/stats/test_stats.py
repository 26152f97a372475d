"""Fronts, areas and paired tests against brute force and scipy."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p_bench.stats import (
    area_interval,
    area_under_front,
    compare_paired,
    draw_groups,
    holm,
    hypervolume,
    mean_interval,
    means,
    pareto_front,
    ratio_interval,
)
from p2p_bench.stats.paired import EXACT_GROUPS, permutation_p

NAN = math.nan
GRID = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12)
DIFFERENCES = st.lists(st.integers(-20, 20).map(lambda n: n / 4), min_size=2, max_size=9)


def array(points: list) -> np.ndarray:
    return np.array(points, dtype=np.float64).reshape(-1, 2)


@given(GRID)
def test_front_is_what_nothing_dominates(points: list) -> None:
    def beaten(a: tuple) -> bool:
        return any(b != a and b[0] >= a[0] and b[1] >= a[1] for b in points)

    assert pareto_front(array(points)) == [i for i, a in enumerate(points) if not beaten(a)]


def test_front_leaves_out_undefined_points() -> None:
    assert pareto_front(np.array([[NAN, 9.0], [1.0, 1.0]])) == [1]


@given(GRID, st.tuples(st.integers(0, 3), st.integers(0, 3)))
def test_hypervolume_counts_the_dominated_cells(points: list, corner: tuple) -> None:
    cells = itertools.product(range(corner[0], 6), range(corner[1], 6))
    inside = sum(any(p[0] > x and p[1] > y for p in points) for x, y in cells)
    assert hypervolume(array(points), (float(corner[0]), float(corner[1]))) == inside


@given(GRID)
def test_area_lies_between_the_step_fronts(points: list) -> None:
    """The joined front covers the dominated steps, and loses only triangles between neighbours."""
    area = area_under_front(array(points), (0.0, 6.0), (0.0, 6.0))
    if not points:
        assert math.isnan(area)
        return
    assert hypervolume(array(points), (0.0, 0.0)) / 36 <= area + 1e-12
    assert area <= max(p[0] for p in points) * max(p[1] for p in points) / 36 + 1e-12


@given(GRID.filter(len))
def test_area_is_the_integral_of_the_joined_front(points: list) -> None:
    front = sorted({points[i] for i in pareto_front(array(points))})
    x = np.linspace(0, 6, 60_001)
    y = np.interp(x, [p[0] for p in front], [p[1] for p in front], right=0.0)
    expected = np.trapezoid(y, x) / 36
    assert area_under_front(array(points), (0.0, 6.0), (0.0, 6.0)) == pytest.approx(expected, abs=2e-4)


def test_area_refuses_an_empty_range() -> None:
    with pytest.raises(ValueError, match="x_range"):
        area_under_front(np.ones((1, 2)), (1.0, 1.0), (0.0, 1.0))


def test_area_interval_draws_scenes() -> None:
    rng = np.random.default_rng(0)
    x = np.tile([[0.1, 0.5, 0.9]], (40, 1)) + 0.05 * rng.normal(size=(40, 3))
    y = np.tile([[0.9, 0.6, 0.2]], (40, 1)) + 0.05 * rng.normal(size=(40, 3))
    unit = (0.0, 1.0)
    alone = area_interval(x, y, list(range(40)), unit, unit)
    assert alone.mean == area_under_front(np.stack([x.mean(0), y.mean(0)], 1), unit, unit)
    assert alone.low < alone.mean < alone.high
    twice = area_interval(np.repeat(x, 2, 0), np.repeat(y, 2, 0), [i // 2 for i in range(80)], unit, unit)
    assert (twice.low, twice.high) == pytest.approx((alone.low, alone.high)), "copies are no evidence"
    assert math.isnan(area_interval(x, y, ["one"] * 40, unit, unit).low)


def test_area_interval_leaves_out_undefined_values() -> None:
    x = np.array([[0.5, NAN], [0.5, 0.9], [0.5, 0.7]])
    found = area_interval(x, 1 - x, ["a", "b", "c"], (0.0, 1.0), (0.0, 1.0))
    assert found.mean == area_under_front(np.array([[0.5, 0.5], [0.8, 0.2]]), (0.0, 1.0), (0.0, 1.0))


@given(DIFFERENCES)
@settings(max_examples=25, deadline=None)
def test_small_permutation_tests_are_scipys_exact_ones(differences: list) -> None:
    expected = scipy.stats.permutation_test(
        (np.array(differences), np.zeros(len(differences))),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    ).pvalue
    assert permutation_p(np.array(differences)) == pytest.approx(min(expected, 1.0))


def test_large_permutation_tests_agree_with_the_t_test() -> None:
    differences = np.random.default_rng(1).normal(0.4, 1.0, size=60)
    expected = scipy.stats.ttest_1samp(differences, 0).pvalue
    assert len(differences) > EXACT_GROUPS
    assert permutation_p(differences, resamples=100_000) == pytest.approx(expected, abs=1e-3)
    assert permutation_p(differences + 9, resamples=999) == 1 / 1000, "never zero"


def test_a_true_null_is_rejected_as_often_as_promised() -> None:
    rng = np.random.default_rng(2)
    rejected = sum(permutation_p(rng.normal(size=10)) < 0.05 for _ in range(400))
    assert 8 <= rejected <= 34, "5 % of 400, give or take three standard deviations"


@given(DIFFERENCES)
@settings(max_examples=25, deadline=None)
def test_comparison_of_single_samples(differences: list) -> None:
    found = compare_paired(differences, [0.0] * len(differences))
    assert found.difference.mean == pytest.approx(np.mean(differences))
    assert found.difference.count == found.groups == len(differences)
    spread = np.std(differences, ddof=1)
    assert (
        math.isnan(found.effect)
        if spread == 0
        else found.effect == pytest.approx(np.mean(differences) / spread)
    )
    expected = scipy.stats.wilcoxon(differences).pvalue if any(differences) else 1.0
    assert found.p_wilcoxon == pytest.approx(expected)
    swapped = compare_paired([0.0] * len(differences), differences)
    assert swapped.p_permutation == pytest.approx(found.p_permutation)


def test_what_rounding_leaves_is_no_difference() -> None:
    steps = [1, 2, 2, 3, -1, 4, 0, 2]
    found = compare_paired([(one + 3) / 10 for one in steps], [0.3] * len(steps))
    assert found.p_wilcoxon == pytest.approx(scipy.stats.wilcoxon(steps).pvalue)
    assert math.isnan(compare_paired([1.0, 2.0, 3.0], [0.9, 1.9, 2.9]).effect)
    none = compare_paired([0.1 + 0.2] * 20, [0.3] * 20)
    assert (none.p_wilcoxon, none.p_permutation) == (1.0, 1.0)
    assert math.isnan(none.effect)


def test_targets_of_one_scene_are_no_independent_evidence() -> None:
    first, second = [1.0, 2.0, 3.0, 2.5], [0.5, 1.0, 1.5, 2.0]
    once = compare_paired(first, second, ["a", "b", "c", "d"])
    often = compare_paired(first * 5, second * 5, ["a", "b", "c", "d"] * 5)
    assert (often.groups, often.p_permutation, often.effect) == (
        once.groups,
        once.p_permutation,
        pytest.approx(once.effect),
    )
    assert often.difference.count == 20


def test_pairs_with_an_undefined_value_are_left_out() -> None:
    found = compare_paired([1.0, NAN, 3.0, 4.0], [0.0, 1.0, NAN, 1.0])
    assert (found.difference.count, found.difference.mean) == (2, 2.0)
    assert math.isnan(compare_paired([NAN], [1.0]).p_permutation)
    with pytest.raises(ValueError, match="second: expected one per value"):
        compare_paired([1.0], [])


@given(st.lists(st.floats(0, 1) | st.just(NAN), max_size=8))
def test_holm_is_the_closed_test_of_bonferroni(p_values: list) -> None:
    """Corrected p of one hypothesis: the largest Bonferroni p over all sets that hold it."""
    known = [i for i, p in enumerate(p_values) if not math.isnan(p)]
    corrected = holm(p_values)
    for i, found in enumerate(corrected):
        if i not in known:
            assert math.isnan(found)
            continue
        sets = (s for size in range(1, len(known) + 1) for s in itertools.combinations(known, size))
        expected = max(min(1.0, len(s) * min(p_values[k] for k in s)) for s in sets if i in s)
        assert found == pytest.approx(expected)


def test_holm_refuses_what_is_no_probability() -> None:
    with pytest.raises(ValueError, match=r"expected values in \[0, 1\]"):
        holm([0.5, 1.5])


def test_ratio_of_means() -> None:
    found = ratio_interval([1.0, 3.0, NAN, 2.0], [2.0, 6.0, 5.0, 4.0])
    assert (found.mean, found.count) == (0.5, 3)
    assert (found.low, found.high) == pytest.approx((0.5, 0.5)), "the ratio is the same in every row"
    assert math.isnan(ratio_interval([1.0], [0.0]).mean)
    with pytest.raises(ValueError, match="denominator"):
        ratio_interval([1.0], [])


def test_ratio_over_ones_is_the_mean() -> None:
    values = np.random.default_rng(3).normal(size=30).tolist()
    groups = [i // 3 for i in range(30)]
    ratio, mean = ratio_interval(values, [1.0] * 30, groups), mean_interval(values, groups)
    assert (ratio.mean, ratio.low, ratio.high) == pytest.approx((mean.mean, mean.low, mean.high))


@pytest.mark.parametrize("block", [1, 50, 1 << 20])
def test_bootstrap_samples_drawn_block_by_block_are_those_drawn_at_once(monkeypatch, block) -> None:
    rng = np.random.default_rng(0)
    values, below = rng.normal(size=30), rng.random(30)
    groups = rng.integers(9, size=30).tolist()
    number, names = len(set(groups)), list(dict.fromkeys(groups))
    member = [names.index(group) for group in groups]
    sums, unders, sizes = (np.bincount(member, weights=one) for one in (values, below, np.ones(30)))
    draws = draw_groups(number, 0, 1000)
    monkeypatch.setattr(means, "_BLOCK", block)
    mean, ratio = (
        mean_interval(values.tolist(), groups),
        ratio_interval(values.tolist(), below.tolist(), groups),
    )
    for found, under in ((mean, sizes), (ratio, unders)):
        drawn = sums[draws].sum(axis=1) / under[draws].sum(axis=1)
        assert [found.low, found.high] == np.percentile(drawn, [2.5, 97.5]).tolist()


def test_memory_of_a_bootstrap_does_not_grow_with_its_samples() -> None:
    values = np.random.default_rng(0).normal(size=50_000).tolist()
    peaks = []
    for resamples in (50, 400):
        tracemalloc.start()
        mean_interval(values, resamples=resamples)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
