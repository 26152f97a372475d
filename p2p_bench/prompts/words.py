"""Which text columns a word has."""

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from p2p_bench.errors import PromptError, nearest


@runtime_checkable
class TextTokenizer(Protocol):
    """What is needed of a tokenizer; those of CLIP, BERT and T5 in `transformers` have it."""

    model_max_length: int

    def __call__(self, text: str, **kwargs: Any) -> Any:
        """Encode; `.input_ids` ends with a special token, and begins with one or none (T5)."""


@runtime_checkable
class PromptReader(Protocol):
    """What reads the prompts of a model: the model itself, or its tokenizers before it is loaded."""

    def tokenize(
        self, text: str, truncate: bool = False, allow_empty: bool = False, role: str = "prompt"
    ) -> "TokenizedPrompt":
        """A prompt as the text encoders see it.

        Args:
            text: The prompt.
            truncate: Cut one that is too long instead of refusing it.
            allow_empty: Accept one without words.
            role: What the prompt is, for messages.

        Raises:
            PromptError: It is empty, or longer than the model reads.
        """
        ...


_APOSTROPHES = str.maketrans("\u2018\u2019\u02bc\uff07", "''''")


@dataclass(frozen=True)
class Word:
    """A space-separated word of a text.

    Attributes:
        text: The word as written, with punctuation.
        bare: What it is compared by: lower case, composed (NFC), one kind of apostrophe, no punctuation
            around it.
        start: Place of its first character in the text.
        core: Places in `text` of the first character of the bare word and of the one after its last.
    """

    text: str
    bare: str
    start: int
    core: tuple[int, int]


@dataclass(frozen=True)
class WordSpan:
    """A space-separated word of a prompt.

    Attributes:
        text: The word as written, with punctuation.
        bare: What it is compared by, see `Word`.
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
        text: The prompt, composed (NFC).
        ids: Token ids: begin (where the tokenizer has it), tokens, end, padding.
        num_tokens: Number of tokens without begin, end and padding.
        words: The words that have all their columns (every word, unless the prompt was truncated).
        truncated: Whether tokens were cut off.
        others: Ids that further text encoders are given for the same columns, one tuple each.
        front: Number of special tokens before the text: 1, or 0 for T5.
        blocks: The prompt as tokenizers read it that have text columns of their own, one behind the other;
            none where there is one. Of `joined_blocks`: ids and the columns of words are then those of all,
            everything else is the first's.
        unread: Words, bare, of which the tokenizer has no tokens, or only that of what it does not know.
    """

    text: str
    ids: tuple[int, ...]
    num_tokens: int
    words: tuple[WordSpan, ...]
    truncated: bool = False
    others: tuple[tuple[int, ...], ...] = ()
    front: int = 1
    blocks: tuple["TokenizedPrompt", ...] = ()
    unread: tuple[str, ...] = ()

    def __hash__(self) -> int:
        """That of the text, which Python keeps: prompts are keys of what is computed once per pair."""
        return hash(self.text)

    @property
    def width(self) -> int:
        """Number W of text columns, padding included."""
        return len(self.ids)

    @property
    def end(self) -> int:
        """The column of the end token; padding is behind it."""
        return self.front + self.num_tokens

    @property
    def parts(self) -> tuple["TokenizedPrompt", ...]:
        """The blocks, or the prompt itself where it has one only; columns count from 0 in each."""
        return self.blocks or (self,)

    @property
    def given(self) -> tuple[tuple[int, ...], ...]:
        """Ids that each text encoder is given: prompts that agree in all of them are one to the model."""
        return tuple(ids for part in self.parts for ids in (part.ids, *part.others))

    @property
    def encoded(self) -> tuple[int, ...]:
        """Ids of begin, tokens and end of every block, without padding."""
        return tuple(token for part in self.parts for token in part.ids[: part.end + 1])


def told_columns(prompt: TokenizedPrompt) -> tuple[int, ...]:
    """Columns of begin, tokens and end of every block: all but padding, in order."""
    columns: list[int] = []
    first = 0
    for part in prompt.parts:
        columns += range(first, first + part.end + 1)
        first += part.width
    return tuple(columns)


def joined_blocks(blocks: Sequence[TokenizedPrompt]) -> TokenizedPrompt:
    """A prompt that several tokenizers read into text columns of their own.

    A word has the columns of every block that has all of it.

    Args:
        blocks: The same prompt by each tokenizer, in the order of the columns.
    """
    first = blocks[0]
    spans: dict[int, WordSpan] = {}
    written = split_words(first.text)
    offset = 0
    for block in blocks:
        place = 0
        for word in block.words:
            while written[place].text != word.text:
                place += 1
            known = spans.get(place, WordSpan(word.text, word.bare, (), ()))
            columns, span = (
                (*before, *(column + offset for column in own))
                for before, own in ((known.columns, word.columns), (known.span, word.span))
            )
            spans[place] = WordSpan(word.text, word.bare, columns, span)
            place += 1
        offset += block.width
    return replace(
        first,
        ids=tuple(token for block in blocks for token in block.ids),
        words=tuple(spans[place] for place in sorted(spans)),
        truncated=any(block.truncated for block in blocks),
        others=(),
        blocks=tuple(blocks),
    )


