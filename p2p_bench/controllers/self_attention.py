"""Injecting self-attention, and nothing else."""

from dataclasses import dataclass
from typing import Annotated

from p2p_bench.controllers.base import Controller, EditContext
from p2p_bench.controllers.bound import BoundP2P, bind_p2p
from p2p_bench.controllers.self_edit import injection
from p2p_bench.fields import Between, check_fields
from p2p_bench.tau import SelfTau


@dataclass(frozen=True)
class SelfAttention(Controller):
    """Self-attention injection (Hertz et al. 2022, section 3.3), with a size limit of its own.

    The source's self-attention maps on the target's values, (s, s, t; I); cross-attention is left alone.

    Args:
        self_attn: When it is injected.
        fraction: Maps of at most this fraction of the latent side; None: the model's limit.

    Raises:
        ConfigError: A tau outside [0, 1], or a fraction outside (0, 1].
    """

    self_attn: SelfTau = 0.4
    fraction: Annotated[float | int | None, Between(0, 1, "a part of the side", open_low=True)] = None

    def __post_init__(self) -> None:
        check_fields(self, "self_attention ")

    def bind(self, context: EditContext) -> BoundP2P:
        """See `Controller`."""
        fraction = context.self_fraction if self.fraction is None else self.fraction
        return bind_p2p("self_attention", context, self_attn=self.self_attn, self_edit=injection(fraction))
