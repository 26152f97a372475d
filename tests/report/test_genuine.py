"""Pictures that were replaced after the run are not shown as its own."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from p2p_bench.bench.rows import RESULTS
from p2p_bench.marks import marked
from p2p_bench.report import write_folder_report, write_report
from tests.report.fake_run import fake_run, paint
from tests.report.test_report import Page


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose pictures are marked as a real run marks them."""
    made = fake_run(tmp_path / "run", samples=2)
    columns = ("run_id", "image_source", "image_target")
    names = {
        (row["run_id"], row[column])
        for row in pq.read_table(made / RESULTS, columns=list(columns)).to_pylist()
        for column in columns[1:]
    }
    for run_id, name in names:
        place = made / name
        place.write_bytes(marked(place.read_bytes(), f"{run_id}/{name}"))
    return made


def _notes(run: Path) -> list[str]:
    return sorted(note for uri, _, note in Page(write_report(run)).data["pictures"] if not uri)


def _thumbnails(run: Path) -> int:
    folder = write_folder_report([run], run.parent / "joint").page.parent
    return len(list((folder / "thumbs").iterdir()))


def test_what_was_put_in_a_pictures_place_is_not_shown(run: Path) -> None:
    first, second, drawn = (run / f"images/pair-00{i}-tau0.{tau}.png" for i, tau in ((0, 2), (1, 5), (0, 5)))
    shown = _thumbnails(run)
    assert _notes(run) == []
    shutil.copy(second, first)  # another of the run's own
    paint(drawn, 77, "#123456")  # one without a mark
    assert _notes(run) == sorted(
        f"another file than the run wrote there: images/{place.name}" for place in (first, drawn)
    )
    assert _thumbnails(run) == shown - 2


def test_pictures_of_runs_that_marked_none_are_shown(tmp_path: Path) -> None:
    made = fake_run(tmp_path / "run", samples=2)
    paint(made / "images/pair-000-tau0.2.png", 77, "#123456")
    assert _notes(made) == []
