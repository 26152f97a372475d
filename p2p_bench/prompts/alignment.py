"""Which source columns correspond to which target columns."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from p2p_bench.errors import PromptError
from p2p_bench.prompts.changes import align, common_places, unchanged_places
from p2p_bench.prompts.words import TokenizedPrompt, occurrences

_Item = tuple[str | int, range]
"""Words of a prompt, with what they are compared by: a word's text, or the number of a swapped phrase."""

_Pair = tuple[Sequence[int], Sequence[int]]
"""Places of words of the source, and of the words of the target that take their columns."""


def replacement_map(
    source: TokenizedPrompt, target: TokenizedPrompt, as_released: bool = False
) -> Float64[Tensor, "w w"]:
    """Map of a word swap (Hertz et al. 2022): words correspond by position.

    Columns of a word with equal numbers of tokens map one to one; otherwise every source column goes to each
    of the m target columns with weight 1/m. Punctuation around a word goes to that around the other; where
    only the target has some, it has no source column. Begin, end and padding follow in order.

    Args:
        source: The source prompt.
        target: A target prompt of equally many words.
        as_released: Follow the released code. Words are compared as written, letter case and punctuation
            included, those that differ are swapped as wholes, and after the last of them column j goes to j
            instead of the source's next column to j, which matters where swapped words differ in their number
            of tokens.

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
    if as_released:
        return _released_walk(source, target)
    return _word_map(source, target, [([place], [place]) for place in range(len(source.words))])


def refinement_map(
    source: TokenizedPrompt, target: TokenizedPrompt, as_released: bool = False
) -> tuple[Float64[Tensor, "w w"], Float64[Tensor, " w"]]:
    """Alignment of a refinement (Hertz et al. 2022): what both prompts share corresponds.

    Words that both prompts have correspond, and the punctuation around them where both have some. Columns
    after the target's last token map j to j where the source has padding there, too.

    Args:
        source: The source prompt.
        target: The target prompt.
        as_released: Follow the released code. Token sequences, begin and end included, are aligned globally
            (match 1, mismatch -1, gap 0), so that different words share the pieces that they are made of;
            and j maps to j also where the source still has words, so that a shorter target's padding takes
            maps of words.

    Returns:
        P, where `P[i, j]` is 1 if source column i is shared with target column j (1/m where a word has other
        tokens than its counterpart, m of them, as with another apostrophe); and `aligned`, which is 1 at the
        target columns that have a source column and 0 at those that are new.
    """
    if as_released:
        matrix = torch.zeros(source.width, target.width, dtype=torch.float64)
        for i, j in align(source.encoded, target.encoded):
            matrix[i, j] = 1
        first = len(target.encoded)
    else:
        matrix = _map_of(source, target, [([i], [j]) for i, j in unchanged_places(source, target)])
        matrix[source.end, target.end] = 1
        first = max(len(target.encoded), len(source.encoded))
    for j in range(first, target.width):
        matrix[j, j] = 1
    return matrix, matrix.any(0).double()


def phrase_map(
    source: TokenizedPrompt,
    target: TokenizedPrompt,
    phrases: Mapping[str, str] | None = None,
    swap_rest: bool = False,
) -> tuple[Float64[Tensor, "w w"], Float64[Tensor, " w"]]:
    """Map of a swap of phrases, which may differ in their number of words.

    Each phrase of the source goes to its phrase of the target: columns map one to one if they are equally
    many, otherwise every source column goes to each of the m target columns with weight 1/m. The words around
    them are aligned as in a refinement. Punctuation and padding are as in `replacement_map`.

    Args:
        source: The source prompt.
        target: The target prompt.
        phrases: Target word or phrase by source word or phrase.
        swap_rest: Words that differ between two aligned ones are swapped, too: word by word if they are
            equally many, otherwise as one phrase.

    Returns:
        M, where `M[i, j]` is the weight of source column i in target column j; and `aligned`, which is 0 at
        the target columns that are new and 1 elsewhere.

    Raises:
        PromptError: A phrase is not in its prompt, occurs more often in one prompt than in the other, or
            overlaps with another phrase.
    """
    swaps = [swap for old, new in (phrases or {}).items() for swap in phrase_pairs(source, target, old, new)]
    for side, prompt in enumerate((source, target)):
        _check_apart(prompt, [swap[side] for swap in swaps])
    old_items, new_items = (
        _items(prompt, [swap[side] for swap in swaps]) for side, prompt in enumerate((source, target))
    )
    same = common_places([key for key, _ in old_items], [key for key, _ in new_items])
    pairs: list[_Pair] = [*swaps]
    pairs += [(old_items[i][1], new_items[j][1]) for i, j in same if isinstance(old_items[i][0], str)]
    if swap_rest:
        pairs += _gap_swaps(old_items, new_items, same)

    matrix = _word_map(source, target, pairs)
    return matrix, with_source(matrix, target)


def with_source(matrix: Float64[Tensor, "w w"], target: TokenizedPrompt) -> Float64[Tensor, " w"]:
    """0 at the target's columns that a swap gives no source column, 1 elsewhere and at end and padding."""
    aligned = matrix.any(0).double()
    aligned[target.end :] = 1
    return aligned


