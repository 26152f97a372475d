"""Injecting self-attention, and nothing else."""

from dataclasses import dataclass

from p2p_bench.controllers.base import Controller, EditContext
from p2p_bench.controllers.bound import BoundP2P, bind_p2p
from p2p_bench.controllers.self_edit import injection
from p2p_bench.controllers.tau import Tau, parse_interval
from p2p_bench.errors import ConfigError
from p2p_bench.fields import check_fields


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

    self_attn: Tau = 0.4
    fraction: float | int | None = None

    def __post_init__(self) -> None:
        check_fields(self, "self_attention ")
        object.__setattr__(self, "self_attn", parse_interval(self.self_attn, "self_attention self_attn"))
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise ConfigError(
                f"self_attention fraction: expected a part of the side in (0, 1], got {self.fraction!r}"
            )

    def bind(self, context: EditContext) -> BoundP2P:
        """See `Controller`."""
        fraction = context.self_fraction if self.fraction is None else self.fraction
        return bind_p2p("self_attention", context, self_attn=self.self_attn, self_edit=injection(fraction))
