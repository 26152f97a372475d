"""A run is a success only if every row it promised is on the disk."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import p2p_bench.app.jobs as jobs
import p2p_bench.bench.run as bench_run
from p2p_bench.bench.callbacks import WriteRows
from p2p_bench.bench.merging import compact
from p2p_bench.bench.rows import RESULTS, RowWriter, key_of, read_rows
from p2p_bench.bench.whole import shortfall
from tests.app.command import PAIRS
from tests.bench.test_rows import COLUMNS, make_row

EDITS = 4
SETTINGS = ("run.batch_size=1", "run.images=0", "logger=none", "run.dir=out")


def remove_all(run_dir: Path) -> None:
    """The directory is gone."""
    shutil.rmtree(run_dir)


def remove_parts(run_dir: Path) -> None:
    """The rows are gone."""
    shutil.rmtree(run_dir / "rows")


def remove_a_part(run_dir: Path) -> None:
    """Some rows are gone."""
    sorted((run_dir / "rows").glob("part-*"))[0].unlink()


def remove_results(run_dir: Path) -> None:
    """The table is gone."""
    (run_dir / RESULTS).unlink(missing_ok=True)


def keys_on_disk(run_dir: Path) -> list:
    """Keys of the table and of the parts, which have to agree."""
    table = [key_of(row) for row in pq.read_table(run_dir / RESULTS).to_pylist()]
    assert sorted(table) == sorted(key_of(row) for row in read_rows(run_dir))
    return table


@pytest.mark.parametrize("harm", [remove_all, remove_parts, remove_a_part])
@pytest.mark.parametrize("moment", [0, 2])
def test_rows_lost_during_a_run_are_no_success(command, monkeypatch, harm, moment):
    end = WriteRows.on_test_batch_end

    def harmed(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0):
        end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx)
        if batch_idx == moment:
            self.background.wait()
            harm(command.folder / "out")

    with monkeypatch.context() as patch:
        patch.setattr(WriteRows, "on_test_batch_end", harmed)
        outcome = command.bench(*SETTINGS)
    assert outcome.code == 75, outcome.err
    assert f"of {EDITS} edits are not in" in outcome.err
    assert f"p2p-bench resume {command.folder / 'out'}" in outcome.err
    assert command("resume", "out").code == 0
    assert len(keys_on_disk(command.folder / "out")) == EDITS


@pytest.mark.parametrize("harm", [remove_results, remove_a_part, remove_all])
def test_rows_lost_while_the_report_is_written_are_no_success(command, monkeypatch, harm):
    write_report = jobs.write_report

    def harmed(run_dir):
        page = write_report(run_dir)
        harm(run_dir)
        return page

    monkeypatch.setattr(jobs, "write_report", harmed)
    outcome = command.bench(*SETTINGS)
    assert outcome.code == 75, outcome.err
    assert "unexpected" not in outcome.err


@pytest.mark.parametrize("launcher", ["shared", "basic"])
def test_rows_lost_after_a_job_are_no_success_of_the_sweep(command, monkeypatch, launcher):
    run_benchmark, seen = jobs.run_benchmark, []

    def harmed(task, run_dir, **options):
        finished = run_benchmark(task, run_dir, **options)
        seen.append(run_dir)
        if len(seen) == 2:
            remove_a_part(seen[0])
        return finished

    monkeypatch.setattr(jobs, "run_benchmark", harmed)
    outcome = command.bench("-m", "seed=0,1", *SETTINGS, f"hydra/launcher={launcher}", pairs=PAIRS[:1])
    assert outcome.code == 1, outcome.err
    assert "1 of 2 jobs without a failure" in outcome.out
    assert "resume" in outcome.err


def test_batches_that_a_trainer_leaves_out_are_no_success(command, monkeypatch):
    make = bench_run.edit_pending

    def halved(runs, facts, *, trainer, **options):
        make(runs, facts, trainer=lambda **kw: trainer(limit_test_batches=0.5, **kw), **options)

    monkeypatch.setattr(bench_run, "edit_pending", halved)
    outcome = command.bench(*SETTINGS, pairs=PAIRS[::2])
    assert outcome.code == 75
    assert "1 of 2 edits are not in" in outcome.err


def test_a_disk_that_is_full_is_told_once_and_the_run_goes_on_later(command, monkeypatch):
    append = RowWriter.append

    def full(self, rows):
        if rows:
            raise OSError(28, "No space left on device")
        append(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(RowWriter, "append", full)
        outcome = command.bench(*SETTINGS)
    assert outcome.code == 75
    assert "No space left on device" in outcome.err
    assert f"p2p-bench resume {command.folder / 'out'} goes on" in outcome.err
    assert "unexpected" not in outcome.err
    assert "Traceback" not in outcome.err
    assert command("resume", "out").code == 0


@settings(max_examples=40, deadline=None)
@given(
    parts=st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=5),
    lost=st.sets(st.integers(0, 4)),
    later=st.sets(st.integers(0, 4)),
    table=st.booleans(),
)
def test_a_directory_is_whole_if_and_only_if_its_table_and_parts_hold_every_row(
    tmp_path_factory, parts, lost, later, table
):
    run_dir = tmp_path_factory.mktemp("run")
    writer = RowWriter(run_dir, COLUMNS)
    for part in parts:
        writer.append([make_row(str(number)) for number in part])
    promised = [(str(number), "none", 0) for number in sorted({n for part in parts for n in part})]
    files = sorted((run_dir / "rows").glob("part-*"))
    for number in lost & set(range(len(files))):
        files[number].unlink()
    compacted = {key_of(row) for row in compact(run_dir, COLUMNS, promised)}
    assert compacted == {key_of(row) for row in read_rows(run_dir)}
    for number in later & set(range(len(files))):
        files[number].unlink(missing_ok=True)
    left = {key_of(row) for row in read_rows(run_dir)}
    if not table:
        (run_dir / RESULTS).unlink()
    whole = table and set(promised) <= compacted & left
    assert (shortfall(run_dir, promised) == "") == whole
