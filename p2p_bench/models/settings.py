"""Settings that checkpoints of several families have."""

from collections.abc import Set
from typing import Annotated, Literal

import torch

from p2p_bench.errors import ConfigError
from p2p_bench.fields import Between, OneOf
from p2p_bench.models.spec import Capability

Dtype = Annotated[str, OneOf(("float64", "float32", "bfloat16", "float16"))]
"""Number formats of weights."""

AttentionBackend = Annotated[str | None, OneOf(("flash", "efficient", "cudnn", "math"))]
"""The only kernel of attention, see `attention.kernels`; None: torch chooses."""

Offload = Literal["none", "model", "sequential"]
"""Which weights rest in main memory: none; those of all networks but one at a time; of all layers but one."""

Autoencoding = Literal["whole", "sliced", "tiled"]
"""How images go through the VAE."""

SIDE = Between(0, 1, "a fraction of the latent side", open_low=True)
"""What sizes of attention maps are given in."""

Size = int | tuple[int, int] | list[int]
"""Height and width of images in pixels; one number for both."""

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def sizes(
    size: Size | None, own: tuple[int, int], factor: int, name: str
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width of latents, and of images.

    Args:
        size: What is wanted, of images; None takes the checkpoint's own.
        own: The latents that the checkpoint was trained on.
        factor: Pixels to a latent.
        name: Name of the model, for the message.

    Raises:
        ConfigError: The size is not that of latents; names the nearest that is.
    """
    if size is None:
        return own, (own[0] * factor, own[1] * factor)
    sides = [size, size] if isinstance(size, int) else list(size)
    if len(sides) != 2:
        raise ConfigError(f"model.size: expected a height and a width, or one number for both, got {sides}")
    wanted = sides[0], sides[1]
    if any(side < factor or side % factor for side in wanted):
        near = [max(1, round(side / factor)) * factor for side in wanted]
        raise ConfigError(
            f"model.size: height and width have to be multiples of {factor} pixels in model {name!r}, got "
            f"{wanted[0]} and {wanted[1]}; the nearest are [{near[0]},{near[1]}]"
        )
    return (wanted[0] // factor, wanted[1] // factor), wanted


def offloaded(capabilities: Set[Capability], offload: Offload) -> frozenset[Capability]:
    """What is left of capabilities: weights that come layer by layer are gone before gradients need them."""
    return frozenset(capabilities) - ({"gradient"} if offload == "sequential" else set())
