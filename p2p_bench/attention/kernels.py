"""Torch's kernels of fused attention, by name."""

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
"""All but "math" write no map out; which of them there are depends on device, number format and head size."""


def possible_kernels(device: torch.device, dtype: torch.dtype, head_dims: Sequence[int]) -> tuple[str, ...]:
    """The kernels that serve attention here, found by trying.

    Args:
        device: Where the network runs.
        dtype: Its number format.
        head_dims: Widths of a head, of all its sites.
    """
    return tuple(name for name in KERNELS if all(_serves(name, device, dtype, one) for one in head_dims))


def _serves(name: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    # A number of columns that is no multiple of eight, like CLIP's.
    query, key = (torch.zeros(2, 2, length, head_dim, dtype=dtype, device=device) for length in (64, 77))
    with warnings.catch_warnings(), attention_by(name):
        warnings.simplefilter("ignore")  # torch says of each kernel why not
        try:
            scaled_dot_product_attention(query, key, key)
        except RuntimeError:
            return False
    return True


class _Chosen:
    """The kernel that the process is held to: torch knows one choice for all threads."""

    def __init__(self) -> None:
        self.free = threading.Condition()
        self.name = ""
        self.users = 0
        self.undo = ExitStack()

    @contextmanager
    def held(self, name: str) -> Iterator[None]:
        with self.free:
            self.free.wait_for(lambda: not self.users or self.name == name)
            if not self.users:
                self.name = name
                self.undo.enter_context(sdpa_kernel([KERNELS[name]]))
            self.users += 1
        try:
            yield
        finally:
            with self.free:
                self.users -= 1
                if not self.users:
                    self.undo.close()
                    self.free.notify_all()


_CHOSEN = _Chosen()


@contextmanager
def attention_by(name: str | None) -> Iterator[None]:
    """Within it fused attention takes one kernel and no other; a call that it cannot serve raises.

    It holds for the process. Threads that want the same are within it together, one that wants another waits
    until they have left, and those that want none in particular get this one meanwhile.

    Args:
        name: One of `KERNELS`; None: torch chooses.
    """
    if name is None:
        yield
    else:
        with _CHOSEN.held(name):
            yield
