"""T5's tokenizer: no token in front, one behind; DeepFloyd IF reads prompts in lower case."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerFast

from p2p_bench.errors import MissingWeightsError
from p2p_bench.prompts.words import TokenizedPrompt, tokenize

MAX_TOKENS = 77
"""What IF was trained with; T5 itself has no limit."""

MOST_TOKENS = 512
"""Most that a pipeline gives T5."""

_LOCK = threading.Lock()
_SPARE = 64
"""Embeddings may be padded to a multiple of this; more without a token are those of another vocabulary."""


class SharedT5Tokenizer(PreTrainedTokenizerFast):
    """T5's tokenizer for several threads: between calls the library keeps padding and cutting as state."""

    def __call__(self, text: str, **kwargs: Any) -> Any:
        """As in the library, one call at a time."""
        with _LOCK:
            return super().__call__(text, **kwargs)


class LowerT5Tokenizer(SharedT5Tokenizer):
    """The same for prompts as `IFPipeline` reads them: stripped, in lower case.

    The pipeline's `clean_caption` is not applied, as in an installation without beautifulsoup4: it removes
    parts of prompts.
    """

    def __call__(self, text: str, **kwargs: Any) -> Any:
        """As in the library, one call at a time."""
        return super().__call__(text.lower().strip(), **kwargs)


@dataclass(frozen=True, eq=False)
class T5Reader:
    """Reads prompts for a model with a T5 text encoder.

    Attributes:
        tokenizer: T5's tokenizer.
        name: What it is called in messages.
    """

    tokenizer: SharedT5Tokenizer
    name: str = "the model"

    def tokenize(
        self, text: str, truncate: bool = False, allow_empty: bool = False, role: str = "prompt"
    ) -> TokenizedPrompt:
        """See `PromptReader.tokenize`."""
        return tokenize(text, self.tokenizer, truncate, allow_empty, role, reader=self.name)


@dataclass(frozen=True)
class NoT5Reader:
    """Stands in for T5's reader in a model that does without: columns of zeros, none of them a word's.

    An edit takes them for padding, so they follow the source like padding does.

    Attributes:
        width: Number of columns.
    """

    width: int

    def tokenize(
        self, text: str, truncate: bool = False, allow_empty: bool = False, role: str = "prompt"
    ) -> TokenizedPrompt:
        """See `PromptReader.tokenize`."""
        return TokenizedPrompt(text, (0,) * self.width, 0, (), front=0)


def check_t5_tokenizer(folder: Path, name: str) -> None:
    """Sees that the tokenizer is there in the form that can be read here.

    Raises:
        MissingWeightsError: It is not; a folder with `spiece.model` alone comes with the remedy.
    """
    if (folder / "tokenizer.json").is_file():
        return
    if (folder / "spiece.model").is_file():
        raise MissingWeightsError(
            f"model {name!r}: {folder} holds spiece.model alone, which is not read here; convert it once, "
            "where sentencepiece is installed, with transformers.T5TokenizerFast.from_pretrained(FOLDER)"
            ".save_pretrained(FOLDER), which writes tokenizer.json beside it"
        )
    raise MissingWeightsError(f"model {name!r}: {folder / 'tokenizer.json'} is missing")


def load_t5_tokenizer(
    folder: Path,
    name: str,
    num_embeddings: int,
    kind: type[SharedT5Tokenizer] = LowerT5Tokenizer,
    width: int = MAX_TOKENS,
    encoder: str = "text_encoder",
) -> SharedT5Tokenizer:
    """Loads a tokenizer and sees that the text encoder has an embedding for each of its tokens.

    Args:
        folder: Its files.
        name: Name of the model, for messages.
        num_embeddings: Embeddings that the text encoder has.
        kind: How it reads prompts.
        width: Most tokens of a prompt, the one behind included.
        encoder: Folder of the text encoder, for messages.

    Raises:
        MissingWeightsError: The files are missing or cannot be read, or are of another model.
    """
    check_t5_tokenizer(folder, name)
    try:
        tokenizer: SharedT5Tokenizer = kind.from_pretrained(folder, local_files_only=True)
        ends = tuple(tokenizer("").input_ids), tokenizer.eos_token_id, tokenizer.pad_token_id
        highest = max(tokenizer.get_vocab().values(), default=-1)
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise MissingWeightsError(
            f"model {name!r}: the tokenizer in {folder} cannot be read ({str(error)[:300]}); get it again"
        ) from error
    empty, end, padding = ends
    if end is None or padding is None or empty != (end,):
        raise MissingWeightsError(
            f"model {name!r}: the tokenizer in {folder} reads an empty prompt as tokens {list(empty)}, "
            "expected its end token alone; it is not T5's, or is not whole: get it again"
        )
    if not highest < num_embeddings <= highest + _SPARE:
        raise MissingWeightsError(
            f"model {name!r}: the tokenizer in {folder} has tokens 0 to {highest}, the text encoder "
            f"{num_embeddings} embeddings (vocab_size in {encoder}/config.json); they belong to different "
            "models: get the tokenizer that the text encoder was trained with"
        )
    tokenizer.model_max_length = width
    return tokenizer


def keep_outputs_wide(encoder: nn.Module) -> None:
    """T5's feed-forward layers leave the range of half precision, so their last matrix stays in float32."""
    for name, module in encoder.named_modules():
        if name.endswith(".wo"):
            module.float()
