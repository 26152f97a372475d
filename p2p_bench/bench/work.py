"""What is to be edited, shared out among processes, and how one process does its part."""

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning import Callback, Trainer
from torch.utils.data import DataLoader

from p2p_bench.bench.background import Background
from p2p_bench.bench.callbacks import WriteRows
from p2p_bench.bench.module import Asked, EditModule
from p2p_bench.bench.open_run import Facts, OpenRun
from p2p_bench.bench.progress import Display
from p2p_bench.bench.stopping import EndBetweenBatches, Stop
from p2p_bench.bench.task import Limits, Task
from p2p_bench.data.batches import pair_batches
from p2p_bench.errors import ConfigError
from p2p_bench.metrics.base import load_networks
from p2p_bench.types import EditPair


@dataclass(frozen=True)
class Work:
    """What is to be edited, by one process or several.

    Attributes:
        runs: Whose rows are made; they differ in nothing but their variants and are numbered from 0.
        pairs: The pairs.
        asked: The edits of each, by id.
        size: Height and width of the model.
        batch_size: Pairs edited together.
        limits: When to give up.
    """

    runs: tuple[OpenRun, ...]
    pairs: tuple[EditPair, ...]
    asked: Mapping[str, Sequence[Asked]]
    size: tuple[int, int]
    batch_size: int
    limits: Limits

    @property
    def task(self) -> Task:
        """What is measured."""
        return self.runs[0].maker.task

    def share(self, process: int, count: int) -> "Work":
        """The part of one of several processes: every pair is in just one part.

        Args:
            process: Number of the process, from 0.
            count: Number of processes.
        """
        pairs = self.pairs[process::count]
        return replace(
            self,
            runs=tuple(run.of_process(process) for run in self.runs),
            pairs=pairs,
            asked={pair.id: self.asked[pair.id] for pair in pairs},
        )


def work_of(runs: Sequence[OpenRun], facts: Facts, batch_size: int, limits: Limits) -> Work:
    """What the runs lack.

    Args:
        runs: Runs that differ in nothing but their variants, numbered from 0.
        facts: What all of them read.
        batch_size: Pairs edited together.
        limits: When to give up.
    """
    asked: dict[str, list[Asked]] = {}
    for run in runs:
        for key in run.pending:
            asked.setdefault(key[0], []).append(Asked(run.maker.number, run.subjects[key][1], key[2]))
    pairs = tuple(pair for pair in facts.pairs if pair.id in asked)
    return Work(tuple(runs), pairs, asked, facts.spec.image_size, batch_size, limits)


def edit_work(
    work: Work,
    trainer: Callable[..., Trainer],
    display: Display,
    stop: Stop,
    failed: Callable[[int], object] = lambda number: None,
) -> None:
    """Edits in this process.

    Args:
        work: What to edit.
        trainer: Makes the trainer from `callbacks=[...]`.
        display: Is told how far things are.
        stop: Whether to end after the batch in hand.
        failed: Called after each batch with the number of edits that have failed so far.

    Raises:
        P2PError: See `edit_pending`.
        KeyboardInterrupt: Interrupted; finished batches are on the disk.
    """
    if not work.pairs:
        return
    asked_for = any(getattr(metric, "needs_attention", False) for metric in work.task.metrics.values())
    pictured = any(run.maker.heatmaps and not run.maker.pictured.isdisjoint(work.asked) for run in work.runs)
    record = asked_for or pictured
    load_networks(work.task.metrics)
    module = EditModule(work.task, work.asked, record, display.step, work.limits.timeout)
    data = pair_batches(work.task.dataset, work.pairs, work.batch_size, work.size)
    with Background() as background:
        write = WriteRows(work.runs, display, background)

        def failures() -> int:
            failed(write.failed)
            return write.failed

        end = EndBetweenBatches(stop, failures, work.limits.max_errors)
        _tested(make_trainer(trainer, [write, end]), module, data)


def _tested(runner: Trainer, module: EditModule, data: DataLoader[Any]) -> None:
    """Hands all batches to the module.

    Raises:
        KeyboardInterrupt: Interrupted.
    """
    try:
        runner.test(module, dataloaders=data, verbose=False)
    except SystemExit as error:
        if not runner.interrupted:
            raise
        signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning leaves it ignored
        raise KeyboardInterrupt from error


def make_trainer(make: Callable[..., Trainer], callbacks: list[Callback]) -> Trainer:
    """A trainer with these callbacks.

    Raises:
        ConfigError: It refuses its settings, or would take several devices.
    """
    try:
        trainer = make(callbacks=callbacks)
    except Exception as error:  # Lightning refuses a setting by whatever it trips over
        raise ConfigError(f"trainer: {str(error).strip() or type(error).__name__}") from error
    if trainer.world_size > 1:
        raise ConfigError(
            f"trainer.devices: this trainer uses one device, got {trainer.world_size}; trainer=ddp starts a "
            "process per device, -m splits the work into jobs"
        )
    return trainer
