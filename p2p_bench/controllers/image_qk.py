"""Keeping the source's layout in transformers whose text and pixels attend to one another."""

from dataclasses import dataclass

from p2p_bench.controllers.base import Controller, EditContext
from p2p_bench.controllers.bound import BoundP2P, bind_p2p
from p2p_bench.controllers.self_edit import image_queries, layer_range
from p2p_bench.fields import check_fields
from p2p_bench.layers import LayerRange, layer_bounds
from p2p_bench.tau import SelfTau


@dataclass(frozen=True)
class ImageQK(Controller):
    """Queries and keys of the image from the source (Shin et al. 2025, arXiv 2508.07519).

    Text keeps its own queries and keys, all values are the target's. So the image's rows follow the source in
    what they attend to, and the text's rows see the source's image keys. One fused call at a joint site, as
    in plain generation. Layers of a transformer in which the image attends to itself alone (Stable Diffusion
    3.5 medium) are left alone, as published.

    In a U-Net the image attends to itself and to the text at separate layers: at the former this is
    self-attention injection, (s, s, t; I), at maps of all sizes, and at the latter the source's queries on
    the target's text, (s, t, t; I). As the method was published for joint attention alone, this is what it
    says there, not what anybody released.

    Args:
        self_attn: When; the published 0.2 is the first fifth of the steps.
        layers: First block, or first block and the one after the last, as shares of all (0.5) or as indices
            from 0 (38), see `MasaCtrl`. All of them as published for models of many steps.

    Raises:
        ConfigError: A tau outside [0, 1], or layers that are out of range or end before they start.
    """

    self_attn: SelfTau = 0.2
    layers: LayerRange = 0

    def __post_init__(self) -> None:
        check_fields(self, "image_qk ")

    def bind(self, context: EditContext) -> BoundP2P:
        """See `Controller`."""
        edit = image_queries(layer_range(*layer_bounds(self.layers)))
        return bind_p2p("image_qk", context, self_attn=self.self_attn, self_edit=edit)
