"""What a run is doing, for a terminal and for a log file alike."""

import time
from types import TracebackType
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_LINE_EVERY = 10.0
"""Seconds between two lines where there is no terminal."""


@runtime_checkable
class Display(Protocol):
    """What is told how far things are."""

    def step(self, pairs: int, step: int, steps: int) -> None:
        """One denoising step of a batch is done.

        Args:
            pairs: Number of pairs in the batch.
            step: Steps that are done, at most `steps`.
            steps: Steps of the batch.
        """

    def batch_done(self, pairs: int) -> None:
        """A batch of so many pairs is edited and scored."""


class ProgressDisplay:
    """Pairs done, the denoising step in hand and the time left: a bar on a terminal, lines elsewhere.

    Args:
        console: Where to show it.
        total: Number of pairs.
        doing: What is being done.
        what: What is counted.
    """

    def __init__(self, console: Console, total: int, doing: str = "editing", what: str = "pairs") -> None:
        self._console = console
        self._doing = doing
        self._what = what
        self._total = total
        self._done = 0.0
        self._finished = 0
        self._in_hand: dict[int, float] = {}
        self._started = time.monotonic()
        self._last_line = self._started
        self._first: tuple[float, float] | None = None
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> "ProgressDisplay":
        if self._console.is_terminal:
            texts = (TextColumn("{task.fields[pairs]}"), TextColumn("{task.fields[step]}"))
            times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
            columns = (TextColumn(self._doing), BarColumn(), *texts, *times)
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task(
                "", total=self._total, pairs=f"0/{self._total} {self._what}", step=""
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, pairs: int, step: int, steps: int, process: int = 0) -> None:
        """One denoising step of a batch is done.

        Args:
            pairs: Number of pairs in the batch.
            step: Steps that are done, at most `steps`.
            steps: Steps of the batch.
            process: Number of the process that did it.
        """
        self._in_hand[process] = pairs * step / steps
        self._show(self._finished + sum(self._in_hand.values(), 0.0), f"step {step}/{steps}")

    def batch_done(self, pairs: int, process: int = 0) -> None:
        """A batch of so many pairs is edited and scored."""
        self._finished += pairs
        self._in_hand.pop(process, None)
        self._show(self._finished + sum(self._in_hand.values(), 0.0), "", last=self._finished >= self._total)

    def _show(self, done: float, step: str, last: bool = False) -> None:
        self._done = max(self._done, done)
        pairs = f"{self._finished}/{self._total} {self._what}"
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, pairs=pairs, step=step)
            return
        now = time.monotonic()
        self._first = self._first or (now, self._done)
        if last or now - self._last_line >= _LINE_EVERY:
            self._last_line = now
            left = self._seconds_left(now)
            parts = [
                pairs,
                step,
                f"{now - self._started:.0f} s",
                "" if left is None else f"about {left:.0f} s left",
            ]
            self._console.print(
                f"{self._doing}: " + ", ".join(part for part in parts if part), highlight=False
            )

    def _seconds_left(self, now: float) -> float | None:
        """From the speed since the first step, so that loading the model does not count; None if unknown."""
        if self._first is None or self._done <= self._first[1]:
            return None
        seconds_per_pair = (now - self._first[0]) / (self._done - self._first[1])
        return seconds_per_pair * (self._total - self._done)
