"""Textual inversion (Gal et al., arXiv 2208.01618): words that were learnt for a text encoder.

Three layouts are read: diffusers' `learned_embeds`, whose one key is the word; the web interfaces'
`emb_params`; and that of Stable Diffusion XL, `clip_l` and `clip_g`, one for each text encoder. In the latter
two the word is the file's name. In prompts case does not matter, as for all words that CLIP reads; a word
between letters or digits (`style` in `styled`) is not meant, unless it begins or ends with a mark (`<toy>s`).
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AddedToken

from p2p_bench.errors import ConfigError, MissingWeightsError
from p2p_bench.hashing import sha256_file
from p2p_bench.models.lora import weights_file
from p2p_bench.models.tokenizer import SharedTokenizer
from p2p_bench.weights import readable, refuse_damaged


@dataclass(frozen=True, eq=False)
class LearntWord:
    """A word and what it is for each text encoder.

    Attributes:
        word: As it is written in prompts.
        vectors: For each text encoder n x width: n text columns.
        sha256: Of the file.
    """

    word: str
    vectors: tuple[Tensor, ...]
    sha256: str

    @property
    def tokens(self) -> list[str]:
        """A token for each of its columns; the first is the word."""
        return [self.word, *(f"{self.word}_{place}" for place in range(1, len(self.vectors[0])))]

    @property
    def alone(self) -> bool:
        """Whether it is meant by itself only, and not as a part of longer words."""
        return re.fullmatch(r"\w(.*\w)?", self.word) is not None

    @property
    def identity(self) -> dict[str, str]:
        """What decides it, as plain values."""
        return {"word": self.word, "sha256": self.sha256}


def read_words(value: Any, name: str, widths: Sequence[int]) -> tuple[LearntWord, ...]:
    """The words of a setting: a path, or a list of paths.

    Args:
        value: The setting; None for none.
        name: Name of the model, for messages.
        widths: Of the embeddings of each text encoder.

    Raises:
        ConfigError: It is something else, or two files have one word.
        MissingWeightsError: A file is not there, no safetensors, of no layout that is known here, or made for
            other text encoders.
    """
    if value is None:
        return ()
    paths = [value] if isinstance(value, str | Path) else list(value)
    if not all(isinstance(path, str | Path) for path in paths):
        raise ConfigError(f"model.embeddings: expected a path or a list of paths, got {value}")
    words = tuple(_word(weights_file(path, name, "textual inversion"), name, widths) for path in paths)
    if len({one.word.lower() for one in words}) < len(words):
        raise ConfigError("model.embeddings: two files have the same word; rename one of them")
    tokens = Counter(token.lower() for one in words for token in one.tokens)
    if shared := [token for token, count in tokens.items() if count > 1]:
        raise ConfigError(
            f"model.embeddings: {shared[0]!r} is the word of a file, and what a further vector of another is "
            "called; rename one of them"
        )
    return words


def add_tokens(tokenizer: Any, words: Sequence[LearntWord], name: str) -> None:
    """Teaches a tokenizer the words.

    Raises:
        ConfigError: It knows one of them, or is none of CLIP's.
    """
    if not words:
        return
    if not isinstance(tokenizer, SharedTokenizer):
        raise ConfigError(f"model {name!r}: embeddings: words can be learnt for CLIP's text encoders only")
    known = tokenizer.get_vocab()
    for one in words:
        lower = one.word.lower()
        there = {one.word, lower, f"{lower}</w>", *one.tokens} & known.keys()
        if there or not one.word.strip() or " " in one.word:
            raise ConfigError(
                f"model {name!r}: embeddings: {one.word!r} is a token already, or no word; rename the file, "
                "or the key in it, such as <mine>"
            )
        tokenizer.add_tokens(
            [AddedToken(token, normalized=True, single_word=one.alone) for token in one.tokens]
        )
    # One word in a prompt stands for all of its columns.
    own = {one.word.lower(): " ".join(one.tokens) for one in words}
    tokenizer.written_out = {**tokenizer.written_out, **own}
    tokenizer.alone |= {one.word.lower() for one in words if one.alone}


@torch.no_grad()
def add_embeddings(encoder: Any, place: int, tokenizer: Any, words: Sequence[LearntWord]) -> None:
    """Gives a text encoder what the words are for it.

    Args:
        encoder: The text encoder.
        place: Which of the model's.
        tokenizer: Its tokenizer, which knows the words.
        words: The words.
    """
    if not words:
        return
    table = encoder.get_input_embeddings()
    ids = [tokenizer.convert_tokens_to_ids(token) for one in words for token in one.tokens]
    weight = torch.zeros(max(len(table.weight), max(ids) + 1), table.weight.shape[1]).to(table.weight)
    weight[: len(table.weight)] = table.weight
    weight[ids] = torch.cat([one.vectors[place] for one in words]).to(weight)
    table.weight, table.num_embeddings = nn.Parameter(weight, requires_grad=False), len(weight)
    # Configurations of old take the highest id for the end of the text, which a new word's now is.
    inner = getattr(encoder, "text_model", encoder)
    if hasattr(inner, "eos_token_id"):
        inner.eos_token_id = tokenizer.eos_token_id


def _word(file: Path, name: str, widths: Sequence[int]) -> LearntWord:
    where = f"model {name!r}, textual inversion {file.name}"
    state = readable(lambda: load_file(file), where, file)
    refuse_damaged(where, state.items())
    keys = list(state)
    if sorted(keys) == ["clip_g", "clip_l"]:
        word, found = file.stem, [state["clip_l"], state["clip_g"]]
    elif len(keys) == 1 and keys[0] in ("emb_params", "clip_l"):
        word, found = file.stem, [state[keys[0]]]
    elif len(keys) == 1:
        word, found = keys[0], [state[keys[0]]]
    else:
        raise MissingWeightsError(
            f"{where}: keys {', '.join(sorted(keys)[:4])} are of a layout that is not known here; expected "
            "the word alone, emb_params, or clip_l and clip_g"
        )
    # Prompts are composed (NFC) before they are read; names of files are not everywhere.
    word = unicodedata.normalize("NFC", word)
    if any(one.ndim not in (1, 2) or not one.numel() or not one.is_floating_point() for one in found):
        shapes = ", ".join(f"{tuple(one.shape)} of {str(one.dtype).removeprefix('torch.')}" for one in found)
        raise MissingWeightsError(
            f"{where}: it holds {shapes}, expected one vector or a matrix of some; get it again"
        )
    vectors = [one.float() if one.ndim == 2 else one.float()[None] for one in found]
    if [one.shape[-1] for one in vectors] != list(widths) or len({len(one) for one in vectors}) > 1:
        raise MissingWeightsError(
            f"{where}: it was made for text encoders of widths {[one.shape[-1] for one in vectors]}, this "
            f"model has {list(widths)}"
        )
    return LearntWord(word, tuple(vectors), sha256_file(file))
