"""Which words two prompts do not share, for highlighting."""

import difflib
import re

Segments = list[tuple[str, bool]]
"""Text in pieces, each with True where the other prompt lacks it."""


def changed_words(source: str, target: str) -> tuple[Segments, Segments]:
    """Split two prompts into shared and changed pieces.

    Words are compared without regard to case; white space belongs to no word, so the pieces of a
    prompt joined together are the prompt.

    Example:
        >>> changed_words("a red circle", "a blue circle")[1]
        [('a ', False), ('blue', True), (' circle', False)]
    """
    a, b = re.findall(r"\s+|[^\s\w]|\w+", source), re.findall(r"\s+|[^\s\w]|\w+", target)
    words_a = [(i, word) for i, word in enumerate(a) if not word.isspace()]
    words_b = [(i, word) for i, word in enumerate(b) if not word.isspace()]
    matcher = difflib.SequenceMatcher(
        a=[word.lower() for _, word in words_a], b=[word.lower() for _, word in words_b], autojunk=False
    )
    same_a: set[int] = set()
    same_b: set[int] = set()
    for start_a, start_b, size in matcher.get_matching_blocks():
        same_a.update(words_a[start_a + k][0] for k in range(size))
        same_b.update(words_b[start_b + k][0] for k in range(size))
    return _segments(a, same_a), _segments(b, same_b)


def _segments(tokens: list[str], same: set[int]) -> Segments:
    segments: Segments = []
    for i, token in enumerate(tokens):
        if token.isspace():  # between two changed words it is changed as well: one highlight, not two
            last = i == len(tokens) - 1
            changed = bool(segments) and segments[-1][1] and not last and (i + 1) not in same
        else:
            changed = i not in same
        if segments and segments[-1][1] == changed:
            segments[-1] = (segments[-1][0] + token, changed)
        else:
            segments.append((token, changed))
    return segments
