"""The controller that suits a pair."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Annotated

from p2p_bench.controllers.base import BlendWords, BoundController, Controller, EditContext
from p2p_bench.controllers.refine import Refine
from p2p_bench.controllers.replace import Replace
from p2p_bench.controllers.reweight import Reweight
from p2p_bench.fields import Factors, check_fields
from p2p_bench.prompts.changes import keeps_places
from p2p_bench.tau import SelfTau, Tau


@dataclass(frozen=True)
class ByEdit(Controller):
    """Replacement where the words that both prompts share keep their places, refinement otherwise.

    So no unchanged word takes the maps of another. Where words are weighted, re-weighting goes around it,
    with the same tau.

    Args:
        cross: When cross-attention is edited.
        self_attn: When self-attention is injected.
        weights: Factor for each target word; usually given by the pair, see `for_pair`.

    Raises:
        ConfigError: A tau outside [0, 1].
    """

    cross: Tau = 0.8
    self_attn: SelfTau = 0.4
    weights: Annotated[Mapping[str, float | int] | None, Factors()] = field(default=None, hash=False)

    def __post_init__(self) -> None:
        check_fields(self, "by_edit ")

    def bind(self, context: EditContext) -> BoundController:
        """See `Controller`.

        Raises:
            PromptError: A weighted word is not in the target prompt.
        """
        swap = keeps_places(context.source, context.target)
        inner = _inner(swap, self.cross, self.self_attn)
        if self.weights:
            return Reweight(self.weights, self.cross, 0.0, inner).bind(context)
        return inner.bind(context)

    def for_pair(
        self, word_weights: Mapping[str, float | int], blend_words: BlendWords | None = None
    ) -> "ByEdit":
        """The same with the pair's word weights, if it has any."""
        return replace(self, weights=word_weights) if word_weights else self


@lru_cache(maxsize=1024)
def _inner(swap: bool, cross: Tau, self_attn: SelfTau) -> Replace | Refine:
    """The edit without weights; the same for every pair."""
    return (Replace if swap else Refine)(cross, self_attn)
