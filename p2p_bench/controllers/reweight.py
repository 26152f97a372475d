"""Making a word stronger or weaker."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
from jaxtyping import Float64
from torch import Tensor

from p2p_bench.attention.columns import Zero, diagonal
from p2p_bench.attention.terms import ColumnEdit
from p2p_bench.controllers.base import (
    BlendWords,
    BoundController,
    Controller,
    EditContext,
    check_controller,
)
from p2p_bench.controllers.bound import bind_p2p, compose_bound
from p2p_bench.errors import PromptError
from p2p_bench.fields import Factors, check_fields
from p2p_bench.prompts.changes import keeps_columns
from p2p_bench.prompts.words import TokenizedPrompt, columns_of
from p2p_bench.tau import SelfTau, Tau


@dataclass(frozen=True)
class Reweight(Controller):
    """Re-weighting (Hertz et al. 2022, section 3.3): columns of some target words times a factor c.

    Alone it scales the source's maps column by column, (L, R) = (diag(c), 0), so source and target are one
    prompt, or have what they share in the same columns; the edit's notes say so where they do not.
    Around an inner edit (L0, R0) it scales that edit's whole result, own columns of new tokens included:
    (L0 diag(c), R0 diag(c)). Each of the two keeps its own tau: where re-weighting is off, the inner edit
    remains; where the inner edit is off, the target's own maps are scaled. The released code has one tau for
    both; with equal taus this is its behaviour. A smooth gate alpha scales by 1 + alpha (c - 1).

    Args:
        weights: Factor for each target word or phrase.
        cross: When maps are scaled.
        self_attn: When self-attention is injected, besides what the inner edit injects.
        inner: The edit to work on, or None.

    Raises:
        ConfigError: A tau outside [0, 1], no weights, or a weight that is not finite; or `inner` is no
            controller.
    """

    weights: Annotated[Mapping[str, float | int], Factors(needed=True)] = field(hash=False)
    cross: Tau = 1.0
    self_attn: SelfTau = 0.0
    inner: Controller | None = None

    def __post_init__(self) -> None:
        check_fields(self, "reweight ")
        if self.inner is not None:
            check_controller("reweight inner", self.inner)
        weights = {str(word): factor for word, factor in self.weights.items()}
        object.__setattr__(self, "weights", weights)

    def bind(self, context: EditContext) -> BoundController:
        """See `Controller`.

        Raises:
            ConfigError: The inner controller is not an edit of cross-attention columns.
            PromptError: A weighted word is not in the target prompt, or has two factors.
        """
        c = diagonal(word_factors(context.target, self.weights))
        title = "reweight " + ", ".join(f"{word} x {factor:g}" for word, factor in self.weights.items())
        if self.inner is None:
            alone = bind_p2p(title, context, ColumnEdit(c, Zero()), self.cross, self.self_attn)
            return replace(alone, lost=_misplaced(context.source, context.target))
        outer = bind_p2p(title, context, ColumnEdit(Zero(), c), self.cross, self.self_attn)
        return compose_bound([self.inner.bind(context), outer], "reweight inner")

    def for_pair(
        self, word_weights: Mapping[str, float | int], blend_words: BlendWords | None = None
    ) -> "Reweight":
        """The same around the inner controller for the pair; the weights stay."""
        return (
            self
            if self.inner is None
            else replace(self, inner=self.inner.for_pair(word_weights, blend_words))
        )


def _misplaced(source: TokenizedPrompt, target: TokenizedPrompt) -> tuple[str, ...]:
    """Says so where words of the target take the maps of others."""
    if keeps_columns(source, target):
        return ()
    return (
        "reweight alone scales the source's maps column by column, and the prompts share words in "
        "other columns, whose maps are those of other words; put it around an edit that aligns them "
        "(controller=auto with word_weights; Reweight(weights, inner=Refine()) in Python)",
    )


def word_factors(target: TokenizedPrompt, weights: Mapping[str, float | int]) -> Float64[Tensor, " w"]:
    """The factor c of each target column: a word's weight at its columns, 1 elsewhere.

    Raises:
        PromptError: A word is not in the prompt, or has two factors.
    """
    factors = torch.ones(target.width, dtype=torch.float64)
    named: dict[int, str] = {}
    for word, factor in weights.items():
        for column in columns_of(target, word):
            other = named.setdefault(column, word)
            if weights[other] != factor:
                raise PromptError(
                    f"weights: {other!r} x {weights[other]:g} and {word!r} x {factor:g} are both of one word "
                    f"of {target.text!r}; give each word one factor"
                )
            factors[column] = factor
    return factors
