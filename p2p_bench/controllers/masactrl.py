"""Keeping the look of the source while the pose changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from numbers import Real
from typing import Any

from p2p_bench.attention.terms import NO_EDIT
from p2p_bench.controllers.base import Controller, EditContext
from p2p_bench.controllers.bound import BoundP2P
from p2p_bench.controllers.self_edit import NO_SELF_EDIT, Layers, layer_range, mutual
from p2p_bench.errors import ConfigError
from p2p_bench.fields import check_fields


@dataclass(frozen=True)
class MasaCtrl(Controller):
    """Mutual self-attention (Cao et al. 2023, arXiv 2304.08465, without the masks of its section 3.3).

    The target's queries attend to the source's keys and values, (t, s, s; I), from a step and a layer on;
    cross-attention is left alone. As published it begins at step 4 of 50 and layer 10 of Stable Diffusion's
    16 self-attention layers, in the order in which the network runs them: the last six, all in the decoder.
    The defaults are these as shares, 0.08 and 0.625, so that they suit other step counts and networks.
    Deviation from the released code: it edits both halves of a guided batch, this the conditional one, like
    all edits here.

    Args:
        start_step: First step, as a share of the steps (0.08) or as an index (4).
        layers: First layer, or first layer and the one after the last, as shares of all (0.625) or as indices
            from 0 (10); numbers without a fraction are indices, unless another one has a fraction.

    Raises:
        ConfigError: A step or layer that is out of range, or layers that end before they start.
    """

    start_step: float | int = 0.08
    layers: float | int | Sequence[float | int] = 0.625

    def __post_init__(self) -> None:
        check_fields(self, "masactrl ")
        if not _is_place(self.start_step):
            raise ConfigError(
                "masactrl start_step: expected a share of the steps such as 0.08, or an index such as 4, "
                f"got {self.start_step!r}"
            )
        if isinstance(self.layers, Sequence) and not isinstance(self.layers, str):
            object.__setattr__(self, "layers", tuple(self.layers))
        self._layers()

    def bind(self, context: EditContext) -> BoundP2P:
        """See `Controller`."""
        start = self.start_step if isinstance(self.start_step, int) else int(self.start_step * context.steps)
        edit = mutual(self._layers())
        return BoundP2P(
            "masactrl",
            context,
            cross=(NO_EDIT,) * context.steps,
            self_edits=tuple(edit if step >= start else NO_SELF_EDIT for step in range(context.steps)),
        )

    def _layers(self) -> Layers:
        """The layers as a set."""
        places: list[Any] = list(self.layers) if isinstance(self.layers, tuple) else [self.layers]
        if not 1 <= len(places) <= 2 or not all(
            isinstance(p, Real) and not isinstance(p, bool) for p in places
        ):
            raise ConfigError(
                "masactrl layers: expected the first layer, or the first and the one after the last, "
                f"got {self.layers!r}"
            )
        as_share = any(isinstance(place, float) for place in places)
        last = 1.0 if as_share else inf
        start, stop = (*places, last)[:2]
        if not 0 <= start < stop or stop > last:
            kind = "shares in [0, 1]" if as_share else "indices from 0 on"
            raise ConfigError(
                f"masactrl layers: expected {kind}, the first below the last, got {self.layers!r}"
            )
        return layer_range(float(start), float(stop), as_share)


def _is_place(value: Any) -> bool:
    """Whether a value is a share in [0, 1] or an index."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= 1 or (isinstance(value, int) and value >= 0)
