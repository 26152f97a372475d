"""Keeping the source's structure by its cross-attention maps, which the target's latents descend to."""

from dataclasses import dataclass
from typing import Annotated

from p2p_bench.attention.terms import NO_EDIT
from p2p_bench.controllers.base import Controller, EditContext
from p2p_bench.controllers.bound import BoundP2P
from p2p_bench.controllers.self_edit import NO_SELF_EDIT
from p2p_bench.fields import Above, check_fields


@dataclass(frozen=True)
class Pix2PixZero(Controller):
    """Cross-attention guidance of pix2pix-zero (Parmar et al. 2023, arXiv 2302.03027), as released.

    Before each step the target's latents take one gradient step toward the source's cross-attention maps at
    all sites: those of its pass with the prompt to the maps of the source's pass with its own, those of its
    pass without likewise. Both passes are then asked at latents of their own, and the step goes on from those
    of the pass without the prompt. Attention itself is not edited; in a composition the descent is on the
    maps before any edit.

    The edit direction is the difference of the two prompts' embeddings, added to that of the caption which
    the image was inverted with; where that is the source prompt, the sum is the target prompt's. In the
    released code passes without the prompt are told the caption: `Pix2PixZeroInversion`.

    Args:
        guidance_amount: What the gradient is multiplied with.

    Raises:
        ConfigError: The amount is not above 0.
    """

    guidance_amount: Annotated[float, Above(0)] = 0.1

    def __post_init__(self) -> None:
        check_fields(self, "pix2pix_zero ")

    def bind(self, context: EditContext) -> BoundP2P:
        """See `Controller`."""
        return BoundP2P(
            "pix2pix_zero",
            context,
            cross=(NO_EDIT,) * context.steps,
            self_edits=(NO_SELF_EDIT,) * context.steps,
            map_amount=float(self.guidance_amount),
        )
