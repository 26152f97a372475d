"""Prompts in pieces, with the words that the other prompt lacks marked for highlighting."""

from collections.abc import Sequence

from p2p_bench.prompts.changes import common_places
from p2p_bench.prompts.words import Word, split_words

Segments = list[tuple[str, bool]]
"""Text in pieces, each with True where the other prompt lacks it."""


def highlighted(source: str, target: str) -> tuple[Segments, Segments]:
    """Split two prompts into shared and changed pieces.

    Words are compared bare; white space and punctuation belong to no word, so the pieces of a prompt joined
    together are the prompt. White space between two changed words is marked as well: one highlight, not two.

    Example:
        >>> highlighted("a red circle", "a blue circle")[1]
        [('a ', False), ('blue', True), (' circle', False)]
    """
    old, new = split_words(source), split_words(target)
    shared = common_places([word.bare for word in old], [word.bare for word in new])
    return (
        _segments(source, old, {place for place, _ in shared}),
        _segments(target, new, {place for _, place in shared}),
    )


def _segments(text: str, words: Sequence[Word], shared: set[int]) -> Segments:
    segments: Segments = []
    done, before = 0, False
    for place, word in enumerate(words):
        first, end = (word.start + at for at in word.core)
        changed = place not in shared
        _add(segments, text[done:first], before and changed and text[done:first].isspace())
        _add(segments, text[first:end], changed)
        done, before = end, changed
    _add(segments, text[done:], False)
    return segments


def _add(segments: Segments, piece: str, changed: bool) -> None:
    if piece and segments and segments[-1][1] == changed:
        segments[-1] = (segments[-1][0] + piece, changed)
    elif piece:
        segments.append((piece, changed))
