"""Word swap."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated

from p2p_bench.attention.columns import Zero, dense
from p2p_bench.attention.terms import ColumnEdit, gate
from p2p_bench.controllers.base import Controller, EditContext, Preset
from p2p_bench.controllers.bound import BoundP2P, bind_p2p
from p2p_bench.errors import ConfigError
from p2p_bench.fields import Words, check_fields
from p2p_bench.prompts.blocks import phrase_blocks, replacement_blocks
from p2p_bench.prompts.words import TokenizedPrompt
from p2p_bench.tau import SelfTau, Tau


@dataclass(frozen=True)
class Replace(Controller):
    """Word swap (Hertz et al. 2022, section 3.3).

    The source's maps under the target's words: (L, R) = (M, 0). Words correspond by position, unless they
    are named or aligned. Then the prompts may differ in their number of words, and words of the target that
    are neither swapped nor shared keep their own maps: (L, R) = (M, diag(1 - a)). So does punctuation that
    only the target has.

    Args:
        cross: When cross-attention is replaced.
        self_attn: When self-attention is injected.
        preset: "correct", or "paper" to align words as the released code does (see `replacement_map`).
        words: Target word or phrase by source word or phrase, such as `{"circle": "large square"}`; the words
            around them are aligned (see `phrase_map`).
        align: Swap all words that stand between shared ones, as phrases where their numbers differ.

    Raises:
        ConfigError: A tau outside [0, 1], an unknown preset, or `words` or `align` beside the preset "paper".
    """

    cross: Tau = 0.8
    self_attn: SelfTau = 0.4
    preset: Preset = "correct"
    words: Annotated[Mapping[str, str] | None, Words("words in both prompts")] = field(
        default=None, hash=False
    )
    align: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "replace ")
        if self.preset == "paper" and (self.words or self.align):
            raise ConfigError(
                "replace preset: the released code swaps words by position only; leave out words and align, "
                "or use preset 'correct'"
            )
        if self.words is not None:
            object.__setattr__(self, "words", {str(old): str(new) for old, new in self.words.items()})

    def bind(self, context: EditContext) -> BoundP2P:
        """See `Controller`.

        Raises:
            PromptError: A word is not in its prompt, or words go by position and the prompts have different
                numbers of them.
        """
        if self.words or self.align:
            M, aligned = phrase_blocks(context.source, context.target, self.words, self.align)
            edit = gate(ColumnEdit(dense(M), Zero()), aligned)
        else:
            edit = _edit(context.source, context.target, self.preset == "paper")
        title = "replace aligned" if self.words or self.align else "replace"
        return bind_p2p(title, context, edit, self.cross, self.self_attn)


@lru_cache(maxsize=256)
def _edit(source: TokenizedPrompt, target: TokenizedPrompt, as_released: bool) -> ColumnEdit:
    """The swap by position without its schedule; the variants of a sweep share it."""
    M, aligned = replacement_blocks(source, target, as_released)
    edit = ColumnEdit(dense(M), Zero())
    return edit if as_released or bool(aligned.all()) else gate(edit, aligned)
