"""Ending a run between two batches: signals, and more failures than are wanted."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lightning import Callback, LightningModule, Trainer

from p2p_bench.errors import P2PError
from p2p_bench.signals import HANGUP, SIGNALS, may_stop


class Stop:
    """Whether the run is to end once the batch in hand is on the disk.

    Args:
        tell: Called at the first signal.
        elsewhere: Whether another process asks for the end.
    """

    def __init__(
        self, tell: Callable[[], None] = lambda: None, elsewhere: Callable[[], bool] = lambda: False
    ) -> None:
        self.signalled = False
        self._tell = tell
        self._elsewhere = elsewhere

    @property
    def asked(self) -> bool:
        """Whether it is to end."""
        return self.signalled or self._elsewhere()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """A signal has come; the second interrupt from the keyboard does not wait.

        Raises:
            KeyboardInterrupt: It is that second one.
        """
        if self.signalled and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.signalled:
            self.signalled = True
            self._tell()


@contextmanager
def stopping(stop: Stop) -> Iterator[Stop]:
    """Ctrl-C, SIGTERM and a terminal that closes ask for the end of the run, as long as the context lasts.

    A hangup that is ignored, as under nohup, stays so. In any thread but the main one nothing is changed.
    """
    if not may_stop():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if not (number == HANGUP and handler == signal.SIG_IGN):
            signal.signal(number, stop)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


class TooManyErrorsError(P2PError):
    """More edits have failed than `run.max_errors` allows."""

    exit_code = 1

    def __init__(self, failed: int, most: int) -> None:
        super().__init__(
            f"{failed} edits have failed, and run.max_errors is {most}; their rows say why, and the same "
            "command tries them again"
        )


class EndBetweenBatches(Callback):
    """Ends the run where that was asked for; goes after everything that writes.

    Args:
        stop: Whether it was.
        failed: Number of edits that have failed so far.
        most: How many may; None is any number.
    """

    def __init__(self, stop: Stop, failed: Callable[[], int], most: int | None) -> None:
        self.stop = stop
        self.failed = failed
        self.most = most

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """See the class.

        Raises:
            TooManyErrorsError: Too many edits have failed.
            KeyboardInterrupt: The run was asked to end, and a batch is left.
        """
        if self.most is not None and self.failed() > self.most:
            raise TooManyErrorsError(self.failed(), self.most)
        if self.stop.asked and batch_idx + 1 < trainer.num_test_batches[0]:
            raise KeyboardInterrupt
