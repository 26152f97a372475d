"""Adding to a prompt."""

from dataclasses import dataclass

from p2p_bench.attention.columns import Zero, dense
from p2p_bench.attention.terms import ColumnEdit, gate
from p2p_bench.controllers.base import BoundP2P, Controller, EditContext, bind_p2p
from p2p_bench.controllers.tau import Tau, parse_tau
from p2p_bench.prompts.alignment import refinement_map


@dataclass(frozen=True)
class Refine(Controller):
    """Refinement (Hertz et al. 2022, section 3.3).

    The source's maps at tokens both prompts share, own maps at new ones: (L, R) = (P diag(a), diag(1 - a)).

    Args:
        cross: When cross-attention is edited.
        self_attn: When self-attention is injected.

    Raises:
        ConfigError: A tau outside [0, 1].
    """

    cross: Tau = 0.8
    self_attn: Tau = 0.4

    def __post_init__(self) -> None:
        object.__setattr__(self, "cross", parse_tau(self.cross, "refine cross"))
        object.__setattr__(self, "self_attn", parse_tau(self.self_attn, "refine self_attn"))

    def bind(self, context: EditContext) -> BoundP2P:
        """See `Controller`."""
        P, aligned = refinement_map(context.source, context.target)
        edit = gate(ColumnEdit(dense(P), Zero()), aligned)
        return bind_p2p("refine", context, edit, self.cross, self.self_attn)