def tokenize(
    prompt: str,
    tokenizer: TextTokenizer,
    truncate: bool = False,
    allow_empty: bool = False,
    role: str = "prompt",
    vocabulary: Collection[str] | None = None,
    reader: str = "the model",
) -> TokenizedPrompt:
    """Tokenize a prompt and find the columns of its words.

    Args:
        prompt: The text.
        tokenizer: Any tokenizer that puts one special token after the text, and one or none before it.
        truncate: Cut a prompt that is too long instead of refusing it.
        allow_empty: Accept a prompt without words.
        role: What the prompt is, for messages.
        vocabulary: Words that the model was trained on, if that is known: others are read in many pieces,
            and are named where a prompt is too long.
        reader: Who reads it, for messages.

    Raises:
        PromptError: The prompt is empty, longer than the model allows (by how much), or holds what the
            tokenizer reads as a mark of its own, such as the end of the text.
    """
    prompt = unicodedata.normalize("NFC", prompt)
    if not prompt.strip() and not allow_empty:
        raise PromptError(f"{role}: expected some words, got an empty prompt")
    width = tokenizer.model_max_length
    encoded = _encode(prompt, tokenizer)
    front = len(_encode("", tokenizer)) - 1
    most, num_tokens = width - front - 1, len(encoded) - front - 1
    if (mark := _mark_in(prompt, encoded[front:-1], tokenizer)) is not None:
        raise PromptError(
            f"{role} {prompt!r} holds {mark!r}, which {reader} takes for a mark of its own (begin, end or "
            "padding) and not for text; leave it out"
        )
    over = num_tokens - most
    if over > 0 and not truncate:
        raise PromptError(
            f"{role} {prompt!r} is {over} token{'s' if over > 1 else ''} too long: "
            f"it has {num_tokens}, {reader} takes {most}; shorten it, or cut it with "
            f"truncate=True (on the command line run.truncate=true){_in_pieces(prompt, vocabulary)}"
        )
    ids = tokenizer(prompt, padding="max_length", max_length=width, truncation=True).input_ids
    num_tokens = min(num_tokens, most)
    words = _words(prompt, encoded[front:-1], num_tokens, front, tokenizer)
    return TokenizedPrompt(
        prompt,
        tuple(ids),
        num_tokens,
        words,
        truncated=over > 0,
        front=front,
        unread=_unread(prompt, words, ids, over > 0, tokenizer),
    )


def occurrences(prompt: TokenizedPrompt, phrase: str) -> tuple[range, ...]:
    """Places of a word or phrase among the words of a prompt; case and punctuation around words are ignored.

    Raises:
        PromptError: The prompt does not have the phrase; names the nearest word.
    """
    places = places_of(prompt, phrase)
    if not places:
        cut = " (it was truncated)" if prompt.truncated else ""
        hint = nearest(phrase.lower(), [span.bare for span in prompt.words])
        raise PromptError(f"word {phrase!r} is not in the prompt {prompt.text!r}{cut}.{hint}")
    return places


def places_of(prompt: TokenizedPrompt, phrase: str) -> tuple[range, ...]:
    """The same, empty where the prompt does not have the phrase."""
    wanted = [word.bare for word in split_words(phrase)]
    bare = [span.bare for span in prompt.words]
    starts = [i for i in range(len(bare)) if wanted and bare[i : i + len(wanted)] == wanted]
    return tuple(range(start, start + len(wanted)) for start in starts)


def columns_of(prompt: TokenizedPrompt, word: str) -> tuple[int, ...]:
    """All columns of a word or phrase, every time it occurs; case and punctuation around words are ignored.

    Raises:
        PromptError: The prompt does not have the word; names the nearest one.
    """
    places = sorted({place for places in occurrences(prompt, word) for place in places})
    return tuple(column for place in places for column in prompt.words[place].columns)


def split_words(text: str) -> tuple[Word, ...]:
    """The space-separated words of a text; one that is only punctuation is bare as it is."""
    words = []
    for match in re.finditer(r"\S+", text):
        piece = match[0]
        letters = [place for place, character in enumerate(piece) if _is_letter(character)]
        core = (letters[0], letters[-1] + 1) if letters else (0, len(piece))
        bare = unicodedata.normalize("NFC", piece[slice(*core)]).lower().translate(_APOSTROPHES)
        words.append(Word(piece, bare, match.start(), core))
    return tuple(words)


