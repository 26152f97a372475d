"""Keeping the look of the source while the pose changes."""

from dataclasses import dataclass

from p2p_bench.attention.terms import NO_EDIT
from p2p_bench.controllers.base import Controller, EditContext
from p2p_bench.controllers.bound import BoundP2P
from p2p_bench.controllers.self_edit import NO_SELF_EDIT, layer_range, mutual
from p2p_bench.fields import check_fields
from p2p_bench.layers import FirstStep, LayerRange, layer_bounds
from p2p_bench.tau import part_of


@dataclass(frozen=True)
class MasaCtrl(Controller):
    """Mutual self-attention (Cao et al. 2023, arXiv 2304.08465, without the masks of its section 3.3).

    The target's queries attend to the source's keys and values, (t, s, s; I), from a step and a layer on;
    cross-attention is left alone. As published it begins at step 4 of 50 and layer 10 of Stable Diffusion's
    16 self-attention layers, in the order in which the network runs them: the last six, all in the decoder.
    The defaults are these as shares, 0.08 and 0.625, so that they suit other step counts and networks.
    The released code edits both halves of a guided batch; this the conditional one, like all edits here, but
    where `unprompted` says otherwise.

    Args:
        start_step: First step, as a share of the steps (0.08) or as an index (4).
        layers: First layer, or first layer and the one after the last, as shares of all (0.625) or as indices
            from 0 (10); numbers without a fraction are indices, unless another one has a fraction.
        unprompted: Edit the target's pass without the prompt as well, by the source's, as released.

    Raises:
        ConfigError: A step or layer that is out of range, or layers that end before they start.
    """

    start_step: FirstStep = 0.08
    layers: LayerRange = 0.625
    unprompted: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "masactrl ")

    def bind(self, context: EditContext) -> BoundP2P:
        """See `Controller`."""
        start = (
            self.start_step if isinstance(self.start_step, int) else part_of(self.start_step, context.steps)
        )
        edit = mutual(layer_range(*layer_bounds(self.layers)))
        return BoundP2P(
            "masactrl",
            context,
            cross=(NO_EDIT,) * context.steps,
            self_edits=tuple(edit if step >= start else NO_SELF_EDIT for step in range(context.steps)),
            pass_edit="own" if self.unprompted else "plain",
            asked=("self-attention",),
        )
