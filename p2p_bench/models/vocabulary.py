"""The words that a model was trained on, where its checkpoint says so."""

import difflib
import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from p2p_bench.errors import ConfigError
from p2p_bench.models.files import read_json
from p2p_bench.models.spec import ModelSpec
from p2p_bench.prompts.words import unknown_words

log = logging.getLogger(__name__)

VOCABULARY_FILE = "caption_words.json"
"""Beside `model_index.json`: `{"words": [...]}`, every word of the captions that the model was trained on.

It decides no number, so it is no part of the checksum. A checkpoint without it, as most are, says nothing.
"""


def read_vocabulary(directory: Path, name: str) -> frozenset[str] | None:
    """The words of a checkpoint, None where it does not list them.

    Args:
        directory: The checkpoint.
        name: Name of the model, for the message.

    Raises:
        ConfigError: The file does not hold what it should.
    """
    file = directory / VOCABULARY_FILE
    if not file.is_file():
        return None
    words = read_json(file, name).get("words")
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise ConfigError(f'model {name!r}: {file} should hold {{"words": ["a", ...]}}; correct or remove it')
    return frozenset(words)


def write_vocabulary(directory: Path, words: Iterable[str]) -> None:
    """Lists the words of a checkpoint in it."""
    text = json.dumps({"words": sorted(set(words))}, ensure_ascii=False) + "\n"
    (directory / VOCABULARY_FILE).write_text(text, encoding="utf-8")


def never_seen(spec: ModelSpec, prompts: Iterable[str]) -> tuple[str, ...]:
    """Words of some prompts that a model was not trained on, each once; none where nobody knows."""
    return tuple(dict.fromkeys(word for prompt in prompts for word in unknown_words(prompt, spec.vocabulary)))


def never_seen_message(spec: ModelSpec, words: Iterable[str]) -> str:
    """What a user should know of such words, in a sentence or two.

    Args:
        spec: Facts about a model with a vocabulary.
        words: Words that it was not trained on, at least one.
    """
    known = sorted(spec.vocabulary or ())
    named = ", ".join(repr(word) + _near(word, known) for word in words)
    return (
        f"model {spec.name!r} was never trained on {named}, so its pictures cannot follow that; "
        f"it knows {len(known)} words: {', '.join(known)}. For others, take a checkpoint that was trained on "
        "them: model=local model.path=DIR"
    )


def warn_never_seen(spec: ModelSpec, prompts: Iterable[str]) -> None:
    """Warns of words in some prompts that a model was not trained on."""
    unknown = never_seen(spec, prompts)
    if unknown:
        log.warning("%s", never_seen_message(spec, unknown))


def _near(word: str, known: Sequence[str]) -> str:
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.75)
    return f" (did you mean {match[0]!r}?)" if match else ""
