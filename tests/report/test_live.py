"""Runs that are going on, seen from their files."""

import json
import math
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from p2p_bench.bench.directory import set_aside
from p2p_bench.bench.rows import RowWriter
from p2p_bench.errors import DataError
from p2p_bench.report.live import LiveRun, duration, live_paths
from p2p_bench.report.live_page import write_live_page
from tests.bench.test_rows import COLUMNS, make_row

METRICS = {
    "psnr": {"role": "fidelity", "higher_is_better": True, "label": "PSNR", "unit": "dB"},
    "lpips": {"role": "editability", "higher_is_better": False, "label": "LPIPS"},
}


def begun(run_dir: Path, **changes: object) -> Path:
    """A directory of a run that has just begun."""
    status = {
        "schema_version": 1,
        "experiment": "try",
        "state": "running",
        "started": time.time() - 100,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "promised": 8,
        "there": 0,
        "variants": ["none", "auto"],
        "metrics": METRICS,
    }
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "progress.json").write_text(json.dumps({**status, **changes}))
    return run_dir


def part(run_dir: Path, *rows: dict, ago: float = 0.0) -> None:
    """One more part, written so long ago."""
    RowWriter(run_dir, COLUMNS).append(rows)
    newest = max((run_dir / "rows").iterdir())
    os.utime(newest, (time.time() - ago,) * 2)


def test_progress_rate_failures_and_means(tmp_path):
    run = LiveRun(begun(tmp_path))
    nothing = run.look()
    assert (nothing.done, nothing.failed, nothing.promised, nothing.state) == (0, 0, 8, "running")
    assert nothing.axes is None
    assert "0 of 8 edits, 0 failed, running" in nothing.line()
    part(tmp_path, make_row("a", psnr=20.0), make_row("a", "auto", psnr=30.0, lpips=0.5), ago=40)
    part(tmp_path, make_row("b", psnr=10.0), make_row("b", "auto", status="error", error="too long"), ago=30)
    seen = run.look()
    assert (seen.done, seen.failed) == (4, 1)
    assert seen.rate == pytest.approx(0.2, rel=0.01)  # two edits in the ten seconds since the first part
    assert seen.seconds_left == pytest.approx(20, rel=0.01)
    assert seen.reasons == {"too long": 1}
    assert seen.summary["variants"]["none"]["metrics"]["psnr"] == {"mean": 15.0, "count": 2}
    assert seen.summary["variants"]["auto"] == {
        "count": 1,
        "failed": 1,
        "metrics": {"psnr": {"mean": 30.0, "count": 1}, "lpips": {"mean": 0.5, "count": 1}},
    }
    assert seen.axes == ("lpips", "psnr")


def test_an_edit_that_is_tried_again_counts_once(tmp_path):
    run = LiveRun(begun(tmp_path))
    part(tmp_path, make_row("a", status="error", error="bad luck"))
    assert (run.look().done, run.look().failed) == (1, 1)
    part(tmp_path, make_row("a", psnr=7.0))
    seen = run.look()
    assert (seen.done, seen.failed, dict(seen.reasons)) == (1, 0, {})
    assert seen.summary["variants"]["none"]["metrics"]["psnr"]["mean"] == 7.0


def test_parts_are_read_once(tmp_path, monkeypatch):
    run = LiveRun(begun(tmp_path))
    part(tmp_path, make_row("a"))
    run.look()
    monkeypatch.setattr(pq, "read_table", None)  # an error if it were read again
    assert run.look().done == 1


def test_a_run_that_is_started_anew_in_its_directory_is_read_anew(tmp_path):
    """Parts of other settings were set aside, and new ones have their names."""
    run = LiveRun(begun(tmp_path))
    part(tmp_path, make_row("a", psnr=10.0), make_row("b", psnr=10.0))
    part(tmp_path, make_row("c", status="error", error="bad luck"))
    assert (run.look().done, run.look().failed) == (3, 1)
    set_aside(tmp_path)
    begun(tmp_path)
    part(tmp_path, make_row("a", psnr=30.0))
    seen = run.look()
    assert (seen.done, seen.failed) == (1, 0)
    assert seen.summary["variants"]["none"]["metrics"]["psnr"] == {"mean": 30.0, "count": 1}


def test_failed_edits_that_are_tried_again_are_still_to_be_made(tmp_path):
    part(tmp_path, *(make_row(name, status="error", error="bad luck") for name in "abcdef"), ago=1)
    run = LiveRun(begun(tmp_path, there=2, first_part=1, started=time.time() - 50))
    seen = run.look()
    assert (seen.done, seen.failed, seen.promised) == (2, 6, 8)
    assert math.isnan(seen.rate)  # nothing was made since it was started
    part(tmp_path, make_row("a", psnr=1.0), ago=20)
    part(tmp_path, make_row("b", status="error", error="again"), ago=10)
    seen = run.look()
    assert (seen.done, seen.failed) == (4, 5)
    assert seen.seconds_left == pytest.approx(40, rel=0.01)  # four edits, one in ten seconds


def test_a_run_whose_process_is_gone_has_stopped(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    seen = LiveRun(begun(tmp_path, process=gone.pid)).look()
    assert seen.state == "stopped"
    assert seen.seconds_left == 0
    assert LiveRun(begun(tmp_path, process=gone.pid, host="elsewhere")).look().state == "running"
    assert LiveRun(begun(tmp_path, state="interrupted")).look().state == "interrupted"


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"experiment": 1', "\x00"])
def test_a_damaged_status_is_told(tmp_path, text):
    begun(tmp_path)
    (tmp_path / "progress.json").write_text(text)
    with pytest.raises(DataError, match=r"progress\.json"):
        LiveRun(tmp_path)


def test_runs_of_a_sweep_in_order(tmp_path):
    for job in (10, 2, 0):
        begun(tmp_path / str(job))
    assert [path.name for path in live_paths(tmp_path)] == ["0", "2", "10"]
    with pytest.raises(DataError, match="no run has begun here"):
        live_paths(tmp_path / "0" / "rows")


def test_the_page_reloads_while_something_goes_on_and_escapes_what_it_shows(tmp_path):
    begun(tmp_path, experiment="<b>try</b>")
    part(
        tmp_path,
        make_row("a", psnr=20.0, lpips=0.1),
        make_row("b", status="error", error="<script>x</script>"),
    )
    page = tmp_path / "live.html"
    write_live_page(page, [LiveRun(tmp_path).look()], every=5.0)
    text = page.read_text()
    assert '<meta http-equiv="refresh" content="5">' in text
    assert "2 of 8 edits, 1 failed" in text
    assert "<script>" not in text
    assert "<b>try" not in text
    assert "<circle" in text
    begun(tmp_path, state="finished")
    write_live_page(page, [LiveRun(tmp_path).look()], every=5.0)
    assert 'http-equiv="refresh"' not in page.read_text()


def test_durations():
    assert [duration(s) for s in (7.4, 99.0, 600.0, 12_000.0)] == ["7 s", "99 s", "10 min", "3 h 20 min"]
