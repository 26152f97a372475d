"""Which text columns a word has."""

import re
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from p2p_bench.errors import PromptError, nearest


@runtime_checkable
class TextTokenizer(Protocol):
    """What is needed of a tokenizer; `transformers.CLIPTokenizer` has it."""

    model_max_length: int

    def __call__(self, text: str, **kwargs: Any) -> Any:
        """Encode; `.input_ids` begins and ends with one special token each."""


@dataclass(frozen=True)
class WordSpan:
    """A space-separated word of a prompt.

    Attributes:
        text: The word as written, with punctuation.
        bare: The word in lower case without punctuation around it.
        columns: Text columns of the bare word.
        span: Text columns of the word with its punctuation.
    """

    text: str
    bare: str
    columns: tuple[int, ...]
    span: tuple[int, ...]


@dataclass(frozen=True)
class TokenizedPrompt:
    """A prompt as the text encoder sees it.

    Attributes:
        text: The prompt.
        ids: Token ids: begin, tokens, end, padding.
        num_tokens: Number of tokens without begin, end and padding.
        words: The words that have columns (all of them, unless the prompt was truncated).
        truncated: Whether tokens were cut off.
    """

    text: str
    ids: tuple[int, ...]
    num_tokens: int
    words: tuple[WordSpan, ...]
    truncated: bool = False

    def __hash__(self) -> int:
        """That of the text, which Python keeps: prompts are keys of what is computed once per pair."""
        return hash(self.text)

    @property
    def width(self) -> int:
        """Number W of text columns, padding included."""
        return len(self.ids)

    @property
    def encoded(self) -> tuple[int, ...]:
        """Ids of begin, tokens and end, without padding."""
        return self.ids[: self.num_tokens + 2]


def tokenize(
    prompt: str,
    tokenizer: TextTokenizer,
    truncate: bool = False,
    allow_empty: bool = False,
    role: str = "prompt",
) -> TokenizedPrompt:
    """Tokenize a prompt and find the columns of its words.

    Args:
        prompt: The text.
        tokenizer: Any tokenizer that puts one special token before and one after the text.
        truncate: Cut a prompt that is too long instead of refusing it.
        allow_empty: Accept a prompt without words.
        role: What the prompt is, for messages.

    Raises:
        PromptError: The prompt is empty, or longer than the model allows (by how much).
    """
    if not prompt.strip() and not allow_empty:
        raise PromptError(f"{role}: expected some words, got an empty prompt")
    width = tokenizer.model_max_length
    encoded = _encode(prompt, tokenizer)
    over = len(encoded) - width
    if over > 0 and not truncate:
        raise PromptError(
            f"{role} {prompt!r} is {over} token{'s' if over > 1 else ''} too long: "
            f"it has {len(encoded) - 2}, the model takes {width - 2}; shorten it, or cut it with "
            "truncate=True (on the command line run.truncate=true)"
        )
    ids = tokenizer(prompt, padding="max_length", max_length=width, truncation=True).input_ids
    num_tokens = min(len(encoded), width) - 2
    words = _words(prompt, encoded, num_tokens, tokenizer)
    return TokenizedPrompt(prompt, tuple(ids), num_tokens, words, truncated=over > 0)


def occurrences(prompt: TokenizedPrompt, phrase: str) -> tuple[range, ...]:
    """Places of a word or phrase among the words of a prompt; case and punctuation around words are ignored.

    Raises:
        PromptError: The prompt does not have the phrase; names the nearest word.
    """
    wanted = [_bare(piece) for piece in phrase.split()]
    bare = [span.bare for span in prompt.words]
    starts = [i for i in range(len(bare)) if wanted and bare[i : i + len(wanted)] == wanted]
    if not starts:
        cut = " (it was truncated)" if prompt.truncated else ""
        hint = nearest(phrase.lower(), bare)
        raise PromptError(f"word {phrase!r} is not in the prompt {prompt.text!r}{cut}.{hint}")
    return tuple(range(start, start + len(wanted)) for start in starts)


def columns_of(prompt: TokenizedPrompt, word: str) -> tuple[int, ...]:
    """All columns of a word or phrase, every time it occurs; case and punctuation around words are ignored.

    Raises:
        PromptError: The prompt does not have the word; names the nearest one.
    """
    places = sorted({place for places in occurrences(prompt, word) for place in places})
    return tuple(column for place in places for column in prompt.words[place].columns)


def _bare(piece: str) -> str:
    """Lower case, without punctuation around it; a piece that is only punctuation stays."""
    return (re.sub(r"^[\W_]+|[\W_]+$", "", piece) or piece).lower()


def _encode(text: str, tokenizer: TextTokenizer) -> list[int]:
    return list(tokenizer(text).input_ids)


def _words(
    prompt: str, encoded: list[int], num_tokens: int, tokenizer: TextTokenizer
) -> tuple[WordSpan, ...]:
    """Columns of each word, from the number of tokens of the prompt up to the word's ends."""

    def end(position: int) -> int | None:
        """Number of tokens of `prompt[:position]`, if the prompt's own tokens have a boundary there."""
        tokens = _encode(prompt[:position], tokenizer)[1:-1]
        return len(tokens) if tokens == encoded[1 : 1 + len(tokens)] else None

    words = []
    first = 1
    for match in re.finditer(r"\S+", prompt):
        stop = end(match.end())
        if stop is None:
            raise PromptError(f"the tokens of word {match[0]!r} in prompt {prompt!r} run into the next word")
        span = range(first, min(stop, num_tokens) + 1)
        first = stop + 1
        core = re.search(r"[^\W_](?:.*[^\W_])?", match[0])
        before, after = [end(match.start() + at) for at in core.span()] if core else (None, None)
        columns = span
        if before is not None and after is not None:
            columns = range(before + 1, min(after, num_tokens) + 1)
        if columns:
            words.append(WordSpan(match[0], _bare(match[0]), tuple(columns), tuple(span)))
    return tuple(words)
