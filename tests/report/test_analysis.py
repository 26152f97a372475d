"""Auto-tau, curves and comparisons of methods against their definitions."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p_bench.report.auto_tau import Criterion, auto_tau, choose
from p2p_bench.report.columns import Column
from p2p_bench.report.entries import Entry, make_entries, reference_rows
from p2p_bench.report.methods import Method, compare_methods, curve_of, methods_of, trade_off_ranges
from p2p_bench.report.references import bound, no_edit, references
from p2p_bench.report.runs import Run, read_run
from tests.report.test_folder import FAILED, sweep

X = Column("attribute_changed", "x", "changed", True, "editability")
Y = Column("lpips", "y", "LPIPS", False, "fidelity")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    root = sweep(tmp_path_factory.mktemp("runs"), changes={(1, "auto"): FAILED}, pictures=False)
    return [read_run(path) for path in sorted(Path(root).iterdir())]


@pytest.fixture(scope="module")
def entries(runs: list[Run]) -> tuple[Entry, ...]:
    return make_entries(runs)


LEVEL = st.integers(0, 5).map(float)
POINTS = st.lists(st.tuples(LEVEL, LEVEL), min_size=1, max_size=8)


@given(POINTS, st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_the_chosen_tau_keeps_enough_and_changes_most(points: list, share: float) -> None:
    chosen = points[choose(points, share)]
    fidelity = [y for _, y in points]
    enough = [p for p in points if p[1] >= min(fidelity) + share * (max(fidelity) - min(fidelity))]
    assert chosen in enough
    assert chosen == max(enough)


def test_auto_tau_fixed_tau_and_oracle(entries: tuple[Entry, ...]) -> None:
    method = methods_of(entries)[0]
    judge = Column("ssim", "judge", "judge", True, "other")
    found = auto_tau(entries, method, Criterion(X, Y), judge, [X, Y, judge])
    assert found is not None
    assert found.oracle is not None
    assert found.gain is not None
    keys = set(found.auto.chosen)
    table = {i: {c.name: entries[i].values(c.name) for c in (X, Y, judge)} for i in method.entries}
    assert keys == {k for k in table[method.entries[0]]["ssim"] if k in table[method.entries[0]][X.name]}
    for key in keys:
        options = [(table[i][X.name][key], -table[i][Y.name][key]) for i in method.entries]
        assert found.auto.chosen[key] == method.entries[choose(options, 0.5)]
        best = max(table[i]["ssim"][key] for i in method.entries)
        assert found.oracle.columns["ssim"][key] == best
    fixed = max(np.mean([table[i]["ssim"][key] for key in keys]) for i in method.entries)
    assert np.mean(list(found.fixed.columns["ssim"].values())) == pytest.approx(fixed)
    ways = [np.mean(list(way.columns["ssim"].values())) for way in (found.fixed, found.auto, found.oracle)]
    assert max(ways) == ways[2], "nothing beats the oracle"
    assert found.gain.difference.mean == pytest.approx(ways[1] - ways[0])
    assert sum(found.auto.taus.values()) == len(keys)


def test_a_criterion_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"share: expected a number in \[0, 1\]"):
        Criterion(X, Y, 1.5)


def test_better_curves_have_more_area(entries: tuple[Entry, ...], runs: list[Run]) -> None:
    ranges = trade_off_ranges(entries, X, Y, references(reference_rows(runs), [X, Y]))
    assert ranges is not None
    assert ranges.x[0] == 0, "no edit changes nothing"
    assert ranges.y[0] < ranges.y[1] < 0, "lower LPIPS is better, so it is turned round"
    whole = methods_of(entries)[0]
    part = Method(whole.name, whole.entries[:1])
    full, single = (curve_of(entries, method, X, Y, ranges) for method in (whole, part))
    assert 0 <= single.hypervolume < full.hypervolume <= full.area.mean <= 1
    assert full.area.low <= full.area.mean <= full.area.high


def test_methods_are_compared_overall_and_per_category() -> None:
    keys = [(f"s{i}", 0) for i in range(8)]
    categories = {key: "ab"[i % 2] for i, key in enumerate(keys)}
    values = {
        "good": {"lpips": {key: 0.1 + 0.01 * i for i, key in enumerate(keys)}},
        "bad": {"lpips": {key: 0.3 + 0.02 * i for i, key in enumerate(keys[:7])}},
    }
    found = compare_methods(values, [Y, X], categories, "good")
    assert [(one.first, one.second, one.category) for one in found] == [
        ("bad", "good", category) for category in ("", "a", "b")
    ]
    overall = found[0]
    assert overall.paired.difference.mean == pytest.approx(np.mean([0.2 + 0.01 * i for i in range(7)]))
    assert overall.paired.p_permutation == 2 / 2**7
    assert overall.p_holm == pytest.approx(3 * 2 / 2**7), "three tests, the smallest p counts three times"
    assert all(one.p_holm >= one.paired.p_permutation for one in found)


def reference(kind: str, sample: str, category: str = "", **scores: float) -> dict:
    return {"reference": kind, "sample_id": sample, "target_index": 0, "category": category, **scores}


def test_the_bound_of_the_vae_ends_the_range_of_fidelity(entries: tuple[Entry, ...]) -> None:
    columns = [X, Column("psnr", "psnr", "PSNR", True, "fidelity", "dB"), Y]
    known = references([reference("vae", "a", psnr=40.0, lpips=0.001, attribute_changed=0.0)], columns)
    for y, best in zip(columns[1:], (40.0, -0.001), strict=True):
        bounded, free = (trade_off_ranges(entries, X, y, one) for one in (known, {}))
        assert bounded is not None
        assert free is not None
        assert bounded.y == (free.y[0], best)
        assert free.y[1] < best
        assert bounded.x == free.x, "what the VAE changes is no editability"


def test_a_sample_that_several_runs_score_counts_once() -> None:
    rows = [
        reference("no_edit", "a", "colour", lpips=0.0, attribute_changed=math.nan),
        reference("no_edit", "a", "colour", lpips=0.2, attribute_changed=math.nan),
        reference("no_edit", "b", "shape", lpips=0.4, attribute_changed=1.0),
        reference("vae", "b", "shape", lpips=0.1),
    ]
    known = references(rows, [X, Y])
    still, vae = known["no_edit"], known["vae"]
    assert (dict(still.count), dict(vae.count)) == ({"": 2, "colour": 1, "shape": 1}, {"": 1, "shape": 1})
    assert still.mean("lpips") == pytest.approx((0.1 + 0.4) / 2)
    assert still.means[""]["attribute_changed"].count == 1
    assert still.means["colour"]["lpips"].mean == pytest.approx(0.1)
    assert math.isnan(bound(known, X)), "only fidelities are bounded"
    assert (bound(known, Y), no_edit(known, X)) == (0.1, 1.0)
    assert math.isnan(no_edit(references([], [X, Y]), Y))
