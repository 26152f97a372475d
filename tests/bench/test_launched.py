"""Processes that were started together agree before they edit and after, and on nothing in between."""

import re
import threading
import time

import pytest
from torch.distributed import HashStore

from p2p_bench.bench import launched as module
from p2p_bench.bench.launched import Launched, started_together
from p2p_bench.errors import ConfigError, OtherProcessError, ProcessLostError


@pytest.fixture
def pair(monkeypatch):
    """Two processes, here two threads, at one store."""
    monkeypatch.setattr(module, "_POLL", 0.005)
    store = HashStore()
    return Launched(0, 2, 0, store), Launched(1, 2, 1, store)


def beside(work):
    """Runs something in a thread; gives it, and a list for what it raises."""
    raised = []

    def run():
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # looked at by the test
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, raised


def lead_once(first, raised=None):
    """A run that tells the others, waits for them, or raises instead."""
    with first.leading() as lead:
        lead.tell([])
        if raised is not None:
            raise raised
        lead.wait()


def test_the_others_hear_what_to_do_and_the_first_waits_for_them(pair):
    first, second = pair
    heard, done = [], []

    def help_twice():
        for _ in range(2):
            with second.helping() as (runs, ended):
                heard.append(runs)
                assert not ended()
                time.sleep(0.05)
                done.append(time.monotonic())

    thread, raised = beside(help_twice)
    for number in range(2):
        with first.leading() as lead:
            lead.tell([{"pending": [number]}])
            lead.wait()
            assert len(done) == number + 1
    thread.join(10)
    assert not raised
    assert heard == [[{"pending": [0]}], [{"pending": [1]}]]


def test_a_first_process_that_cannot_start_tells_the_others(pair):
    first, second = pair

    def help_once():
        with second.helping():
            raise AssertionError("there is nothing to help with")

    thread, raised = beside(help_once)
    with pytest.raises(ConfigError), first.leading():
        raise ConfigError("the directory is in use")
    thread.join(10)
    assert isinstance(raised[0], OtherProcessError)
    assert "the directory is in use" in str(raised[0])


@pytest.mark.parametrize(
    ("wrong", "expected", "code"),
    [
        (ConfigError("no weights here"), OtherProcessError, 2),
        (ValueError("odd"), OtherProcessError, 1),
        (OSError(28, "No space left on device"), OtherProcessError, 75),
    ],
)
def test_a_fault_of_another_process_reaches_the_first(pair, wrong, expected, code):
    first, second = pair

    def fail():
        with second.helping():
            raise wrong

    thread, raised = beside(fail)
    with pytest.raises(expected, match=re.escape(str(wrong))) as caught:
        lead_once(first)
    thread.join(10)
    assert raised == [wrong]
    assert caught.value.exit_code == code
    assert "process 2 of 2" in str(caught.value)


def test_an_interrupted_process_interrupts_the_first_and_the_other_way_round(pair):
    first, second = pair

    def interrupted():
        with second.helping():
            raise KeyboardInterrupt

    beside(interrupted)
    with pytest.raises(KeyboardInterrupt):
        lead_once(first)
    seen = []

    def patient():
        with second.helping() as (_, ended):
            while not ended():
                time.sleep(0.005)
            seen.append(True)

    thread, _ = beside(patient)
    with pytest.raises(KeyboardInterrupt):
        lead_once(first, KeyboardInterrupt())
    thread.join(10)
    assert seen == [True]


def test_a_process_without_a_sign_of_life_is_lost(pair, monkeypatch):
    first, second = pair
    monkeypatch.setattr(module, "_SILENCE", 0.05)
    second.store.set("beat/1", "7")
    with pytest.raises(ProcessLostError, match="process 2 of 2 gives no sign of life") as caught:
        lead_once(first)
    assert caught.value.exit_code == 75


def test_who_started_this_process(monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    assert started_together() == 0
    slurm = {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0"}
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    assert started_together() == 8
    assert module._place() == (3, 8, 1, False)
    monkeypatch.delenv("SLURM_STEP_ID")  # a shell inside an allocation, not a step that srun started
    assert started_together() == 0
