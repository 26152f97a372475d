"""Memory of a backward pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from p2p_bench.shared import SharedChange

_CHECKPOINTING = SharedChange()


@contextmanager
def checkpointed(unet: Any, wanted: bool = True) -> Iterator[None]:
    """Within it, the blocks of a diffusers U-Net recompute their activations in the backward pass.

    The backward pass itself may lie outside. Several threads may be within it; the last to leave ends it,
    unless the network checkpointed before.

    Args:
        unet: A diffusers model.
        wanted: False changes nothing.
    """
    if not wanted:
        yield
        return

    def change() -> Callable[[], None]:
        # The blocks of diffusers read the two one after the other: the function stays, or a pass of another
        # thread that is between them would find one that warns.
        if unet.is_gradient_checkpointing:
            return lambda: None
        unet.enable_gradient_checkpointing()
        return lambda: _turn_off(unet)

    with _CHECKPOINTING.within(unet, change):
        yield


def _turn_off(unet: Any) -> None:
    for module in unet.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = False