def phrase_pairs(
    source: TokenizedPrompt, target: TokenizedPrompt, old: str, new: str
) -> list[tuple[range, range]]:
    """Places of a phrase among the source's words and of its counterpart among the target's, in order.

    Raises:
        PromptError: A phrase is not in its prompt, or one occurs more often than the other.
    """
    places = occurrences(source, old), occurrences(target, new)
    if len(places[0]) != len(places[1]):
        raise PromptError(
            f"phrase {old!r} occurs {len(places[0])} times in {source.text!r}, but {new!r} "
            f"{len(places[1])} times in {target.text!r}; name longer phrases, so that each has a counterpart"
        )
    return list(zip(*places, strict=True))


def word_columns(prompt: TokenizedPrompt, places: Sequence[int]) -> list[int]:
    """Columns of some words of a prompt, with the punctuation between neighbours but none around them."""
    columns: list[int] = []
    for number, place in enumerate(places):
        own = prompt.words[place].columns
        joined = number > 0 and places[number - 1] == place - 1
        columns += range(columns[-1] + 1 if joined else own[0], own[-1] + 1)
    return columns


def map_block(matrix: Float64[Tensor, "w w"], old: Sequence[int], new: Sequence[int]) -> None:
    """Writes a swap into a map: one to one, or all to all with weight 1/m where the counts differ."""
    if len(old) == len(new):
        matrix[list(old), list(new)] = 1
    else:
        matrix[torch.tensor(old)[:, None], torch.tensor(new)] = 1 / len(new)


def _word_map(
    source: TokenizedPrompt, target: TokenizedPrompt, pairs: Sequence[_Pair]
) -> Float64[Tensor, "w w"]:
    """Map of a swap of words; padding follows in order."""
    matrix = _map_of(source, target, pairs)
    i, j = source.end, target.end
    for offset in range(min(source.width - i, target.width - j)):
        matrix[i + offset, j + offset] = 1
    return matrix


def _map_of(
    source: TokenizedPrompt, target: TokenizedPrompt, pairs: Sequence[_Pair]
) -> Float64[Tensor, "w w"]:
    """Map of the begin column, if any, and of words with the punctuation around them; the rest is zero."""
    matrix = torch.zeros(source.width, target.width, dtype=torch.float64)
    matrix[range(source.front), range(target.front)] = 1
    for old, new in pairs:
        map_block(matrix, word_columns(source, old), word_columns(target, new))
        for mine, its in zip(_punctuation(source, old), _punctuation(target, new), strict=True):
            if mine and its:
                map_block(matrix, mine, its)
    return matrix


def _punctuation(prompt: TokenizedPrompt, places: Sequence[int]) -> tuple[list[int], list[int]]:
    """Columns of the punctuation before and after some words."""
    first, last = prompt.words[places[0]], prompt.words[places[-1]]
    before = [column for column in first.span if column < first.columns[0]]
    return before, [column for column in last.span if column > last.columns[-1]]


def _released_walk(source: TokenizedPrompt, target: TokenizedPrompt) -> Float64[Tensor, "w w"]:
    """The released code's map of a word swap."""
    matrix = torch.zeros(source.width, target.width, dtype=torch.float64)
    swaps = [
        (old.span, new.span)
        for old, new in zip(source.words, target.words, strict=True)
        if old.text != new.text
    ]
    i = j = 0
    for old, new in swaps:
        for _ in range(new[0] - j):
            matrix[i, j] = 1
            i, j = i + 1, j + 1
        map_block(matrix, old, new)
        i, j = old[-1] + 1, new[-1] + 1
    for column in range(j, j + min(source.width - i, target.width - j)):
        matrix[column, column] = 1
    return matrix


def _items(prompt: TokenizedPrompt, phrases: Sequence[range]) -> list[_Item]:
    numbers = {places.start: number for number, places in enumerate(phrases)}
    items: list[_Item] = []
    place = 0
    while place < len(prompt.words):
        number = numbers.get(place)
        places = range(place, place + 1) if number is None else phrases[number]
        items.append((prompt.words[place].bare if number is None else number, places))
        place = places.stop
    return items


def _gap_swaps(
    old_items: Sequence[_Item], new_items: Sequence[_Item], same: Sequence[tuple[int, int]]
) -> list[_Pair]:
    """Words between aligned ones that stand in place of one another."""
    swaps: list[_Pair] = []
    ends = [*same, (len(old_items), len(new_items))]
    i = j = 0
    for next_i, next_j in ends:
        old, new = (
            [place for key, places in items if isinstance(key, str) for place in places]
            for items in (old_items[i:next_i], new_items[j:next_j])
        )
        if len(old) == len(new):
            swaps += [([a], [b]) for a, b in zip(old, new, strict=True)]
        elif old and new:
            swaps.append((old, new))
        i, j = next_i + 1, next_j + 1
    return swaps


def _check_apart(prompt: TokenizedPrompt, phrases: Sequence[range]) -> None:
    places = [place for phrase in phrases for place in phrase]
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice is not None:
        raise PromptError(
            f"phrases: word {prompt.words[twice].text!r} of {prompt.text!r} belongs to two of them; "
            "name each word once"
        )
