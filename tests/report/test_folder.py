"""The report over many runs as files; `test_folder_browser.py` looks at it in a browser."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from p2p_bench.bench.references import REFERENCES
from p2p_bench.errors import DataError, ErrorList
from p2p_bench.report import FolderReport, write_folder_report
from tests.report.fake_run import METRICS, NO_EDIT, NOTES, VAE, fake_run

TAUS = (0.2, 0.5, 0.8)
FAILED = {"status": "error", "error": "it </script> broke", **dict.fromkeys(METRICS, math.nan)}


def sweep(root: Path, samples: int = 6, **options: Any) -> Path:
    """Runs of two inversions at three taus, one of them with a baseline."""
    for number, (inversion, tau) in enumerate((inv, tau) for inv in ("ddim", "direct") for tau in TAUS):
        settings = {
            "inversion": {"_target_": f"x.{inversion.title()}"},
            "controller": {"_target_": "x.ByEdit", "cross": tau},
            "tau": {"cross": tau, "self_attn": tau / 2},
        }
        fake_run(
            root / str(number),
            samples=samples,
            variants={**({"none": None} if number == 0 else {}), "auto": tau},
            settings=settings,
            every={"inversion": inversion, "inversion_from": "cache" if number % 3 else "network"},
            seed=number,
            **options,
        )
    return root


def payload(path: Path) -> Any:
    """What a data file hands to the page."""
    text = path.read_text(encoding="utf-8")
    found = re.fullmatch(r"P2P\.\w+\((.*)\);\n", text, re.DOTALL)
    assert found
    return json.loads(found[1], parse_constant=lambda name: pytest.fail(f"{name} in {path}"))


def change_summary(run: Path, **changes: Any) -> None:
    summary = json.loads((run / "summary.json").read_text())
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = summary
        for parent in parents:
            node = node[parent]
        node[last] = value
    (run / "summary.json").write_text(json.dumps(summary))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = sweep(tmp_path_factory.mktemp("runs") / "sweep", changes={(1, "auto"): FAILED})
    (path / "started").mkdir()
    (path / "started" / "config.yaml").write_text("seed: 0\n")
    shutil.copytree(path / "5", path / "half")
    (path / "half" / "summary.json").unlink()
    return path


@pytest.fixture(scope="module")
def report(root: Path) -> FolderReport:
    return write_folder_report([root], root / "report")


@pytest.fixture(scope="module")
def summary(report: FolderReport) -> dict[str, Any]:
    return payload(report.page.parent / "data" / "summary.js")


def test_the_folder_refers_to_nothing_outside_itself(report: FolderReport) -> None:
    folder = report.page.parent
    html = report.page.read_text()
    for reference in re.findall(r'(?:src|href)="([^"]*)"', html):
        assert reference.startswith(("#", "data:")) or (folder / reference).is_file(), reference
    assert not re.search(r"<script(?![^>]*src=)", html), "the page's policy allows no script in it"
    for path in [report.page, *folder.glob("assets/*"), *folder.glob("data/*")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?://|@import|innerHTML|\bfetch\(", text), path


def test_what_a_reader_should_know_stands_beside_its_columns(report: FolderReport, summary: dict) -> None:
    html = report.page.read_text()
    assert html.count("† attribute changed, other attributes kept: of faultless photos") == 1
    assert {metric["name"] for metric in summary["metrics"] if metric["note"]} == set(NOTES)


def test_every_row_arrives_once_with_its_scores(report: FolderReport, summary: dict, root: Path) -> None:
    arrived = payload(report.page.parent / "data" / "rows-000.js")
    names = [metric["name"] for metric in summary["metrics"]]
    expected = {}
    for i in range(6):
        for row in pq.read_table(root / str(i) / "results.parquet").to_pylist():
            expected[str(root / str(i)), row["variant"], row["sample_id"]] = row
    assert len(arrived) == len(expected) == 42
    for entry, sample, error, scores, _ in arrived:
        facts = summary["entries"][entry]
        variant = "none" if facts["plain"] else "auto"
        row = expected.pop((facts["run"], variant, summary["samples"][sample][0]))
        assert error == (None if row["status"] == "ok" else row["error"])
        for name, score in zip(names, scores, strict=True):
            assert score == (None if math.isnan(row[name]) else pytest.approx(row[name], rel=1e-5)), name
    assert not expected


def test_pictures_are_kept_once_and_exactly(report: FolderReport, root: Path) -> None:
    folder = report.page.parent
    files = payload(folder / "data" / "pictures.js")
    assert {name for name, _ in files} == {path.name for path in (folder / "thumbs").iterdir()}
    assert all(link == "" for _, link in files)
    original = (root / "0" / "images" / "pair-000-source.png").read_bytes()
    assert sum((folder / "thumbs" / name).read_bytes() == original for name, _ in files) == 1


def test_large_pictures_become_thumbnails_with_a_link(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "a run #1", samples=1, side=400)
    page = write_folder_report([run], tmp_path / "out").page
    name, link = payload(page.parent / "data" / "pictures.js")[0]
    assert link == "../a%20run%20%231/images/pair-000-source.png"
    with Image.open(page.parent / "thumbs" / name) as image:
        assert max(image.size) == 256


def test_pictures_that_are_none_are_left_out(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", samples=1, variants={"auto": 0.5})
    (run / "images" / "pair-000-auto.png").write_text("<svg onload=alert(1)>")
    page = write_folder_report([run], tmp_path / "out").page
    kinds = payload(page.parent / "data" / "summary.js")["pictures"]
    shown = payload(page.parent / "data" / "rows-000.js")[0][4]
    assert shown[kinds.index("source")] is not None
    assert shown[kinds.index("target")] is None
    outside = fake_run(
        tmp_path / "bad", samples=1, changes={(0, "none"): {"image_target": "../run/summary.json"}}
    )
    page = write_folder_report([outside], tmp_path / "out").page
    pictures = [row[4] for row in payload(page.parent / "data" / "rows-000.js")]
    assert [shown[kinds.index("target")] for shown in pictures].count(None) == 1, "nobody's to show"


def test_unfinished_runs_are_named_not_shown(report: FolderReport, root: Path) -> None:
    assert report.runs == 6
    reasons = {one.path.name: one.reason for one in report.left_out}
    assert reasons.keys() == {"started", "half"}
    assert "has left no row yet" in reasons["started"]
    assert "summary.json: missing, so the run is not finished" in reasons["half"]
    html = report.page.read_text()
    assert "2 directories are not shown" in html
    assert str(root / "half") in html


def test_settings_that_change_together_are_named_once(summary: dict) -> None:
    names = [entry["name"] for entry in summary["entries"]]
    assert names[:3] == [
        "inversion=ddim tau.cross=0.2 · none",
        "inversion=ddim tau.cross=0.2",
        "inversion=ddim tau.cross=0.5",
    ]
    assert len(set(names)) == 7
    assert [method["name"] for method in summary["tables"]["methods"]] == [
        "inversion=ddim",
        "inversion=direct",
    ]
    taus = [[summary["entries"][i]["tau"][0] for i in m["entries"]] for m in summary["tables"]["methods"]]
    assert taus == [list(TAUS), list(TAUS)]


def test_a_run_named_twice_is_shown_once(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", samples=1, pictures=False)
    assert write_folder_report([run, tmp_path, str(run)], tmp_path / "out").runs == 1


def test_numbers_of_another_version_or_network_stand_apart(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        fake_run(tmp_path / name, samples=2, variants={"auto": 0.5}, pictures=False)
    change_summary(tmp_path / "b", metrics__lpips__backbone="alex")
    change_summary(tmp_path / "c", metrics__psnr__version=2)
    report = write_folder_report([tmp_path], tmp_path / "out")
    assert report.notices == (
        "lpips is not the same number in all runs and stands in columns of its own: "
        "lpips@1/world (2 runs), lpips@1/alex (1 run)",
        "psnr is not the same number in all runs and stands in columns of its own: "
        "psnr@1 (2 runs), psnr@2 (1 run)",
    )
    found = payload(tmp_path / "out" / "data" / "summary.js")
    counts = {
        metric["name"]: [entry["means"][i][1] for entry in found["entries"]]
        for i, metric in enumerate(found["metrics"])
    }
    assert counts["lpips@1/world"] == [2, 0, 2]
    assert counts["lpips@1/alex"] == [0, 2, 0]
    assert counts["psnr@2"] == [0, 0, 2]
    assert "lpips" not in counts
    assert counts["ssim"] == [2, 2, 2]


def test_numbers_of_replaced_weights_stand_apart(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        fake_run(tmp_path / name, samples=2, variants={"auto": 0.5}, pictures=False)
    change_summary(tmp_path / "a", metrics__lpips__weights="aa" * 32, metrics__ssim__weights="cc" * 32)
    alike = write_folder_report([tmp_path], tmp_path / "out")
    assert alike.notices == ()  # who notes none may have had the same
    change_summary(tmp_path / "b", metrics__lpips__weights="bb" * 32)
    report = write_folder_report([tmp_path], tmp_path / "out")
    assert report.notices == (
        "lpips is not the same number in all runs and stands in columns of its own: "
        "lpips@1/world#aaaaaaaaaaaa (1 run), lpips@1/world#bbbbbbbbbbbb (1 run), lpips@1/world (1 run)",
    )


def test_runs_of_another_schema_are_left_out(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        fake_run(tmp_path / name, samples=1, pictures=False)
    change_summary(tmp_path / "b", schema_version=2)
    report = write_folder_report([tmp_path], tmp_path / "out")
    assert report.runs == 2
    (one,) = report.left_out
    assert (one.path.name, "has schema 2, the others have 1" in one.reason) == ("b", True)


def test_what_is_no_run_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ErrorList, match=r"(?s)empty: no rows.*absent: no such directory"):
        write_folder_report([root, tmp_path / "empty", tmp_path / "absent"], tmp_path / "out")
    with pytest.raises(DataError, match="no run directory given"):
        write_folder_report([], tmp_path / "out")
    with pytest.raises(DataError, match="started: the run has left no row yet"):
        write_folder_report([root / "started"], tmp_path / "out")
    (tmp_path / "file.html").write_text("")
    with pytest.raises(DataError, match="is a file"):
        write_folder_report([root], tmp_path / "file.html")
    assert not (tmp_path / "out").exists()


def test_a_second_report_replaces_the_first_and_nothing_else(tmp_path: Path) -> None:
    fake_run(tmp_path / "a", samples=2, variants={"auto": 0.5})
    fake_run(tmp_path / "b", samples=1, variants={"auto": 0.5}, side=32)
    out = tmp_path / "out"
    write_folder_report([tmp_path / "a"], out)
    (out / "data" / "mine.txt").write_text("keep me")
    (out / "data" / "rows-001.js").write_text("old")
    write_folder_report([tmp_path / "b"], out)
    assert (out / "data" / "mine.txt").is_file()
    assert not (out / "data" / "rows-001.js").exists()
    shown = {name for name, _ in payload(out / "data" / "pictures.js")}
    assert {path.name for path in (out / "thumbs").iterdir()} == shown


def test_means_by_category_are_means_of_the_rows(summary: dict, root: Path) -> None:
    column = [metric["name"] for metric in summary["metrics"]].index("lpips")
    rows = pq.read_table(root / "1" / "results.parquet").to_pylist()
    values = [row["lpips"] for row in rows if row["category"] == "shape" and row["status"] == "ok"]
    entry = next(one for one in summary["entries"] if one["run"] == str(root / "1"))
    mean, count = entry["categories"]["shape"][column]
    assert (mean, count) == (pytest.approx(np.mean(values), rel=1e-5), len(values))
    changed = [metric["name"] for metric in summary["metrics"]].index("attribute_changed")
    assert entry["categories"]["refine"][changed] == [None, 0], "undefined, never zero"
    assert entry["counts"] == [5, 1]


def test_costs_and_references(summary: dict, tmp_path: Path) -> None:
    assert summary["entries"][0]["share"][0] == 0.75, "rows spent of rows alone"
    cold = [(entry["cold"], entry["cached"]) for entry in summary["entries"]]
    assert cold == [(6, 0), (6, 0), (0, 6), (0, 6), (6, 0), (0, 6), (0, 6)]
    plain = [entry["plain"] for entry in summary["entries"]]
    assert plain == ["no control"] + [""] * 6, "it starts from an inversion"
    (still,) = summary["references"]
    means = dict(zip([metric["name"] for metric in summary["metrics"]], still["means"][""], strict=True))
    assert (still["name"], still["counts"]["shape"]) == ("no edit", 2)
    assert means["clip_target"] == [22, 6, 22, 22], "six samples, though seven runs score them"
    assert means["clip_direction"] == [None, 0, None, None], "an unchanged picture has none"
    assert means["seconds"][0] is None
    assert summary["bounded"] == []


def test_the_bound_of_the_vae_stands_beside_every_fidelity(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", samples=3, pictures=False, references={"no_edit": NO_EDIT, "vae": VAE})
    found = payload(write_folder_report([run], tmp_path / "out").page.parent / "data" / "summary.js")
    names = [metric["name"] for metric in found["metrics"]]
    fidelities = [metric["name"] for metric in found["metrics"] if metric["role"] == "fidelity"]
    assert found["bounded"] == [*fidelities, "recon_psnr"]
    assert found["references"][1]["means"][""][names.index("psnr")][:2] == [31.0, 3]
    assert found["tables"]["curves"]["x"][0] == 0, "the range starts at no edit"
    assert found["tables"]["curves"]["y"][1] == VAE[found["axes"]["y"]]


def test_runs_without_references_are_shown_without(tmp_path: Path) -> None:
    for name, references in (("old", {}), ("new", None)):
        fake_run(tmp_path / name, samples=3, pictures=False, references=references)
    (tmp_path / "old" / REFERENCES).unlink()
    found = payload(write_folder_report([tmp_path / "old"], tmp_path / "a").page.parent / "data/summary.js")
    assert (found["references"], found["bounded"]) == ([], [])
    both = [tmp_path / "old", tmp_path / "new"]
    found = payload(write_folder_report(both, tmp_path / "b").page.parent / "data/summary.js")
    assert [one["counts"][""] for one in found["references"]] == [3]
    (tmp_path / "old" / REFERENCES).write_bytes(b"PAR1 half a file")
    left_out = write_folder_report(both, tmp_path / "c").left_out
    assert [one.path.name for one in left_out] == ["old"]
    assert "references.parquet: not a readable table" in left_out[0].reason


def test_references_of_a_metric_that_means_two_things_stay_apart(tmp_path: Path) -> None:
    runs = [fake_run(tmp_path / name, samples=2, pictures=False) for name in ("a", "b")]
    change_summary(runs[1], metrics__lpips__version=2)
    found = payload(write_folder_report(runs, tmp_path / "out").page.parent / "data" / "summary.js")
    names = [metric["name"] for metric in found["metrics"]]
    means = dict(zip(names, found["references"][0]["means"][""], strict=True))
    assert means["lpips@1/world"][:2] == means["lpips@2/world"][:2] == [0, 2]


def test_the_exact_answer_judges_the_choice_of_tau(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "answer_psnr", (True, "dB", "PSNR to the exact answer", "other", ""))
    for number, tau in enumerate(TAUS):
        settings = {"tau": {"cross": tau}}
        answers = {(i, "auto"): {"answer_psnr": 20.0 + number * (1 if i else -1)} for i in range(4)}
        fake_run(
            tmp_path / str(number), samples=4, variants={"auto": tau}, settings=settings, changes=answers,
            pictures=False, seed=number,
        )  # fmt: skip
    found = payload(write_folder_report([tmp_path], tmp_path / "out").page.parent / "data" / "summary.js")
    tables = found["tables"]
    assert tables["columns"] == ["attribute_changed", "psnr_outside", "answer_psnr"]
    (method,) = tables["autoTau"]
    means = {way["name"]: way["means"][2] for way in method["ways"]}
    # Three samples have every metric; the first does best at the smallest tau, the others at the largest.
    assert means["best fixed tau"][:2] == [pytest.approx((18 + 22 + 22) / 3, rel=1e-5), 3]
    assert means["oracle, upper bound"][0] == pytest.approx((20 + 22 + 22) / 3, rel=1e-5)
    assert means["auto-tau"][0] <= means["oracle, upper bound"][0]
    assert method["ways"][0]["taus"] == [["0.8/0.4", 3]]
    assert method["ways"][2]["taus"] == [["0.2/0.1", 1], ["0.8/0.4", 2]]
    gain = method["gain"]["difference"][0]
    assert gain == pytest.approx(means["auto-tau"][0] - means["best fixed tau"][0], abs=1e-4)
    assert tables["compared"] is None, "one method alone"


def test_methods_of_a_sweep_are_compared_with_the_best(summary: dict) -> None:
    compared = summary["tables"]["compared"]
    assert {compared["best"], *(row["method"] for row in compared["rows"])} == {
        "inversion=ddim",
        "inversion=direct",
    }
    assert {row["category"] for row in compared["rows"]} >= {"", "colour", "shape"}
    curves = summary["tables"]["curves"]["rows"]
    assert all(0 <= curve["hypervolume"] <= curve["area"][0] <= 1 for curve in curves)


def test_backward_rows_have_a_column_where_there_are_any(summary: dict, tmp_path: Path) -> None:
    def counts(found: dict) -> dict[str, int]:
        return {metric["name"]: metric["count"] for metric in found["metrics"]}

    assert counts(summary)["unet_rows_backward"] == 0
    run = fake_run(tmp_path / "run", samples=2, pictures=False, every={"unet_rows_backward": 12.0})
    found = payload(write_folder_report([run], tmp_path / "out").page.parent / "data" / "summary.js")
    assert counts(found)["unet_rows_backward"] == 8
    column = list(counts(found)).index("unet_rows_backward")
    assert found["entries"][0]["means"][column] == [12.0, 2, None, None]
