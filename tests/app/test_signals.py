"""A signal ends a command with exit code 75 whatever it is doing, and what it left is finished later."""

import os
import signal

import pytest

import p2p_bench.app.jobs as jobs
import p2p_bench.bench.run as bench_run
from p2p_bench.app.verbs import doctor
from p2p_bench.bench.stopping import Stop, stopping
from p2p_bench.signals import interrupting
from tests.app.test_run import TARGETS, rows_of

USUAL = {
    signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL,
}  # fmt: skip
SETTINGS = ("logger=none", "run.batch_size=1", "run.images=0", "run.dir=out")


@pytest.fixture(autouse=True)
def usual_handlers():
    """As in a terminal, wherever the tests were started; each test leaves them so."""
    before = {number: signal.signal(number, handler) for number, handler in USUAL.items()}
    yield
    after = {number: signal.signal(number, handler) for number, handler in before.items()}
    assert after == USUAL


def signalling(function, *numbers):
    """The function, which signals come to when it is called first."""
    left = list(numbers)

    def signalled(*arguments, **options):
        while left:
            os.kill(os.getpid(), left.pop())
        return function(*arguments, **options)

    return signalled


@pytest.mark.parametrize(
    ("holder", "name", "number"),
    [
        (bench_run, "compact", signal.SIGTERM),
        (jobs, "write_report", signal.SIGTERM),
        (bench_run, "edit_pending", signal.SIGHUP),
    ],
)
def test_a_signal_outside_the_batches_interrupts_too(command, monkeypatch, holder, name, number):
    with monkeypatch.context() as patch:
        patch.setattr(holder, name, signalling(getattr(holder, name), number))
        outcome = command.bench(*SETTINGS)
    assert outcome.code == 75, outcome.err
    assert outcome.err.endswith("interrupted\n")
    assert f"p2p-bench resume {command.folder / 'out'} goes on" in outcome.err
    assert command("resume", "out").code == 0
    assert len(rows_of(command.folder / "out")) == TARGETS


def test_a_closed_terminal_lets_the_batch_in_hand_finish(command, monkeypatch):
    from p2p_bench.bench import module

    monkeypatch.setattr(module, "edit_apart", signalling(module.edit_apart, signal.SIGHUP))
    outcome = command.bench(*SETTINGS)
    assert outcome.code == 75, outcome.err
    assert "finishing the batch in hand" in outcome.err
    assert len(rows_of(command.folder / "out")) == 1


def test_any_verb_is_interrupted_and_says_so_to_the_end(command, monkeypatch):
    """Another signal while the last line is written does not break it off."""
    import p2p_bench.app.main as main

    monkeypatch.setattr(doctor, "main", signalling(doctor.main, signal.SIGTERM))
    monkeypatch.setattr(
        main, "status_console", signalling(main.status_console, signal.SIGINT, signal.SIGTERM)
    )
    outcome = command("doctor")
    assert outcome.code == 75
    assert outcome.err == "interrupted\n"


def test_nohup_is_respected():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interrupting(), stopping(Stop()) as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.asked
    assert signal.signal(signal.SIGHUP, signal.SIG_DFL) == signal.SIG_IGN
