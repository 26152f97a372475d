"""Adding to a prompt."""

from dataclasses import dataclass
from functools import lru_cache

from p2p_bench.attention.columns import Zero, dense
from p2p_bench.attention.terms import ColumnEdit, gate
from p2p_bench.controllers.base import Controller, EditContext, Preset
from p2p_bench.controllers.bound import BoundP2P, bind_p2p
from p2p_bench.fields import check_fields
from p2p_bench.prompts.blocks import refinement_blocks
from p2p_bench.prompts.words import TokenizedPrompt
from p2p_bench.tau import SelfTau, Tau


@dataclass(frozen=True)
class Refine(Controller):
    """Refinement (Hertz et al. 2022, section 3.3).

    The source's maps at tokens both prompts share, own maps at new ones: (L, R) = (P diag(a), diag(1 - a)).

    Args:
        cross: When cross-attention is edited.
        self_attn: When self-attention is injected.
        preset: "correct", or "paper" to align padding as the released code does (see `refinement_map`).

    Raises:
        ConfigError: A tau outside [0, 1], or an unknown preset.
    """

    cross: Tau = 0.8
    self_attn: SelfTau = 0.4
    preset: Preset = "correct"

    def __post_init__(self) -> None:
        check_fields(self, "refine ")

    def bind(self, context: EditContext) -> BoundP2P:
        """See `Controller`.

        Raises:
            PromptError: A schedule names a word that the target does not have.
        """
        edit = _edit(context.source, context.target, self.preset == "paper")
        return bind_p2p("refine", context, edit, self.cross, self.self_attn)


@lru_cache(maxsize=256)
def _edit(source: TokenizedPrompt, target: TokenizedPrompt, as_released: bool) -> ColumnEdit:
    """The edit without its schedule; the variants of a sweep share it."""
    P, aligned = refinement_blocks(source, target, as_released)
    return gate(ColumnEdit(dense(P), Zero()), aligned)
