"""What a page does with more than a browser opens, and with rows and means that are not of one run."""

import json
import shutil
from pathlib import Path

import pytest

from p2p_bench.errors import DataError
from p2p_bench.report import page, payload, write_folder_report, write_report
from p2p_bench.report.pictures import PictureStore
from tests.report.fake_run import VAE, fake_run
from tests.report.test_report import FAILED, Page

SAMPLES, VARIANTS = 8, 4


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    changes = {(sample, "tau=0.8"): FAILED for sample in (1, 6)}
    made = fake_run(tmp_path_factory.mktemp("runs") / "run", samples=SAMPLES, changes=changes)
    summary = json.loads((made / "summary.json").read_text())
    lpips = {"mean": 0.0, "count": SAMPLES, "low": 0.0, "high": 0.0}
    summary["references"] = {"no_edit": {"count": SAMPLES, "metrics": {"lpips": lpips}}}
    (made / "summary.json").write_text(json.dumps(summary))
    return made


def text(path: Path) -> str:
    return " ".join(path.read_text(encoding="utf-8").split())


def test_a_page_holds_whole_cards_and_says_what_it_leaves_out(run: Path, monkeypatch) -> None:
    """All means, counts and totals stay those of all rows."""
    whole = write_report(run)
    before, words = Page(whole).data, text(whole)
    assert "The gallery holds" not in words
    monkeypatch.setattr(payload, "MOST_EDITS", 10)
    monkeypatch.setattr(page, "MOST_FAILURES", 1)
    part = write_report(run)
    after, words = Page(part).data, text(part)
    assert after["samples"] == before["samples"][:3]
    assert all(len(sample["edits"]) == VARIANTS for sample in after["samples"])
    assert after["whole"] == {"samples": SAMPLES, "edits": SAMPLES * VARIANTS, "held": 12, "linked": 0}
    assert (after["variants"], after["axes"]) == (before["variants"], before["axes"])
    assert "The gallery holds the first 3 of 8 cards (12 of 32 edits)" in words
    assert f"p2p-bench report {run} --out {run / 'report'}" in words
    assert "2 of 32 edits</small>" in words
    assert "The first 1 are listed" in words
    assert words.count("the latent &lt;b&gt;broke") == 1


def test_pictures_without_room_are_links_to_their_files(run: Path, monkeypatch) -> None:
    store = PictureStore(run, room=1)
    names = [f"images/pair-00{i}-source.png" for i in (0, 1, 1)] + ["images/no.png"]
    assert [store.add(run, name) for name in names] == [0, 1, 1, 2]
    first, second, absent = store.pictures
    assert first.uri
    assert (second.uri, second.link) == ("", names[1])
    assert (absent.uri, absent.link, absent.note) == ("", "", "missing: images/no.png")
    monkeypatch.setattr(payload, "MOST_BYTES", 1)
    found = Page(write_report(run))
    assert sum(bool(uri) for uri, _, _ in found.data["pictures"]) == 1
    linked = found.data["whole"]["linked"]
    assert f"{linked} pictures are links to their files" in text(run / "report.html")


@pytest.mark.parametrize("name", ["results.parquet", "summary.json", "references.parquet"])
def test_files_of_two_runs_are_no_report(run: Path, tmp_path: Path, name: str) -> None:
    """Means of one run would stand above the edits of the other."""
    other = fake_run(tmp_path / "other", samples=SAMPLES, references={"vae": VAE}, seed=1, pictures=False)
    mixed = shutil.copytree(run, tmp_path / "mixed")
    shutil.copy(other / name, mixed)
    with pytest.raises(DataError, match=r"summary\.json is not of its rows \(.*\), so one of them was"):
        write_report(mixed)
    report = write_folder_report([mixed, other], tmp_path / "report")
    assert [one.path for one in report.left_out] == [mixed]


def test_a_summary_that_lacks_a_variant_is_no_summary_of_the_rows(run: Path, tmp_path: Path) -> None:
    mixed = shutil.copytree(run, tmp_path / "mixed")
    summary = json.loads((mixed / "summary.json").read_text())
    del summary["variants"]["tau=0.5"]
    (mixed / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(DataError, match=r"tau=0\.5: not in the summary"):
        write_report(mixed)
