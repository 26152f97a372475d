"""Which words an edit changes."""

import difflib

from p2p_bench.prompts.words import TokenizedPrompt


def changed_words(
    source: TokenizedPrompt, target: TokenizedPrompt
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Words of the source that the target lacks at their place, and the reverse."""
    a, b = bare_words(source), bare_words(target)
    removed: list[str] = []
    added: list[str] = []
    for tag, a_from, a_to, b_from, b_to in difflib.SequenceMatcher(a=a, b=b, autojunk=False).get_opcodes():
        if tag != "equal":
            removed += a[a_from:a_to]
            added += b[b_from:b_to]
    return tuple(dict.fromkeys(removed)), tuple(dict.fromkeys(added))


def bare_words(prompt: TokenizedPrompt) -> list[str]:
    """The prompt's words in lower case, without punctuation around them."""
    return [word.bare for word in prompt.words]
