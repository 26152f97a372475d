"""The report over many runs tells methods apart where their settings do not, and only there."""

import json
from pathlib import Path

from p2p_bench.report import write_folder_report
from tests.report.fake_run import fake_run
from tests.report.test_folder import TAUS, payload


def test_runs_without_a_difference_go_by_their_directories(tmp_path: Path) -> None:
    for name in ("a/run", "b/run"):
        fake_run(tmp_path / name, samples=1, variants={"auto": 0.5}, pictures=False)
    page = write_folder_report([tmp_path / "a", tmp_path / "b"], tmp_path / "out").page
    found = payload(page.parent / "data" / "summary.js")
    assert [entry["name"] for entry in found["entries"]] == ["a/run", "b/run"]


def test_a_choice_of_tau_is_none_between_runs_of_equal_settings(tmp_path: Path) -> None:
    # the same sweep twice, as of other weights: auto-tau chose the better of the two for each sample
    for name in ("old", "new"):
        for number, tau in enumerate(TAUS):
            settings = {"tau": {"cross": tau}}
            fake_run(tmp_path / name / str(number), variants={"auto": tau}, settings=settings, pictures=False)
    page = write_folder_report([tmp_path / "old", tmp_path / "new"], tmp_path / "out").page
    found = payload(page.parent / "data" / "summary.js")
    taus = [entry["tau"][0] for entry in found["entries"]]
    methods = {one["name"]: [taus[i] for i in one["entries"]] for one in found["tables"]["methods"]}
    assert methods == {"by_edit · old": list(TAUS), "by_edit · new": list(TAUS)}
    assert {row["method"] for row in found["tables"]["compared"]["rows"]} < set(methods)
    page = write_folder_report([tmp_path / "old"], tmp_path / "out").page
    found = payload(page.parent / "data" / "summary.js")
    assert [one["name"] for one in found["tables"]["methods"]] == ["by_edit"]


def test_the_same_settings_with_other_weights_are_another_method(tmp_path: Path) -> None:
    """A checkpoint was replaced in its folder between two runs of one sweep."""
    for number, tau in enumerate(TAUS):
        made = fake_run(
            tmp_path / str(number),
            variants={"auto": tau}, settings={"tau": {"cross": tau}}, pictures=False,
        )  # fmt: skip
        summary = json.loads((made / "summary.json").read_text())
        summary["checksums"] = {"model": "a" * 64 if number else "b" * 64}
        (made / "summary.json").write_text(json.dumps(summary))
    tables = payload(write_folder_report([tmp_path], tmp_path / "out").page.parent / "data" / "summary.js")[
        "tables"
    ]
    methods = {one["name"]: len(one["entries"]) for one in tables["methods"]}
    assert methods == {
        f"checksum of the model={letter * 12}": count for letter, count in (("b", 1), ("a", len(TAUS) - 1))
    }


def test_tools_whose_images_were_scored_are_a_method_each(tmp_path: Path) -> None:
    # all were "given", and auto-tau chose the best tool for each sample
    made = {"controller": "given", "tau_cross": "", "tau_self": ""}
    for name in ("a", "b"):
        tools = dict.fromkeys(("one", "two"), 0.5)
        fake_run(tmp_path / name, variants=tools, every=made, settings={"name": name}, pictures=False)
    page = write_folder_report([tmp_path], tmp_path / "out").page
    tables = payload(page.parent / "data" / "summary.js")["tables"]
    names = [f"name={name} · given · {tool}" for name in ("a", "b") for tool in ("one", "two")]
    assert [one["name"] for one in tables["methods"]] == names
    assert not tables["autoTau"]


def test_long_settings_that_begin_alike_are_not_the_same(tmp_path: Path) -> None:
    # two checkpoints in one folder were one method, whose tau was chosen among both
    folder = "/home/somebody/models/diffusers/checkpoints/stable-diffusion"
    for number, (path, tau) in enumerate((path, tau) for path in ("v1-4", "v1-5") for tau in TAUS):
        settings = {"model": {"path": f"{folder}-{path}"}, "tau": {"cross": tau}}
        fake_run(tmp_path / str(number), variants={"auto": tau}, settings=settings, pictures=False)
    page = write_folder_report([tmp_path], tmp_path / "out").page
    found = payload(page.parent / "data" / "summary.js")
    names = [one["name"] for one in found["tables"]["methods"]]
    assert [name.rpartition("-")[2] for name in names] == ["4", "5"]
    assert all(len(name) < 60 for name in names)
    assert len({entry["name"] for entry in found["entries"]}) == 6
