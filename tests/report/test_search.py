"""The runs of a search in the folder report: front, importance, and when there are none."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p_bench.report import write_folder_report
from p2p_bench.report.search import importance
from tests.report.fake_run import fake_run
from tests.report.test_browser import BROWSER
from tests.report.test_folder import FAILED, change_summary, payload
from tests.report.test_folder_browser import act

OBJECTIVES = ["lpips", "clip_direction"]


def searched(root: Path, objectives: list[str] = OBJECTIVES) -> Path:
    """Twelve trials whose scores depend on tau; the last one failed."""
    for number in range(12):
        tau, guidance = number / 12, 1.5 + number % 3
        run = fake_run(
            root / str(number),
            samples=4,
            variants={"auto": tau},
            settings={
                "tau": {"cross": tau, "self_attn": tau},
                "controller": {"_target_": "x.ByEdit", "cross": tau},
                "sampler": {"guidance": guidance},
            },
            seed=number,
            pictures=False,
            changes={(1, "auto"): FAILED} if number == 11 else {},
        )
        change_summary(run, objectives=objectives)
    return root


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = searched(tmp_path_factory.mktemp("search"))
    return write_folder_report([root], root / "report").page


def test_the_front_holds_what_no_other_trial_beats(page: Path) -> None:
    summary = payload(page.parent / "data" / "summary.js")
    found, entries = summary["search"], summary["entries"]
    assert (found["objectives"], found["trials"], found["failed"]) == (OBJECTIVES, 12, 1)
    assert found["parameters"] == ["tau.cross", "sampler.guidance"], "what changes together is named once"
    at = [[metric["name"] for metric in summary["metrics"]].index(name) for name in OBJECTIVES]
    means = {i: [entries[i]["means"][k][0] for k in at] for i in range(11)}
    beaten = {
        i for i, (low, high) in means.items() if any(a < low and b > high for a, b in means.values())
    }  # fmt: skip
    assert {one["entry"] for one in found["front"]} == set(means) - beaten
    assert [means[one["entry"]][0] for one in found["front"]] == sorted(
        means[one["entry"]][0] for one in found["front"]
    )
    for one in found["front"]:
        assert one["values"] == [f"{one['entry'] / 12:g}", f"{1.5 + one['entry'] % 3:g}"]
    (tau, guidance) = found["importance"]
    assert tau[0] > 0.6 > 0.4 > guidance[0]


@pytest.mark.parametrize("changes", [{}, {"objectives": []}, {"objectives": ["unheard_of"]}])
def test_runs_that_are_no_search_have_no_section(tmp_path: Path, changes: dict[str, Any]) -> None:
    for number in range(3):
        run = fake_run(tmp_path / str(number), samples=2, variants={"auto": 0.2 * number}, pictures=False)
        change_summary(run, **changes)
    page = write_folder_report([tmp_path], tmp_path / "report").page
    assert payload(page.parent / "data" / "summary.js")["search"] is None


def test_importance_of_what_decides_and_of_what_does_not() -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(size=400)
    assert importance([str(value) for value in values], values) > 0.9
    assert importance([str(value) for value in rng.uniform(size=400)], values) < 0.03
    assert importance(["a", "b"] * 4, np.array([0.0, 1.0] * 4)) == 1.0
    assert math.isnan(importance(["a", "b"] * 4, np.ones(8)))
    assert math.isnan(importance(["a"] * 8, np.arange(8.0)))
    assert math.isnan(importance(["a", "b"], np.array([0.0, 1.0]))), "nothing is left over"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(-10, 10)), max_size=30))
def test_importance_is_a_share(trials: list[tuple[str, float]]) -> None:
    share = importance([name for name, _ in trials], np.array([score for _, score in trials]))
    assert math.isnan(share) or 0 <= share <= 1


@pytest.mark.skipif(BROWSER is None, reason="needs chromium, chromium-browser or google-chrome")
def test_the_page_shows_both(page: Path, tmp_path: Path) -> None:
    found = payload(page.parent / "data" / "summary.js")["search"]
    actions = """
    out.heads = texts("#view-tables h2");
    out.front = all('[aria-label="Front"] tbody tr').length;
    out.importance = texts('[aria-label="Importance"] tbody tr');
    """
    out = act(page, tmp_path / "profile", actions, view="view=tables")
    assert out["heads"][0] == "Search"
    assert out["front"] == len(found["front"])
    assert out["importance"][0].startswith(f"tau.cross{round(100 * found['importance'][0][0])} %")
