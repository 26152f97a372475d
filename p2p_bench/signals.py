"""What ends a command early: SIGTERM and a terminal that closes do what Ctrl-C does, whatever is being done.

While a run edits, `p2p_bench.bench.stopping` takes their place, and lets it finish the batch in hand.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

HANGUP = getattr(signal, "SIGHUP", None)
"""The signal of a terminal that closes; None where there is none."""

SIGNALS = tuple(number for number in (signal.SIGINT, signal.SIGTERM, HANGUP) if number is not None)


def may_stop() -> bool:
    """Whether signals are this thread's to handle: Python hands them to the main thread alone."""
    return threading.current_thread() is threading.main_thread()


@contextmanager
def interrupting() -> Iterator[None]:
    """Each of the signals raises KeyboardInterrupt as long as the context lasts, unless it was ignored.

    In a thread that is not the main one nothing is changed.
    """
    if not may_stop():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:  # Lightning switches Ctrl-C off when it is interrupted
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def nothing_interrupts() -> None:
    """Until the context above ends: what is left to do takes no time, and is not to be broken off."""
    if may_stop():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
