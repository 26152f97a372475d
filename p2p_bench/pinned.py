"""Settings of the process that would decide results, held at their defaults while something is computed."""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import ParamSpec, TypeVar

import torch

from p2p_bench.errors import P2PError

_P = ParamSpec("_P")
_R = TypeVar("_R")
_AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")
_NOT_DETERMINISTIC = ("does not have a deterministic implementation", "CUBLAS_WORKSPACE_CONFIG")
"""What torch says where `torch.use_deterministic_algorithms(True)` forbids an operation."""


@contextmanager
def pinned() -> Iterator[None]:
    """Within it, tensors are made and computed as in a process whose settings nobody has touched.

    Held are the default number format (float32) and device (CPU), and no autocast, no inference mode and no
    gradients; all come back on exit. The default number format is one of the whole process, so while a thread
    computes here, others see float32 too; the rest is each thread's own. Deterministic mode stays as it is,
    since it changes no result. The precision of float32 products (TF32) stays too: it is chosen for speed,
    as a model's number format is.

    Raises:
        P2PError: Deterministic mode forbids an operation on this device.
    """
    with ExitStack() as stack:
        stack.enter_context(_default_dtype())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for kind in _AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        try:
            yield
        except RuntimeError as error:
            if not any(words in str(error) for words in _NOT_DETERMINISTIC):
                raise
            raise P2PError(
                f"torch.use_deterministic_algorithms(True) forbids what this needs ({error}); use "
                "torch.use_deterministic_algorithms(True, warn_only=True), or leave it off: equal seeds give "
                "equal results without it"
            ) from error


def with_pinned_settings(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The function, always called within `pinned`."""

    @functools.wraps(function)
    def within(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with pinned():
            return function(*args, **kwargs)

    return within


_LOCK = threading.Lock()
_HOLDERS = 0
_FOREIGN: torch.dtype | None = None
"""The default number format to be put back when the last thread has left; None: there was no other."""


@contextmanager
def _default_dtype() -> Iterator[None]:
    """Holds the default number format, which all threads share, at float32 until the last thread leaves."""
    global _HOLDERS, _FOREIGN
    with _LOCK:
        _HOLDERS += 1
        if torch.get_default_dtype() != torch.float32:
            _FOREIGN = torch.get_default_dtype()
            torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        with _LOCK:
            _HOLDERS -= 1
            if _HOLDERS == 0 and _FOREIGN is not None:
                torch.set_default_dtype(_FOREIGN)
                _FOREIGN = None
