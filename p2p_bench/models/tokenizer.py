"""Tokenizers, as the models that they go with can use them."""

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers import BertTokenizer, CLIPTokenizer

from p2p_bench.errors import MissingWeightsError
from p2p_bench.models.files import read_json
from p2p_bench.prompts.words import TokenizedPrompt, tokenize

_LOCK = threading.Lock()
_UNSEEN = "\N{PENGUIN}"
"""What small vocabularies do not hold."""
_SPARE = 64
"""Embeddings may be padded to a multiple of this; more without a token are those of another vocabulary."""


class SharedTokenizer(CLIPTokenizer):
    """CLIP's tokenizer for several threads: between calls the library keeps padding and cutting as state.

    Attributes:
        written_out: What is read in the place of words that were learnt, by the word in lower case; see
            `textual_inversion`.
        alone: Those of them that are no part of longer words.
    """

    written_out: Mapping[str, str] = MappingProxyType({})
    alone: frozenset[str] = frozenset()

    def __call__(self, text: Any, *args: Any, **kwargs: Any) -> Any:
        """As in the library, one call at a time."""
        if self.written_out and isinstance(text, str):
            # The longest first, since a word may begin another; in any case, as CLIP reads all words.
            words = sorted(self.written_out, key=len, reverse=True)
            pattern = re.compile("|".join(map(self._pattern, words)), re.IGNORECASE)
            text = pattern.sub(lambda found: self.written_out.get(found[0].lower(), found[0]), text)
        with _LOCK:
            return super().__call__(text, *args, **kwargs)

    def _pattern(self, word: str) -> str:
        return rf"(?<!\w){re.escape(word)}(?!\w)" if word in self.alone else re.escape(word)


class SharedBertTokenizer(BertTokenizer):
    """BERT's word pieces, likewise."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As in the library, one call at a time."""
        with _LOCK:
            return super().__call__(*args, **kwargs)


@dataclass(frozen=True, eq=False)
class TokenizerReader:
    """Reads prompts for a text encoder whose tokenizer puts one token before the text and one after it.

    Attributes:
        tokenizer: CLIP's tokenizer, or BERT's.
        vocabulary: Words that the model was trained on; None where they are not known.
        name: What it is called in messages.
    """

    tokenizer: CLIPTokenizer | BertTokenizer
    vocabulary: frozenset[str] | None = None
    name: str = "the model"

    def tokenize(
        self, text: str, truncate: bool = False, allow_empty: bool = False, role: str = "prompt"
    ) -> TokenizedPrompt:
        """See `PromptReader.tokenize`."""
        return tokenize(text, self.tokenizer, truncate, allow_empty, role, self.vocabulary, self.name)


def clip_columns(folders: Sequence[Path], most: Sequence[int], name: str) -> int:
    """Text columns that the pipelines of diffusers give CLIP's text encoders: the tokenizers' own lengths.

    Some published tokenizers state no length, or one that the text encoder does not have: then it is the
    encoder's.

    Args:
        folders: Of the tokenizers.
        most: Tokens that the encoder of each reads.
        name: Name of the model, for messages.

    Raises:
        MissingWeightsError: A file cannot be read, or the encoders read different numbers.
    """
    columns = []
    for folder, own in zip(folders, most, strict=True):
        file = folder / "tokenizer_config.json"
        said = read_json(file, name).get("model_max_length") if file.is_file() else None
        known = isinstance(said, int) and not isinstance(said, bool) and said > len(("begin", "end"))
        columns.append(min(said, own) if known and said is not None else own)
    if len(set(columns)) > 1:
        raise MissingWeightsError(
            f"model {name!r}: its tokenizers read {' and '.join(map(str, columns))} tokens (model_max_length "
            f"in {folders[0]} and the others), but share text columns; get the checkpoint again"
        )
    return columns[0]


