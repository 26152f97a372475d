"""Several processes share a run: each pair is edited once, whatever becomes of one of them."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from p2p_bench.bench import workers
from p2p_bench.bench.launched import launched
from tests.app.command import tiny_overrides, write_pairs
from tests.app.test_run import assert_same_rows, rows_of

COLOURS = ("red", "green", "blue", "yellow")
SEVENTEEN = [
    {
        "id": f"pair {number}",
        "source": f"a {COLOURS[number % 4]} circle on grass",
        "target": f"a {COLOURS[(number + 1) % 4]} circle on grass",
    }
    for number in range(17)
]
NINE = SEVENTEEN[:9]
SETTINGS = ("metrics=pixel", "run.batch_size=2", "run.images=1", "logger=none")
PRELOADED = [
    "p2p_bench.bench.workers",
    "p2p_bench.metrics.pixel",
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.unets.unet_2d_condition",
    "transformers.models.clip.modeling_clip",
    "transformers.models.clip.tokenization_clip",
]
"""What a process of a run imports."""

LONGER = (
    "sampler.steps=10",
    "metrics=none",
    "run.batch_size=1",
    "run.images=0",
    "logger=none",
    "run.dir=out",
)


@pytest.fixture(autouse=True)
def quick_start(monkeypatch):
    """Processes get what spawned ones get, but from a server that has imported everything once."""
    monkeypatch.setattr(workers, "START", "forkserver")
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)


@pytest.fixture
def whole(command):
    """Rows of an undisturbed run in one process."""
    assert command.bench(*SETTINGS, "run.dir=whole", pairs=NINE).code == 0
    return rows_of(command.folder / "whole")


def part_sizes(run_dir: Path) -> list[int]:
    """Number of rows in each part."""
    return [pq.read_metadata(part).num_rows for part in sorted((run_dir / "rows").glob("part-*"))]


def meanwhile(condition: Callable[[], bool], action: Callable[[], None]) -> threading.Thread:
    """Acts once something holds, beside what the test does."""

    def watch() -> None:
        end = time.monotonic() + 300
        while not condition():
            if time.monotonic() > end:
                return
            time.sleep(0.01)
        action()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_one_two_and_three_processes_leave_the_same_rows(command, whole):
    for count in (1, 2, 3):
        place = f"of-{count}"
        settings = [*SETTINGS, "trainer=ddp", f"trainer.devices={count}", f"run.dir={place}"]
        outcome = command.bench(*settings, pairs=NINE)
        assert outcome.code == 0, outcome.err
        assert_same_rows(whole, rows_of(command.folder / place))
        assert sum(part_sizes(command.folder / place)) == len(NINE)  # each once, in whatever part
        writers = {part.stem[len("part-000000") :] for part in (command.folder / place / "rows").iterdir()}
        assert len(writers) == count


def test_more_processes_than_pairs_are_not_started(command):
    settings = [*SETTINGS, "trainer=ddp", "trainer.devices=5", "run.dir=out"]
    outcome = command.bench(*settings, pairs=SEVENTEEN[:2])
    assert outcome.code == 0, outcome.err
    assert "in 2 processes" in outcome.err
    outcome = command.bench(*settings, pairs=SEVENTEEN[:2])
    assert outcome.code == 0
    assert "loading" not in outcome.err


def test_a_sweep_is_run_once_and_not_by_every_process(command):
    swept = ("-m", "tau.cross=0.2,0.8", "trainer=ddp", "trainer.devices=2", *SETTINGS)
    outcome = command.bench(*swept, "run.dir=sweep", pairs=SEVENTEEN[:4])
    assert outcome.code == 0, outcome.err
    assert command.bench("-m", "tau.cross=0.2,0.8", *SETTINGS, "run.dir=alone", pairs=SEVENTEEN[:4]).code == 0
    for job in ("0", "1"):
        rows = rows_of(command.folder / "sweep" / job)
        assert_same_rows(rows_of(command.folder / "alone" / job), rows)
        assert sum(part_sizes(command.folder / "sweep" / job)) == len(rows) == 4
    assert sorted(path.name for path in (command.folder / "sweep").iterdir() if path.is_dir()) == ["0", "1"]


def test_a_process_that_dies_ends_the_run_which_can_be_resumed(command):
    out = command.folder / "out"
    assert command.bench(*LONGER[:-1], "run.dir=whole", pairs=SEVENTEEN).code == 0

    def kill() -> None:
        victim = max(multiprocessing.active_children(), key=lambda process: process.name)
        os.kill(victim.pid, signal.SIGKILL)

    thread = meanwhile(lambda: any(out.glob("rows/part-*-0001.parquet")), kill)
    outcome = command.bench(*LONGER, "trainer=ddp", "trainer.devices=2", pairs=SEVENTEEN)
    thread.join()
    assert outcome.code == 75
    assert "was killed by SIGKILL before its work was done" in outcome.err
    assert f"p2p-bench resume {out} goes on" in outcome.err
    assert (out / "report.html").is_file()
    before = sum(part_sizes(out))
    assert 0 < before < len(SEVENTEEN)
    assert command("resume", "out").code == 0
    assert sum(part_sizes(out)) == len(SEVENTEEN)  # nothing that was finished is computed again
    assert_same_rows(rows_of(command.folder / "whole"), rows_of(out))


@pytest.mark.parametrize("trainer", [(), ("trainer=ddp", "trainer.devices=2")], ids=["one", "two"])
def test_a_signal_ends_the_run_after_the_batch_with_a_report(command, trainer):
    out = command.folder / "out"
    thread = meanwhile(
        lambda: any(out.glob("rows/part-000000*.parquet")), lambda: os.kill(os.getpid(), signal.SIGTERM)
    )
    outcome = command.bench(*LONGER, *trainer, pairs=SEVENTEEN)
    thread.join()
    assert outcome.code == 75, outcome.err
    assert "finishing the batch in hand" in outcome.err
    assert (out / "report.html").is_file()
    table = pq.read_table(out / "results.parquet").to_pylist()
    assert 0 < len(table) == sum(part_sizes(out)) < len(SEVENTEEN)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert command("resume", "out").code == 0
    assert len(rows_of(out)) == sum(part_sizes(out)) == len(SEVENTEEN)


def torchrun(folder: Path, count: int, *overrides: str) -> subprocess.CompletedProcess[str]:
    """A run by processes that torchrun starts."""
    pairs = write_pairs(folder / "pairs.jsonl", NINE)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    words += ["-m", "p2p_bench", *tiny_overrides(pairs), *SETTINGS, "trainer=torchrun", *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_that_torchrun_starts_leave_the_same_rows(command, whole, count):
    ended = torchrun(command.folder, count, "run.dir=out")
    assert ended.returncode == 0, ended.stderr
    out = command.folder / "out"
    assert_same_rows(whole, rows_of(out))
    assert sum(part_sizes(out)) == len(NINE)
    assert len({part.stem[len("part-000000") :] for part in (out / "rows").iterdir()}) == count
    assert ended.stdout.count("report: ") == 1


@pytest.mark.slow
def test_spawned_processes_leave_the_same_rows(command, whole, monkeypatch):
    monkeypatch.setattr(workers, "START", "spawn")
    settings = [*SETTINGS, "trainer=ddp", "trainer.devices=3", "run.dir=out"]
    assert command.bench(*settings, pairs=NINE).code == 0
    assert_same_rows(whole, rows_of(command.folder / "out"))


def test_torchrun_needs_a_place_and_the_right_trainer(command, monkeypatch):
    outcome = command.bench("trainer=torchrun", "run.dir=out")
    assert outcome.code == 2
    assert "neither did; trainer=ddp" in outcome.err
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "GROUP_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    outcome = command.bench("run.dir=out")
    assert outcome.code == 2
    assert "2 processes were started together" in outcome.err
    outcome = command.bench("trainer=torchrun")
    assert outcome.code == 2
    assert "run.dir=DIR" in outcome.err
    assert launched.cache_info().currsize == 0  # nothing was waited for
    assert not command.ran


def test_a_disk_that_fails_in_another_process_ends_the_run_which_can_be_resumed(command):
    """As it does in this one: what one process writes is lost, what the others wrote is kept and reported."""
    out = command.folder / "out"
    (out / "rows" / ".part-000000-0001.parquet.tmp").mkdir(parents=True)  # in the way of the second process
    settings = [*SETTINGS, "trainer=ddp", "trainer.devices=2", "run.dir=out"]
    outcome = command.bench(*settings, pairs=NINE)
    assert outcome.code == 75, outcome.err
    assert "error: process 2 of 2: IsADirectoryError" in outcome.err
    assert f"p2p-bench resume {out} goes on" in outcome.err
    assert (out / "report.html").is_file()
    assert json.loads((out / "progress.json").read_text())["state"] == "interrupted"
    assert 0 < len(rows_of(out)) == sum(part_sizes(out)) < len(NINE)
    (out / "rows" / ".part-000000-0001.parquet.tmp").rmdir()
    assert command("resume", "out").code == 0
    assert sum(part_sizes(out)) == len(NINE)
