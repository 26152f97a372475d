"""One pass over the data for one run or several: each pair is edited once, with all that is missing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lightning import Trainer
from rich.console import Console

from p2p_bench.bench.devices import on_device
from p2p_bench.bench.directory import Resume
from p2p_bench.bench.launched import Launched
from p2p_bench.bench.open_run import Facts, OpenRun
from p2p_bench.bench.progress import ProgressDisplay
from p2p_bench.bench.stopping import Stop, stopping
from p2p_bench.bench.task import Limits
from p2p_bench.bench.work import edit_work, work_of
from p2p_bench.bench.workers import edit_in_processes


@dataclass(frozen=True)
class Execution:
    """How a run is carried out, which decides none of its numbers.

    Attributes:
        processes: Processes to start, which share the work, a device each; at most one per pair is started.
        launched: This process among several that were started together; each does its share.
        limits: When to give up.
        resume: Whether a directory that holds rows is completed; "force" sets rows of other settings aside.
    """

    processes: int = 1
    launched: Launched | None = None
    limits: Limits = field(default_factory=Limits)
    resume: Resume = True

    @property
    def helps(self) -> bool:
        """Whether another process leads, which also reports."""
        return self.launched is not None and self.launched.rank > 0


ALONE = Execution()


def edit_pending(
    runs: Sequence[OpenRun],
    facts: Facts,
    *,
    trainer: Callable[..., Trainer],
    batch_size: int,
    console: Console,
    execution: Execution = ALONE,
    ended: Callable[[], bool] = lambda: False,
) -> None:
    """Edits what the runs lack, batch by batch; each row is on the disk in its own run's directory.

    Args:
        runs: Runs that differ in nothing but their variants, numbered from 0.
        facts: What all of them read.
        trainer: Makes the trainer from `callbacks=[...]`.
        batch_size: Pairs edited together.
        console: Where to say what is happening.
        execution: Who does it, and when to give up.
        ended: Whether another process asks for the end.

    Raises:
        ConfigError: The trainer cannot be made, or wants several devices.
        TooManyErrorsError: More edits failed than the limits allow.
        ProcessLostError: A process of several, or the device, is gone.
        KeyboardInterrupt: Interrupted; finished batches are on the disk.
    """
    work = work_of(runs, facts, batch_size, execution.limits)
    if (launched := execution.launched) is not None:
        work, trainer = work.share(launched.rank, launched.count), on_device(trainer, launched.local_rank)
    number = min(execution.processes, len(work.pairs))
    count = sum(map(len, work.asked.values()))
    among = f" in {number} processes" if number > 1 else ""
    if launched is not None:
        among = f", the share of process {launched.rank + 1} of {launched.count}"
    loads = work.task.editor.loads(facts.spec)
    console.print(f"{count} edits of {len(work.pairs)} pairs to make{among}; loading {loads}")
    tell = "finishing the batch in hand; Ctrl-C again does not wait for it"
    with (
        ProgressDisplay(console, len(work.pairs)) as display,
        stopping(Stop(lambda: console.print(tell, style="yellow"), ended)) as stop,
    ):
        if number > 1:
            edit_in_processes(work, trainer, number, display, stop)
        else:
            one = trainer if execution.processes == 1 else on_device(trainer, 0)
            edit_work(work, one, display, stop)
