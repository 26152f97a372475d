"""One bad pair does not take its batch with it, nor a batch the run."""

import errno
import logging
import time
from collections.abc import Callable, Sequence

import torch

from p2p_bench.bench.results import checked_results
from p2p_bench.editing import EditRequest, EditResult
from p2p_bench.editors import Editor
from p2p_bench.errors import P2PError, ProcessLostError
from p2p_bench.writes import writes

log = logging.getLogger(__name__)

_OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Numbers of system errors that are no pair's fault: a full disk, one that cannot be written."""

Progress = Callable[[int, int], None]
"""Called with the steps done and their number."""


class PairTimeoutError(Exception):
    """A batch took longer than its pairs may. An editor does not take it for an error of its own.

    Attributes:
        step: Steps that were done.
        steps: Steps of the batch.
    """

    def __init__(self, seconds: float, step: int, steps: int) -> None:
        super().__init__(f"took longer than run.timeout={seconds:g} s a pair, at step {step} of {steps}")
        self.step = step
        self.steps = steps


def edit_apart(
    editor: Editor,
    requests: Sequence[EditRequest],
    device: torch.device,
    progress: Progress | None = None,
    timeout: float | None = None,
) -> list[EditResult]:
    """Edits a batch; where that fails, its pairs one by one, so that a fault stays with its pair.

    Args:
        editor: The editor.
        requests: The batch.
        device: Where the editor works.
        progress: Called with the steps done and their number.
        timeout: Seconds that a pair may take, looked at between steps; None is any time.

    Returns:
        A result per request; one whose pair raised, or took too long, has no image and says why.

    Raises:
        P2PError: A fault of the whole run, such as weights that are missing.
        OSError: The disk is full, or cannot be written.
        ProcessLostError: The device answers no more, so that nothing else can be edited here.
    """
    images = [request.image for request in requests if request.image is not None]
    before = writes(images)
    try:
        made = editor.edit(requests, _watched(progress, timeout, len(requests)))
        if writes(images) != before:
            raise P2PError(
                f"{type(editor).__name__}.edit changed an image that it was given, which is the source of "
                "what comes after it; work on a copy"
            )
        return checked_results(made, requests, type(editor).__name__)
    except P2PError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            raise
        check_device(device, error)
        log.warning("a batch failed (%s: %s)", type(error).__name__, error, exc_info=len(requests) == 1)
        if len(requests) == 1:
            return [_failed(requests[0], error)]
    return [one for request in requests for one in edit_apart(editor, [request], device, progress, timeout)]


def check_device(device: torch.device, error: Exception) -> None:
    """See whether an accelerator still computes after an exception.

    Some errors of a device, such as a failed assertion in a kernel, stay: all that follows on it fails.

    Raises:
        ProcessLostError: It does not.
    """
    if device.type == "cpu":
        return
    try:
        if float(torch.ones(2, device=device).sum()) == 2:
            return
        reason: Exception = error
    except RuntimeError as lasting:
        reason = lasting
    text = (str(reason).strip().splitlines() or [type(reason).__name__])[0]
    raise ProcessLostError(
        f"device {device} fails at everything since an error ({text}); finished edits are kept, and the same "
        "command in a new process goes on"
    ) from error


def _watched(progress: Progress | None, timeout: float | None, pairs: int) -> Progress | None:
    """The progress of a batch, which ends it when its time is over."""
    if timeout is None:
        return progress
    end = time.monotonic() + timeout * max(1, pairs)

    def step_done(step: int, steps: int) -> None:
        if progress is not None:
            progress(step, steps)
        if step < steps and time.monotonic() > end:
            raise PairTimeoutError(timeout, step, steps)

    return step_done


def _failed(request: EditRequest, error: Exception) -> EditResult:
    count = 1 + len(request.targets)
    told = error if isinstance(error, PairTimeoutError) else f"{type(error).__name__}: {error}"
    return EditResult.made(
        request.id, torch.full((count, 3, 1, 1), torch.nan), [P2PError(f"the edit failed ({told})")] * count
    )
