"""Keeping single objects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import torch

from p2p_bench.attention.columns import dense, diagonal
from p2p_bench.attention.terms import ColumnEdit
from p2p_bench.controllers.base import Controller, EditContext
from p2p_bench.controllers.bound import BoundP2P, bind_p2p
from p2p_bench.errors import PromptError
from p2p_bench.fields import Words, check_fields
from p2p_bench.prompts.alignment import map_block
from p2p_bench.prompts.blocks import phrase_columns
from p2p_bench.tau import SelfTau, Tau


@dataclass(frozen=True)
class InjectWords(Controller):
    """Object preservation (Hertz et al. 2022, figure 5): the source's maps at the columns of some words only.

    L takes the source word's columns to the target word's; R is the identity elsewhere and zero there.

    Args:
        words: Words or phrases that both prompts have, or target word by source word, such as
            `{"cat": "kitten"}`; phrases of unequal length go all to all with weight 1/m.
        cross: When maps are injected.
        self_attn: When self-attention is injected, besides.

    Raises:
        ConfigError: A tau outside [0, 1], or no words.
    """

    words: Annotated[
        str | Sequence[str] | Mapping[str, str],
        Words("words such as ['circle'] or {'circle': 'disc'}", needed=True),
    ] = field(hash=False)
    cross: Tau = 0.8
    self_attn: SelfTau = 0.0

    def __post_init__(self) -> None:
        check_fields(self, "inject_words ")

    def bind(self, context: EditContext) -> BoundP2P:
        """See `Controller`.

        Raises:
            PromptError: A word is not in its prompt, or occurs more often in one than in the other; or two
                are to give their maps to one.
        """
        source, target = context.source, context.target
        matrix = torch.zeros(source.width, target.width, dtype=torch.float64)
        own = torch.ones(target.width, dtype=torch.float64)
        for old, new in self._pairs():
            for taken, columns in phrase_columns(source, target, old, new):
                before = matrix[:, columns] + 0
                matrix[:, columns] = 0
                map_block(matrix, taken, columns)
                known = own[columns] == 0
                if not torch.equal(before[:, known], matrix[:, columns][:, known]):
                    raise PromptError(
                        f"inject_words: a word of {new!r} takes the maps of two words or phrases of "
                        f"{source.text!r}; name each word of {target.text!r} once"
                    )
                own[columns] = 0
        named = [old if old == new else f"{old} -> {new}" for old, new in self._pairs()]
        title = "inject_words " + ", ".join(named)
        return bind_p2p(title, context, ColumnEdit(dense(matrix), diagonal(own)), self.cross, self.self_attn)

    def _pairs(self) -> list[tuple[str, str]]:
        """The words of the source with those of the target."""
        if isinstance(self.words, Mapping):
            return [(str(old), str(new)) for old, new in self.words.items()]
        words = [self.words] if isinstance(self.words, str) else self.words
        return [(str(word), str(word)) for word in words]
