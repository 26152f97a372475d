"""Several processes on one machine that share a run: started and watched here, merged through files.

Each process is a whole trainer on a device of its own and edits its share of the pairs. Nothing is exchanged
between them, so none ever waits for another: what they tell goes one way, through a pipe each.
"""

import logging
import logging.handlers
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from lightning import Trainer

from p2p_bench.bench.devices import on_device
from p2p_bench.bench.progress import ProgressDisplay
from p2p_bench.bench.stopping import Stop, TooManyErrorsError, stopping
from p2p_bench.bench.work import Work, edit_work
from p2p_bench.errors import ConfigError, OtherProcessError, P2PError, ProcessLostError, exit_code_of
from p2p_bench.signals import SIGNALS, may_stop

START = "spawn"
_WAIT = 0.5
_PATIENCE = 60.0
log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Worker:
    """A process as its starter sees it.

    Attributes:
        number: From 0.
        process: The process.
        pipe: What it tells comes here.
        ended: It has said that it is done, or why it is not.
        fault: What went wrong there.
        failed: Number of edits that have failed there.
        interrupted: It ended between two batches because it was asked to.
    """

    number: int
    process: BaseProcess
    pipe: Connection
    ended: bool = False
    fault: P2PError | None = None
    failed: int = 0
    interrupted: bool = False


def edit_in_processes(
    work: Work, trainer: Callable[..., Trainer], count: int, display: ProgressDisplay, stop: Stop
) -> None:
    """Edits in several processes, a device each.

    Args:
        work: What to edit.
        trainer: Makes a trainer from `callbacks=[...]`.
        count: Number of processes.
        display: Shows how far things are.
        stop: Whether to end after the batches in hand.

    Raises:
        ProcessLostError: A process died; the others have finished their batches.
        P2PError: What went wrong in one of them.
        KeyboardInterrupt: Interrupted; finished batches are on the disk.
    """
    workers: list[_Worker] = []
    try:
        workers.extend(_started(work.share(number, count), trainer, number, count) for number in range(count))
        _watch(workers, work, display, stop)
    except BaseException:
        for worker in workers:
            worker.process.kill()
        raise
    finally:
        for worker in workers:
            worker.process.join()
            worker.pipe.close()
    faults = [worker.fault for worker in workers if worker.fault is not None]
    if faults:  # the process that died tells more than those that were asked to end
        raise faults[0]
    if any(worker.interrupted for worker in workers):
        raise KeyboardInterrupt


def _started(work: Work, trainer: Callable[..., Trainer], number: int, count: int) -> _Worker:
    context = multiprocessing.get_context(START)
    ours, theirs = context.Pipe(duplex=False)
    # A daemon: it ends with this process, if that ends in order. If not, its pipe breaks.
    process: BaseProcess = context.Process(  # type: ignore[attr-defined]  # of a context named by a string
        target=_work, args=(work, trainer, number, count, theirs), daemon=True
    )
    try:
        with _ignored_signals():
            process.start()
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise ConfigError(
            f"trainer: a part of this run cannot be handed to another process ({error})"
        ) from error
    theirs.close()
    return _Worker(number, process, ours)


@contextmanager
def _ignored_signals() -> Iterator[None]:
    """A process that is started meanwhile ignores them until it is ready for them, and a hangup for good."""
    if not may_stop():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(workers: Sequence[_Worker], work: Work, display: ProgressDisplay, stop: Stop) -> None:
    """Listens until every process has ended."""
    while running := [worker for worker in workers if not worker.pipe.closed]:
        for ready in wait([worker.pipe for worker in running], _WAIT):
            worker = next(one for one in running if one.pipe is ready)
            try:
                _hear(worker, worker.pipe.recv(), display)
            except (EOFError, OSError):
                _close(worker, len(workers))
        failed, most = sum(worker.failed for worker in workers), work.limits.max_errors
        if most is not None and failed > most:
            workers[0].fault = workers[0].fault or TooManyErrorsError(failed, most)
        if stop.asked or any(worker.fault for worker in workers):
            for worker in running:  # again and again: one that is still loading does not listen
                if worker.process.is_alive() and worker.process.pid is not None:
                    with suppress(ProcessLookupError):
                        os.kill(worker.process.pid, signal.SIGTERM)


def _hear(worker: _Worker, message: tuple[Any, ...], display: ProgressDisplay) -> None:
    kind, *rest = message
    if kind == "step":
        pairs, step, steps = rest
        display.step(pairs, step, steps, worker.number)
    elif kind == "batch":
        (pairs,) = rest
        display.batch_done(pairs, worker.number)
    elif kind == "failed":
        (worker.failed,) = rest
    elif kind == "log":
        (record,) = rest
        logging.getLogger(record.name).handle(record)
    else:
        worker.ended = True
        worker.interrupted = kind == "interrupted"
        if kind == "fault":
            worker.fault = OtherProcessError(*rest)


def _close(worker: _Worker, count: int) -> None:
    """A process tells no more: it has ended or died."""
    worker.pipe.close()
    worker.process.join(_PATIENCE)
    if not worker.ended:
        code = worker.process.exitcode
        how = (
            f"was killed by {signal.Signals(-code).name}"
            if code is not None and code < 0
            else f"ended with {code}"
        )
        worker.fault = ProcessLostError(
            f"process {worker.number + 1} of {count} {how} before its work was done (memory may have "
            "run out); the others have finished their batches"
        )


class _Pipe:
    """The display of a process that tells another."""

    def __init__(self, pipe: Connection) -> None:
        self.tell = pipe.send

    def step(self, pairs: int, step: int, steps: int) -> None:
        """See `Display`."""
        self.tell(("step", pairs, step, steps))

    def batch_done(self, pairs: int) -> None:
        """See `Display`."""
        self.tell(("batch", pairs))


def _work(work: Work, trainer: Callable[..., Trainer], number: int, count: int, pipe: Connection) -> None:
    """What a started process does."""
    display = _Pipe(pipe)
    _log_to(display)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
    try:
        with stopping(Stop()) as stop:
            one = on_device(trainer, number)
            edit_work(work, one, display, stop, lambda failed: display.tell(("failed", failed)))
        display.tell(("done",))
    except KeyboardInterrupt:
        display.tell(("interrupted",))
    except BrokenPipeError:  # whoever started this process is gone, and with it the lock of the directory
        os._exit(1)
    except P2PError as error:
        display.tell(("fault", str(error), error.exit_code))
    except Exception as error:
        log.exception("process %d", number)
        told = f"process {number + 1} of {count}: {type(error).__name__}: {error}"
        display.tell(("fault", told, exit_code_of(error)))
    finally:
        with suppress(OSError):
            pipe.close()


def _log_to(display: _Pipe) -> None:
    """Sends what is logged here to the process that keeps the log of the run."""
    root = logging.getLogger()
    root.handlers = [_ToPipe(display)]
    root.setLevel(logging.INFO)
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        for part in (name, f"{name}.utilities.rank_zero"):
            logging.getLogger(part).setLevel(logging.ERROR)
    logging.captureWarnings(True)


class _ToPipe(logging.handlers.QueueHandler):
    def __init__(self, display: _Pipe) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # no queue: see `enqueue`
        self.display = display

    def enqueue(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            self.display.tell(("log", record))
