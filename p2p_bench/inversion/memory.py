"""Memory of a backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def checkpointed(unet: Any, wanted: bool = True) -> Iterator[None]:
    """Within it, the blocks of a diffusers U-Net recompute their activations in the backward pass.

    The backward pass itself may lie outside. A network that checkpoints already goes on doing so.

    Args:
        unet: A diffusers model.
        wanted: False changes nothing.
    """
    if not wanted or unet.is_gradient_checkpointing:
        yield
        return
    unet.enable_gradient_checkpointing()
    try:
        yield
    finally:
        unet.disable_gradient_checkpointing()
