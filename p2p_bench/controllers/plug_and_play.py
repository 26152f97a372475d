"""Keeping the source's structure by its features and self-attention in the decoder."""

from dataclasses import dataclass, replace

from p2p_bench.controllers.base import Controller, EditContext
from p2p_bench.controllers.bound import BoundP2P, Part, bind_p2p
from p2p_bench.controllers.self_edit import injection, layer_range
from p2p_bench.controllers.tau import self_steps
from p2p_bench.fields import check_fields
from p2p_bench.layers import LayerRange, layer_bounds
from p2p_bench.tau import SelfTau, is_on, parse_tau


@dataclass(frozen=True)
class PlugAndPlay(Controller):
    """Plug-and-play features (Tumanyan et al. 2022, arXiv 2211.12572), as released.

    The source's queries and keys on the target's values, (s, s, t; I), in self-attention of the decoder from
    its fourth layer on; and the source's features in the place of the target's in one residual block of the
    decoder, before its shortcut is added. Both in the target's pass with and in that without the prompt, each
    by the source's pass with its prompt. Cross-attention is left alone.

    In the released code a real source is told nothing while it is sampled again, and follows its inversion:
    `DirectInversion(replayed_with="empty")`.

    Args:
        self_attn: When self-attention is injected; published for the first half of the steps.
        features: When features are; published for the first 0.8 of the steps.
        layers: First layer, or first layer and the one after the last, as shares of all (0.5) or as indices
            from 0 (8 of Stable Diffusion's 16), see `MasaCtrl`.

    Raises:
        ConfigError: A tau outside [0, 1], or layers that are out of range or end before they start.
    """

    self_attn: SelfTau = 0.5
    features: SelfTau = 0.8
    layers: LayerRange = 0.5

    def __post_init__(self) -> None:
        check_fields(self, "plug_and_play ")

    def bind(self, context: EditContext) -> BoundP2P:
        """See `Controller`."""
        layers = layer_range(*layer_bounds(self.layers))
        made = bind_p2p("plug_and_play", context, self_attn=self.self_attn, self_edit=injection(1.0, layers))
        start, stop = self_steps(self.features, context.steps)
        asked: tuple[Part, ...] = (*made.asked, "features") if is_on(parse_tau(self.features)) else made.asked
        steps = (start, stop) if start < stop else (0, 0)
        return replace(made, feature_steps=steps, pass_edit="source", asked=asked)
