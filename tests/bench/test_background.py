"""Rows go to the disk while the next batch is edited: in order, one at a time, and no failure is lost."""

import threading
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from lightning import LightningModule, Trainer

from p2p_bench.bench import callbacks
from p2p_bench.bench.background import Background
from p2p_bench.bench.callbacks import WriteRows
from p2p_bench.bench.module import Edited
from p2p_bench.bench.open_run import OpenRun

PATIENCE = 60.0


class Disk:
    """Keeps what it is given; a part waits until it may go on, or fails."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, list]] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.fault: BaseException | None = None

    def writer(self, kind: str) -> SimpleNamespace:
        """Something with an `append`."""

        def append(rows):
            assert self.may_go_on.wait(PATIENCE)
            if self.fault is not None:
                raise self.fault
            self.parts.append((kind, list(rows)))

        return SimpleNamespace(append=append, lacks=lambda places: set(places))


@pytest.fixture
def disk(monkeypatch):
    monkeypatch.setattr(callbacks, "share_seconds", lambda rows, seconds: None)
    monkeypatch.setattr(callbacks, "peak_memory_mb", lambda device: 0.0)
    monkeypatch.setattr(
        callbacks,
        "score_references",
        lambda metrics, edited, wanted, device: [
            {"sample_id": one.loaded.pair.id, "target_index": 0} for one in edited
        ],
    )
    return Disk()


class Told:
    """A display."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def step(self, pairs: int, step: int, steps: int) -> None:
        """Nothing."""

    def batch_done(self, pairs: int) -> None:
        """Keeps the number."""
        self.batches.append(pairs)


def callback(disk: Disk, background: Background, told: Told | None = None) -> WriteRows:
    """A callback of one run whose rows are the ids of the pairs."""
    run = Mock(spec=OpenRun)
    run.maker = SimpleNamespace(number=0, task=SimpleNamespace(metrics={}), rows=rows_of)
    run.writer, run.references = disk.writer("rows"), disk.writer("references")
    return WriteRows([run], told or Told(), background)


def rows_of(edited, memory, device):
    return [{"status": "ok" if one.result else "error", "sample_id": one.loaded.pair.id} for one in edited]


def end(callback: WriteRows, *ids: str, failed: bool = False) -> None:
    """One batch has been edited."""
    edited = [Mock(spec=Edited) for _ in ids]
    for one, name in zip(edited, ids, strict=True):
        one.loaded = SimpleNamespace(pair=SimpleNamespace(id=name))
        one.edits, one.result = (SimpleNamespace(run=0, index=0),), not failed
    module = Mock(spec=LightningModule)
    module.device = torch.device("cpu")
    callback.on_test_batch_end(Mock(spec=Trainer), module, edited, edited, 0)


def ids_of(disk: Disk) -> list[tuple[str, list[str]]]:
    return [(kind, [row["sample_id"] for row in rows]) for kind, rows in disk.parts]


def test_a_batch_is_handed_over_without_waiting_for_the_disk(disk):
    told = Told()
    disk.may_go_on.clear()
    with Background() as background:
        write = callback(disk, background, told)
        end(write, "a", "b")
        assert (disk.parts, told.batches) == ([], [2])  # the next batch can be edited
        disk.may_go_on.set()
        end(write, "c", failed=True)
    assert ids_of(disk) == [
        ("references", ["a", "b"]),
        ("rows", ["a", "b"]),
        ("references", ["c"]),
        ("rows", ["c"]),
    ]
    assert write.failed == 1


def test_the_next_batch_waits_for_the_one_before(disk):
    disk.may_go_on.clear()
    with Background() as background:
        write = callback(disk, background)
        end(write, "a")
        second = threading.Thread(target=end, args=(write, "b"))
        second.start()
        second.join(0.2)
        assert second.is_alive()
        assert disk.parts == []
        disk.may_go_on.set()
        second.join(PATIENCE)
        assert [kind for kind, _ in ids_of(disk)][:2] == ["references", "rows"]
    assert [ids for kind, ids in ids_of(disk) if kind == "rows"] == [["a"], ["b"]]


def test_what_goes_wrong_with_a_batch_is_raised_at_the_next_which_is_not_written(disk):
    with Background() as background:
        write = callback(disk, background)
        disk.fault = OSError(28, "No space left on device")
        end(write, "a")
        with pytest.raises(OSError, match="No space left"):
            end(write, "b")
        disk.fault = None
    assert disk.parts == []


@pytest.mark.parametrize("leave", [None, ValueError("an edit")])
def test_the_last_batch_is_waited_for_and_its_failure_is_raised(disk, leave):
    def run() -> None:
        with Background() as background:
            end(callback(disk, background), "a")
            if leave is not None:
                raise leave

    disk.fault = OSError("disk")
    with pytest.raises(OSError, match="disk") as caught:
        run()
    assert caught.value.__context__ is leave
    disk.fault = None
    if leave is None:
        run()
    else:
        with pytest.raises(ValueError, match="an edit"):
            run()
    assert ids_of(disk) == [("references", ["a"]), ("rows", ["a"])]


def test_an_interrupt_in_the_background_is_one_here():
    with pytest.raises(KeyboardInterrupt), Background() as background:
        background.start(lambda: (_ for _ in ()).throw(KeyboardInterrupt))


def test_no_thread_is_left(disk):
    before = threading.active_count()
    with Background() as background:
        end(callback(disk, background), "a")
    assert threading.active_count() == before
