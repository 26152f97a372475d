"""What a fuzz case is, and how its outcome is judged."""

import contextlib
import importlib.util
import io
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2p_bench.app.main import run_verb
from p2p_bench.errors import P2PError

ROOT = Path(__file__).resolve().parents[2]
HANG_SECONDS = 120
"""A case that takes longer has hung."""

VERDICTS = ("as labelled", "stack trace", "unexpected", "accepted", "refused", "wrong", "unnamed", "hang")
"""Verdicts on a case.

`accepted`: labelled invalid, and it ran. `refused`: labelled valid, and it did not. `wrong`: labelled valid,
and what was computed or read is not what was asked for. `unnamed`: refused, but the message does not name
the culprit. `unexpected`: an error that is no `P2PError`.
"""


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        accepted: It ran to its end and every row is `ok`.
        text: All that was said.
        foreign: The type of an exception that is not ours, "" if there was none.
        wrong: How the result differs from what was asked for, "" if it does not.
    """

    accepted: bool
    text: str = ""
    foreign: str = ""
    wrong: str = ""


@dataclass(frozen=True)
class Case:
    """An input with its label.

    Attributes:
        area: What is fuzzed.
        kind: What was done to the input.
        valid: The label: whether it must run, or be refused.
        run: Tries it.
        shown: The input, for the list of faults.
        names: One of these must stand in the refusal.
    """

    area: str
    kind: str
    valid: bool
    run: Callable[[], Outcome]
    shown: str
    names: tuple[str, ...] = ()


def judged(case: Case) -> tuple[str, str]:
    """Verdict on a case, and what stands behind it."""
    try:
        with time_limit(HANG_SECONDS):
            outcome = case.run()
    except TimeoutError:
        return "hang", ""
    if "Traceback (most recent call last)" in outcome.text:
        return "stack trace", outcome.text
    if outcome.foreign or "unexpected" in outcome.text:
        return "unexpected", outcome.text
    if outcome.accepted and not case.valid:
        return "accepted", outcome.text
    if case.valid and not outcome.accepted:
        return "refused", outcome.text
    if outcome.wrong:
        return "wrong", outcome.wrong
    if not case.valid and case.names and not any(name in outcome.text for name in case.names):
        return "unnamed", outcome.text
    return "as labelled", ""


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raises `TimeoutError` in the block once it takes longer."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def command(*arguments: str) -> Outcome:
    """A command, in this process and in the current folder."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = run_verb(list(arguments))
        except TimeoutError:
            raise
        except BaseException as error:  # noqa: BLE001  # the last line of defence itself failed: that is the finding
            return Outcome(False, said.getvalue(), type(error).__name__)
    logs = [path.read_text(errors="replace") for path in Path().rglob("run.log")]
    return Outcome(code == 0, "\n".join([said.getvalue(), *logs]))


def call(function: Callable[[], str | None]) -> Outcome:
    """A call of the Python API; it returns how its result is wrong, or nothing."""
    try:
        return Outcome(True, wrong=function() or "")
    except TimeoutError:
        raise
    except P2PError as error:
        return Outcome(False, str(error))
    except Exception as error:  # noqa: BLE001  # that it is not ours is the finding
        return Outcome(False, "".join(traceback.format_exception_only(error)), type(error).__name__)


@contextlib.contextmanager
def empty_folder() -> Iterator[Path]:
    """The current folder is a new one, as long as the block runs."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def tiny() -> Any:
    """The module of the tests that builds a very small checkpoint in the real format."""
    name = "tests_models_tiny"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / "models" / "tiny.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
