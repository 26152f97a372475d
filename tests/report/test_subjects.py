"""Runs whose sample ids stand for different pairs are not compared pair by pair."""

from pathlib import Path

from p2p_bench.report import write_folder_report
from p2p_bench.report.gather import gather
from p2p_bench.report.subjects import told_apart
from tests.report.fake_run import fake_run
from tests.report.test_folder import payload

OTHER = {"source_prompt": "a cat", "target_prompt": "a dog"}


def test_other_prompts_under_the_same_ids_are_other_samples(tmp_path: Path) -> None:
    for name, changes in (("a", {}), ("b", {(0, "auto"): OTHER}), ("c", {(0, "auto"): OTHER})):
        fake_run(tmp_path / name, samples=2, variants={"auto": 0.5}, changes=changes, pictures=False)
    report = write_folder_report([tmp_path], tmp_path / "out")
    assert len(report.notices) == 1
    assert report.notices[0].startswith("2 sample ids stand for other prompts or pictures")
    found = payload(tmp_path / "out" / "data" / "summary.js")
    assert [sample[0] for sample in found["samples"]] == ["pair-000", "pair-001", "pair-000 (2)"]
    rows = payload(tmp_path / "out" / "data" / "rows-000.js")
    assert [(row[0], row[1]) for row in rows] == [(0, 0), (0, 1), (1, 2), (1, 1), (2, 2), (2, 1)]


def test_other_pictures_under_the_same_ids_are_other_samples(tmp_path: Path) -> None:
    for name, checksum in (("a", ""), ("b", "one"), ("c", "two"), ("d", "one")):
        fake_run(
            tmp_path / name, samples=1, variants={"auto": 0.5}, every={"source_checksum": checksum},
            pictures=False,
        )  # fmt: skip
    runs, notices = told_apart(gather([tmp_path]).runs)
    assert [run.rows[0]["sample_id"] for run in runs] == ["pair-000", "pair-000", "pair-000 (2)", "pair-000"]
    assert [run.references[0]["sample_id"] for run in runs] == [run.rows[0]["sample_id"] for run in runs]
    assert len(notices) == 1


def test_a_new_name_is_no_other_samples(tmp_path: Path) -> None:
    fake_run(tmp_path / "a", samples=1, variants={"auto": 0.5}, pictures=False)
    taken = {(0, "auto"): {"sample_id": "pair-000 (2)"}, (1, "auto"): {"sample_id": "pair-000"} | OTHER}
    fake_run(tmp_path / "b", samples=2, variants={"auto": 0.5}, changes=taken, pictures=False)
    runs, _ = told_apart(gather([tmp_path]).runs)
    assert [row["sample_id"] for row in runs[1].rows] == ["pair-000 (2)", "pair-000 (2)'"]


def test_runs_of_the_same_samples_stay_as_they_are(tmp_path: Path) -> None:
    for name in ("a", "b"):
        fake_run(tmp_path / name, samples=3, variants={"auto": 0.5}, pictures=False)
    runs = gather([tmp_path]).runs
    assert told_apart(runs) == (runs, [])


def test_methods_that_masks_confine_are_told_apart(tmp_path: Path) -> None:
    for name, masks in (("a", ""), ("b", "given"), ("c", "attention")):
        fake_run(
            tmp_path / name, samples=2, variants={"auto": 0.5}, every={"mask_from": masks}, pictures=False
        )
    write_folder_report([tmp_path], tmp_path / "out")
    entries = payload(tmp_path / "out" / "data" / "summary.js")["entries"]
    assert [entry["masks"] for entry in entries] == ["", "given", "attention"]
    assert [entry["name"] for entry in entries] == ["a", "b · mask: given", "c · mask: attention"]
    assert len({entry["method"] for entry in entries}) == 3
