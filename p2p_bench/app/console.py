"""What the user sees: results on standard output, the rest on standard error."""

import io
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from p2p_bench.errors import P2PError

_NOISY = (
    "lightning",
    "lightning.pytorch",
    "lightning.fabric",
    # Importing lightning sets its loggers to INFO again; these two, which speak, it leaves alone.
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.rank_zero",
    "transformers",
    "diffusers",
    "open_clip",
    "PIL",
    "wandb",
    "alembic",  # part of optuna
)


def status_console() -> Console:
    """Where progress and messages go."""
    return _console(stderr=True)


def result_console() -> Console:
    """Where results go."""
    return _console(stderr=False)


def _console(stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        # Also in the processes of other launchers, whose streams `make_patient` has not seen.
        stream.reconfigure(errors="replace")
    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def show_error(error: BaseException, debug: bool, context: str = "") -> None:
    """One clear message; the stack trace only with `debug`."""
    if debug:
        traceback.print_exception(error)
    title = "error" if isinstance(error, P2PError) else f"unexpected {type(error).__name__}"
    hint = "" if isinstance(error, P2PError) or debug else " (add --debug for the stack trace)"
    where = f" in {context}" if context else ""
    status_console().print(f"{title}{where}: {error}{hint}", markup=False, style="red")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keeps libraries' own notes off the terminal; their warnings go to the log of the run.

    Warnings of this project are shown as well: they are for the user.
    """
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.captureWarnings(True)
    raised, logging.raiseExceptions = logging.raiseExceptions, False  # a full disk is told once, not per line
    shown = _Shown(logging.WARNING)
    project = logging.getLogger("p2p_bench")
    project.addHandler(shown)
    try:
        yield
    finally:
        project.removeHandler(shown)
        logging.captureWarnings(False)
        logging.raiseExceptions = raised


class _Shown(logging.Handler):
    """Shows warnings; errors reach the user as exceptions."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.WARNING:
            status_console().print(f"warning: {record.getMessage()}", markup=False, style="yellow")