def load_tokenizer(
    folder: Path, name: str, max_tokens: int, num_embeddings: int, encoder: str = "text_encoder"
) -> SharedTokenizer:
    """Loads CLIP's tokenizer and sees that the text encoder has an embedding for each of its tokens.

    Args:
        folder: Its files.
        name: Name of the model, for messages.
        max_tokens: Tokens of a prompt, see `clip_columns`.
        num_embeddings: Embeddings that it has.
        encoder: Its folder, for messages.

    Raises:
        MissingWeightsError: The files cannot be read, or are of another model.
    """
    tokenizer: SharedTokenizer = _read(SharedTokenizer, folder, name)
    _check_tokens(tokenizer, folder, name, num_embeddings, encoder, ("bos", "eos", "pad"))
    if lost := _without_merge(folder, tokenizer):
        raise MissingWeightsError(
            f"model {name!r}: {folder / 'merges.txt'} lacks the merges of {len(lost)} tokens of vocab.json, "
            f"such as {lost[0]!r}, so prompts would be spelt out; get it again"
        )
    tokenizer.model_max_length = max_tokens
    _check_unknown(tokenizer, folder, name)
    tokenizer.written_out = _learnt_words(tokenizer)
    return tokenizer


def _learnt_words(tokenizer: CLIPTokenizer) -> dict[str, str]:
    """Words of several tokens that a tokenizer was saved with, as diffusers names them: word, word_1, ..."""
    added, found = tokenizer.added_tokens_encoder, {}
    for word in added:
        tokens = [word, *takewhile(added.__contains__, (f"{word}_{place}" for place in count(1)))]
        if len(tokens) > 1:
            found[word.lower()] = " ".join(tokens)
    return found


def load_bert_tokenizer(
    folder: Path, name: str, max_tokens: int, num_embeddings: int, encoder: str = "bert"
) -> SharedBertTokenizer:
    """Loads BERT's tokenizer, as `load_tokenizer` does CLIP's.

    Raises:
        MissingWeightsError: The files cannot be read, or are of another model.
    """
    tokenizer: SharedBertTokenizer = _read(SharedBertTokenizer, folder, name)
    _check_tokens(tokenizer, folder, name, num_embeddings, encoder, ("cls", "sep", "pad"))
    tokenizer.model_max_length = max_tokens
    _check_unknown(tokenizer, folder, name)
    return tokenizer


def _read(kind: Any, folder: Path, name: str) -> Any:
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise MissingWeightsError(
            f"model {name!r}: the tokenizer in {folder} cannot be read ({str(error)[:300]}); get it again"
        ) from error


def _check_tokens(
    tokenizer: Any, folder: Path, name: str, num_embeddings: int, encoder: str, special: tuple[str, ...]
) -> None:
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if not highest < num_embeddings <= highest + _SPARE:
        raise MissingWeightsError(
            f"model {name!r}: the tokenizer in {folder} has tokens 0 to {highest}, the text encoder "
            f"{num_embeddings} embeddings (vocab_size in {encoder}/config.json); they belong to "
            "different models: get the tokenizer that the text encoder was trained with"
        )
    for kind in special:
        if not isinstance(getattr(tokenizer, f"{kind}_token_id"), int):
            raise MissingWeightsError(
                f"model {name!r}: the tokenizer in {folder} has no {kind} token; it is not the "
                "family's, or its tokenizer_config.json is not whole: get it again"
            )


def _check_unknown(tokenizer: Any, folder: Path, name: str) -> None:
    """Sees that a tokenizer reads what it does not know, and does not fail."""
    try:
        len(tokenizer.all_special_ids), tokenizer(_UNSEEN)
    except Exception as error:  # as in `_read`
        raise MissingWeightsError(
            f"model {name!r}: the tokenizer in {folder} fails at letters that it does not know "
            f"({str(error)[:100]}); unk_token in tokenizer_config.json has to be one of its tokens: get it "
            "again"
        ) from error


def _without_merge(folder: Path, tokenizer: CLIPTokenizer) -> list[str]:
    """Tokens of several letters that no merge makes, where the merges are read from `merges.txt`."""
    file = folder / "merges.txt"
    if (folder / "tokenizer.json").is_file() or not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8").splitlines()
    made = {"".join(line.split()) for line in lines if not line.startswith("#version")}
    others = made | set(tokenizer.all_special_tokens) | set(tokenizer.added_tokens_encoder)
    several = (token for token in tokenizer.get_vocab() if len(token.removesuffix("</w>")) > 1)
    return sorted(token for token in several if token not in others)
