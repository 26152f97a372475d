"""One pass over the data for one run or several: each pair is edited once, with all that is missing."""

import signal
from collections.abc import Callable, Sequence

from lightning import Callback, Trainer
from rich.console import Console

from p2p_bench.bench.callbacks import ShowProgress, WriteRows
from p2p_bench.bench.module import Asked, EditModule
from p2p_bench.bench.open_run import Facts, OpenRun
from p2p_bench.bench.progress import ProgressDisplay
from p2p_bench.data.module import PairDataModule
from p2p_bench.errors import ConfigError
from p2p_bench.metrics.base import load_networks


def edit_pending(
    runs: Sequence[OpenRun],
    facts: Facts,
    *,
    trainer: Callable[..., Trainer],
    batch_size: int,
    console: Console,
) -> None:
    """Edits what the runs lack, batch by batch; each row is on the disk in its own run's directory.

    Args:
        runs: Runs that differ in nothing but their variants, numbered from 0.
        facts: What all of them read.
        trainer: Makes the trainer from `callbacks=[...]`.
        batch_size: Pairs edited together.
        console: Where to say what is happening.

    Raises:
        ConfigError: The trainer cannot be made, or wants several devices.
        KeyboardInterrupt: Interrupted; finished batches are on the disk.
    """
    asked: dict[str, list[Asked]] = {}
    for run in runs:
        for key in run.pending:
            asked.setdefault(key[0], []).append(Asked(run.maker.number, run.subjects[key][1], key[2]))
    pairs = [pair for pair in facts.pairs if pair.id in asked]
    record = any(run.maker.heatmaps and not run.maker.pictured.isdisjoint(asked) for run in runs)
    count = sum(map(len, asked.values()))
    task = runs[0].maker.task
    console.print(f"{count} edits of {len(pairs)} pairs to make; loading {task.editor.loads(facts.spec)}")
    load_networks(task.metrics)
    with ProgressDisplay(console, len(pairs)) as display:
        module = EditModule(task, asked, record, display.step)
        data = PairDataModule(task.dataset, batch_size, facts.spec.image_size, pairs)
        runner = make_trainer(trainer, [WriteRows(runs), ShowProgress(display)])
        try:
            runner.test(module, dataloaders=data.test_dataloader(), verbose=False)
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
            f"trainer.devices: a run uses one device, got {trainer.world_size}; split the work with -m"
        )
    return trainer
