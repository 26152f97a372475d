"""Which source columns correspond to which target columns."""

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from p2p_bench.errors import PromptError
from p2p_bench.prompts.words import TokenizedPrompt


def replacement_map(
    source: TokenizedPrompt, target: TokenizedPrompt, as_released: bool = False
) -> Float64[Tensor, "w w"]:
    """Map of a word swap (Hertz et al. 2022): words correspond by position.

    Columns of a word with equal numbers of tokens map one to one; otherwise every source column goes to each
    of the m target columns with weight 1/m. All other columns follow in order.

    Args:
        source: The source prompt.
        target: A target prompt of equally many words.
        as_released: Follow the released code, which maps column j to j after the last swapped word instead of
            the source's next column to j. It matters where swapped words differ in their number of tokens.

    Returns:
        M, where `M[i, j]` is the weight of source column i in target column j.

    Raises:
        PromptError: The prompts have different numbers of words.
    """
    if len(source.words) != len(target.words):
        raise PromptError(
            f"replace needs equally many words: {source.text!r} has {len(source.words)}, "
            f"{target.text!r} has {len(target.words)}; use refine to add or remove words"
        )
    matrix = torch.zeros(source.width, target.width, dtype=torch.float64)
    swaps = [
        (old.span, new.span)
        for old, new in zip(source.words, target.words, strict=True)
        if old.text.lower() != new.text.lower()
    ]
    i = j = 0
    for old, new in swaps:
        for _ in range(new[0] - j):
            matrix[i, j] = 1
            i, j = i + 1, j + 1
        if len(old) == len(new):
            matrix[list(old), list(new)] = 1
        else:
            matrix[old[0] : old[-1] + 1, new[0] : new[-1] + 1] = 1 / len(new)
        i, j = old[-1] + 1, new[-1] + 1
    rest = min(source.width - i, target.width - j)
    if as_released:
        i = j
    for offset in range(rest):
        matrix[i + offset, j + offset] = 1
    return matrix


def refinement_map(
    source: TokenizedPrompt, target: TokenizedPrompt
) -> tuple[Float64[Tensor, "w w"], Float64[Tensor, " w"]]:
    """Alignment of a refinement (Hertz et al. 2022): tokens that both prompts share correspond.

    Token sequences, begin and end included, are aligned globally: match 1, mismatch -1, gap 0. Columns after
    the target's last token map j to j.

    Returns:
        P, where `P[i, j]` is 1 if source column i is shared with target column j; and `aligned`, which is 1
        at the target columns that have a source column and 0 at those that are new.
    """
    width = target.width
    matrix = torch.zeros(source.width, width, dtype=torch.float64)
    for i, j in _align(source.encoded, target.encoded):
        matrix[i, j] = 1
    for j in range(len(target.encoded), width):
        matrix[j, j] = 1
    return matrix, matrix.sum(0)


def _align(source: Sequence[int], target: Sequence[int]) -> list[tuple[int, int]]:
    """Needleman-Wunsch: pairs (i, j) of aligned positions. Ties: insertion, then deletion, then match."""
    score = [[0] * (len(target) + 1) for _ in range(len(source) + 1)]
    for i, old in enumerate(source, 1):
        for j, new in enumerate(target, 1):
            match = score[i - 1][j - 1] + (1 if old == new else -1)
            score[i][j] = max(score[i][j - 1], score[i - 1][j], match)
    pairs = []
    i, j = len(source), len(target)
    while i and j:
        if score[i][j] == score[i][j - 1]:
            j -= 1
        elif score[i][j] == score[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]
