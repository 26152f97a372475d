"""Word swap."""

from dataclasses import dataclass

from p2p_bench.attention.columns import Zero, dense
from p2p_bench.attention.terms import ColumnEdit
from p2p_bench.controllers.base import BoundP2P, Controller, EditContext, bind_p2p
from p2p_bench.controllers.tau import Tau, parse_tau
from p2p_bench.errors import ConfigError
from p2p_bench.prompts.alignment import replacement_map


@dataclass(frozen=True)
class Replace(Controller):
    """Word swap (Hertz et al. 2022, section 3.3).

    The source's maps under the target's words: (L, R) = (M, 0).

    Args:
        cross: When cross-attention is replaced.
        self_attn: When self-attention is injected.
        preset: "correct", or "paper" to align words as the released code does (see `replacement_map`).

    Raises:
        ConfigError: A tau outside [0, 1], or an unknown preset.
    """

    cross: Tau = 0.8
    self_attn: Tau = 0.4
    preset: str = "correct"

    def __post_init__(self) -> None:
        object.__setattr__(self, "cross", parse_tau(self.cross, "replace cross"))
        object.__setattr__(self, "self_attn", parse_tau(self.self_attn, "replace self_attn"))
        if self.preset not in ("correct", "paper"):
            raise ConfigError(f"replace preset: expected 'correct' or 'paper', got {self.preset!r}")

    def bind(self, context: EditContext) -> BoundP2P:
        """See `Controller`.

        Raises:
            PromptError: The prompts have different numbers of words.
        """
        M = replacement_map(context.source, context.target, as_released=self.preset == "paper")
        return bind_p2p("replace", context, ColumnEdit(dense(M), Zero()), self.cross, self.self_attn)
