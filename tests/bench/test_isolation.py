"""A fault stays with the pair that has it, and a run that makes no sense ends."""

import time
from collections.abc import Sequence

import pytest
import torch

from p2p_bench.bench import isolation
from p2p_bench.bench.isolation import check_device, edit_apart
from p2p_bench.controllers import NoControl
from p2p_bench.editing import EditRequest, EditResult, Target
from p2p_bench.errors import ConfigError, ProcessLostError

CPU = torch.device("cpu")


class Stub:
    """An editor that raises for some ids and takes its time for others."""

    def __init__(self, fails: dict[str, Exception], slow: Sequence[str] = (), steps: int = 3) -> None:
        self.fails, self.slow, self.steps = fails, slow, steps
        self.batches: list[list[str]] = []

    def edit(self, requests, progress=None):
        ids = [request.id for request in requests]
        self.batches.append(ids)
        for step in range(1, self.steps + 1):
            if set(ids) & set(self.slow):
                time.sleep(0.02)
            if progress is not None:
                progress(step, self.steps)
        for id in ids:
            if id in self.fails:
                raise self.fails[id]
        return [EditResult.made(id, torch.zeros(2, 3, 4, 4), [None, None]) for id in ids]


def requests(*ids: str) -> list[EditRequest]:
    return [EditRequest(id, "a cat", (Target("a dog", NoControl()),)) for id in ids]


def faults(results: Sequence[EditResult]) -> dict[str, str]:
    return {one.id: str(one.errors[1]) for one in results if one.errors[1] is not None}


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes"), KeyError("b"), ZeroDivisionError(), IndexError("i")]
)
def test_any_exception_stays_with_its_pair(error):
    editor = Stub({"b": error})
    results = edit_apart(editor, requests("a", "b", "c"), CPU)
    assert [one.id for one in results] == ["a", "b", "c"]
    assert list(faults(results)) == ["b"]
    assert type(error).__name__ in faults(results)["b"]
    assert editor.batches == [["a", "b", "c"], ["a"], ["b"], ["c"]]


def test_without_a_fault_the_batch_is_edited_once():
    editor = Stub({})
    assert not faults(edit_apart(editor, requests("a", "b"), CPU))
    assert editor.batches == [["a", "b"]]


def test_a_pair_that_takes_too_long_is_an_error_and_the_others_are_not():
    editor = Stub({}, slow=["b"])
    results = edit_apart(editor, requests("a", "b"), CPU, timeout=0.015)
    assert "run.timeout=0.015 s a pair, at step" in faults(results)["b"]
    assert list(faults(results)) == ["b"]


def test_the_last_step_is_not_too_late():
    editor = Stub({}, slow=["a"], steps=1)
    assert not faults(edit_apart(editor, requests("a"), CPU, timeout=0.001))


@pytest.mark.parametrize("timeout", [None, 60.0])
def test_progress_is_told_with_and_without_a_timeout(timeout):
    told: list[tuple[int, int]] = []
    edit_apart(Stub({}), requests("a"), CPU, lambda step, steps: told.append((step, steps)), timeout)
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_fault_of_the_whole_run_is_no_row():
    with pytest.raises(ConfigError, match="no such weights"):
        edit_apart(Stub({"a": ConfigError("no such weights")}), requests("a", "b"), CPU)


def test_a_device_that_fails_at_everything_ends_the_run(monkeypatch):
    def lasting(*args, **kwargs):
        raise RuntimeError("CUDA error: device-side assert triggered\nand more lines")

    check_device(CPU, RuntimeError("x"))  # a processor has no such state
    monkeypatch.setattr(isolation.torch, "ones", lasting)
    with pytest.raises(
        ProcessLostError, match=r"device cuda:0 fails at everything.*device-side assert"
    ) as caught:
        edit_apart(Stub({"a": RuntimeError("first")}), requests("a", "b"), torch.device("cuda:0"))
    assert caught.value.exit_code == 75
    assert "more lines" not in str(caught.value)
    monkeypatch.undo()
    monkeypatch.setattr(isolation.torch, "ones", lambda *size, device: torch.full(size, 1.0))
    results = edit_apart(Stub({"a": RuntimeError("first")}), requests("a", "b"), torch.device("cuda:0"))
    assert list(faults(results)) == ["a"]  # a device that still computes goes on
