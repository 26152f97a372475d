"""Which words two prompts share: the one notion of *changed words*, whoever asks."""

from collections.abc import Hashable, Sequence

from p2p_bench.prompts.words import TokenizedPrompt

Places = tuple[tuple[int, int], ...]
"""Places in the source and in the target, in order."""


def common_places(source: Sequence[Hashable], target: Sequence[Hashable]) -> Places:
    """Places of the items that two sequences share, in order, as many as there can be.

    Of several ways to share that many, the one in which all of them keep their places is taken.
    """
    aligned = align(source, target)
    same = [
        (place, place) for place, (old, new) in enumerate(zip(source, target, strict=False)) if old == new
    ]
    return tuple(same if len(source) == len(target) and len(same) == len(aligned) else aligned)


def unchanged_places(source: TokenizedPrompt, target: TokenizedPrompt) -> Places:
    """Places of the words that both prompts have; words are compared bare (see `WordSpan`)."""
    return common_places(bare_words(source), bare_words(target))


def keeps_places(source: TokenizedPrompt, target: TokenizedPrompt) -> bool:
    """Whether a swap word by word leaves every unchanged word to itself."""
    equally_many = len(source.words) == len(target.words)
    return equally_many and all(old == new for old, new in unchanged_places(source, target))


def keeps_columns(source: TokenizedPrompt, target: TokenizedPrompt) -> bool:
    """Whether every word that both prompts have is in the same columns of both, and so is the end."""
    ends = all(old.end == new.end for old, new in zip(source.parts, target.parts, strict=True))
    return ends and all(
        source.words[old].columns == target.words[new].columns
        for old, new in unchanged_places(source, target)
    )


def changed_words(
    source: TokenizedPrompt, target: TokenizedPrompt
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Words that the source has and the target lacks in that order, and the reverse; each once, bare."""
    kept = unchanged_places(source, target)
    removed, added = (
        tuple(dict.fromkeys(word for place, word in enumerate(bare_words(prompt)) if place not in places))
        for prompt, places in ((source, {old for old, _ in kept}), (target, {new for _, new in kept}))
    )
    return removed, added


def bare_words(prompt: TokenizedPrompt) -> list[str]:
    """The prompt's words in lower case, without punctuation around them."""
    return [word.bare for word in prompt.words]


def align(source: Sequence[Hashable], target: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Needleman-Wunsch: pairs (i, j) of equal items. Ties: insertion, then deletion, then match."""
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