def _is_letter(character: str) -> bool:
    """Letters, digits, the marks that belong to them, and pictures such as emoji, with their shades."""
    shade = "\U0001f3fb" <= character <= "\U0001f3ff"
    return character.isalnum() or shade or unicodedata.category(character) in ("Mn", "Mc", "Me", "So")


def unknown_words(text: str, vocabulary: Collection[str] | None) -> tuple[str, ...]:
    """Words of a text that a model was not trained on, each once, bare; none where nobody knows.

    Args:
        text: A prompt.
        vocabulary: Words that the model was trained on, bare; None where they are not known.
    """
    if vocabulary is None:
        return ()
    words = (word.bare for word in split_words(text) if any(map(_is_letter, word.text)))
    return tuple(dict.fromkeys(word for word in words if word not in vocabulary))


def quoted(words: Iterable[str]) -> str:
    """Words in quotation marks, with commas."""
    return ", ".join(map(repr, words))


def _in_pieces(text: str, vocabulary: Collection[str] | None) -> str:
    """The likely reason why a short prompt is too long; "" where there is none."""
    unknown = unknown_words(text, vocabulary)
    if not unknown:
        return ""
    return (
        f"; it is this long because the model was never trained on {quoted(unknown)} and spells them out: "
        "for such words take a checkpoint that was (model=local model.path=DIR)"
    )


def _mark_in(prompt: str, own: Sequence[int], tokenizer: TextTokenizer) -> str | None:
    """A mark of the tokenizer that is written out in a prompt and read as such; None where there is none.

    Padding by a sign that people write, as by "!" in Stable Diffusion 2, is no such mark.
    """
    for token in _marks(tokenizer).values():
        written = token.lower() in prompt.lower() and any(map(str.isalpha, token))
        if written and _id_of(token, tokenizer) in own:
            return token
    return None


def _unread(
    prompt: str, words: Sequence[WordSpan], ids: Sequence[int], cut: bool, tokenizer: TextTokenizer
) -> tuple[str, ...]:
    """Words of a prompt that its tokenizer cannot read, each once; of one that was cut, of those left."""
    unknown = _marks(tokenizer).get("unk_token")
    number = None if unknown is None else _id_of(unknown, tokenizer)
    found = [word.bare for word in words if any(ids[column] == number for column in word.columns)]
    if not cut:
        read = {word.bare for word in words}
        found += [word.bare for word in split_words(prompt) if word.bare not in read]
    return tuple(dict.fromkeys(word for word in found if any(map(_is_letter, word))))


def _marks(tokenizer: TextTokenizer) -> dict[str, str]:
    """The tokenizer's own tokens that are no text, by what they are for."""
    named: dict[str, Any] = getattr(tokenizer, "special_tokens_map", {})
    return {kind: str(token) for kind, token in named.items() if kind.endswith("_token")}


def _id_of(token: str, tokenizer: Any) -> int | None:
    number: int | None = tokenizer.convert_tokens_to_ids(token)
    return number


def _encode(text: str, tokenizer: TextTokenizer) -> list[int]:
    return list(tokenizer(text).input_ids)


def _words(
    prompt: str, own: list[int], num_tokens: int, front: int, tokenizer: TextTokenizer
) -> tuple[WordSpan, ...]:
    """Columns of each word, from the number of tokens of the prompt up to the word's ends.

    Args:
        prompt: The text.
        own: Its tokens without begin and end.
        num_tokens: How many of them the model reads.
        front: Number of columns before them.
        tokenizer: The tokenizer.
    """
    known: dict[str, list[int]] = {"": [], prompt: own}

    def end(position: int) -> int | None:
        """Number of tokens of `prompt[:position]`, if the prompt's own tokens have a boundary there."""
        # A space before a word is a part of it for T5, and no token for CLIP.
        text = prompt[:position].rstrip()
        tokens = known[text] if text in known else _encode(text, tokenizer)[front:-1]
        known[text] = tokens
        return len(tokens) if tokens == own[: len(tokens)] else None

    words = []
    first = 0
    for word in split_words(prompt):
        stop = end(word.start + len(word.text))
        if stop is None:
            raise PromptError(f"the tokens of word {word.text!r} in prompt {prompt!r} run into the next word")
        span = range(front + first, front + min(stop, num_tokens))
        before, after = (end(word.start + place) for place in word.core)
        if before is None or after is None or before >= after:  # they share tokens with what is around them
            before, after = first, stop
        first = stop
        if before < after <= num_tokens:
            columns = tuple(range(front + before, front + after))
            words.append(WordSpan(word.text, word.bare, columns, tuple(span)))
    return tuple(words)
