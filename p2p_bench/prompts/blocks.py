"""Column maps of prompts that several tokenizers read into columns of their own, each block by its tokens.

A prompt of one block is served too, and its maps are those of `alignment`.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float64
from torch import Tensor

from p2p_bench.prompts.alignment import (
    phrase_map,
    phrase_pairs,
    refinement_map,
    replacement_map,
    with_source,
    word_columns,
)
from p2p_bench.prompts.words import TokenizedPrompt, places_of

BlockMap = tuple[Float64[Tensor, "w w"], Float64[Tensor, " w"]]
"""A map M, where `M[i, j]` is the weight of source column i in target column j; and `aligned`, which is 0 at
the target columns that are new and 1 elsewhere."""


def replacement_blocks(
    source: TokenizedPrompt, target: TokenizedPrompt, as_released: bool = False
) -> BlockMap:
    """See `replacement_map`.

    Raises:
        PromptError: The prompts have different numbers of words.
    """

    def of_block(old: TokenizedPrompt, new: TokenizedPrompt) -> BlockMap:
        matrix = replacement_map(old, new, as_released)
        return matrix, with_source(matrix, new)

    return _by_blocks(source, target, of_block)


def refinement_blocks(
    source: TokenizedPrompt, target: TokenizedPrompt, as_released: bool = False
) -> BlockMap:
    """See `refinement_map`."""
    return _by_blocks(source, target, lambda old, new: refinement_map(old, new, as_released))


def phrase_blocks(
    source: TokenizedPrompt,
    target: TokenizedPrompt,
    phrases: Mapping[str, str] | None = None,
    swap_rest: bool = False,
) -> BlockMap:
    """See `phrase_map`; a phrase that neither prompt has in a block is none of that block's.

    Raises:
        PromptError: As there.
    """
    named = {old: new for old, new in (phrases or {}).items() if phrase_pairs(source, target, old, new)}

    def of_block(old: TokenizedPrompt, new: TokenizedPrompt) -> BlockMap:
        own = {a: b for a, b in named.items() if places_of(old, a) or places_of(new, b)}
        return phrase_map(old, new, own, swap_rest)

    return _by_blocks(source, target, of_block)


def phrase_columns(
    source: TokenizedPrompt, target: TokenizedPrompt, old: str, new: str
) -> list[tuple[list[int], list[int]]]:
    """Columns of a phrase of the source and of its counterpart in the target: a pair per place and block.

    Raises:
        PromptError: A phrase is not in its prompt, or one occurs more often than the other.
    """
    phrase_pairs(source, target, old, new)
    found = []
    offset = 0
    for before, after in zip(source.parts, target.parts, strict=True):
        if places_of(before, old) or places_of(after, new):
            for places in phrase_pairs(before, after, old, new):
                sides = zip((before, after), places, strict=True)
                columns = [[offset + one for one in word_columns(*side)] for side in sides]
                found.append((columns[0], columns[1]))
        offset += after.width
    return found


def _by_blocks(
    source: TokenizedPrompt,
    target: TokenizedPrompt,
    of_block: Callable[[TokenizedPrompt, TokenizedPrompt], BlockMap],
) -> BlockMap:
    maps = [of_block(old, new) for old, new in zip(source.parts, target.parts, strict=True)]
    if len(maps) == 1:
        return maps[0]
    # torch gives `block_diag` no types.
    whole = torch.block_diag(*(matrix for matrix, _ in maps))  # type: ignore[no-untyped-call]  # torch has no types
    return whole, torch.cat([aligned for _, aligned in maps])
