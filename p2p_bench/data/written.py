"""Writes pairs in the format that `p2p_bench.data.pairs` reads."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from p2p_bench.data.pairs import read_line
from p2p_bench.errors import DataError
from p2p_bench.types import EditPair


def pair_line(pair: EditPair, image: str, root: Path) -> str:
    """A pair as a line, with another source image than it had.

    All that it says is kept but what was true of its own image alone: the mask, and that its scene is
    rendered. The scene and the change that is asked for stay: they say what a picture is to show, not where.

    Args:
        pair: The pair.
        image: Path of the image, relative to the root.
        root: Folder that the path is relative to, links resolved.

    Raises:
        DataError: What the line says is not what the pair says once it is read again.
    """
    line = json.dumps(dict(_values(pair, image)), ensure_ascii=False)
    kept = replace(pair, image=root / image, mask=None, rendered=False)
    try:
        found, faults = read_line(line.encode(), 1, root)
    except UnicodeEncodeError as error:
        raise DataError(f"it is not valid Unicode text ({error.reason}), which no file holds") from error
    if faults or found is None:
        raise DataError(f"it cannot be written as a line of a JSONL file ({'; '.join(faults)})")
    if found != kept:
        raise DataError("it cannot be written as a line of a JSONL file: it would be read as another pair")
    return line


def _values(pair: EditPair, image: str) -> Iterator[tuple[str, Any]]:
    yield "id", pair.id
    yield "source_prompt", pair.source_prompt
    if len(pair.target_prompts) == 1:
        yield "target_prompt", pair.target_prompts[0]
    else:
        yield "target_prompts", list(pair.target_prompts)
    yield "image", image
    if pair.blend_words is not None:
        yield "blend_words", [list(words) for words in pair.blend_words]
    if pair.word_weights:
        yield "word_weights", dict(pair.word_weights)
    if pair.category:
        yield "category", pair.category
    for key, value in (("instruction", pair.instruction), ("seed", pair.seed), ("scene", pair.scene)):
        if value is not None:
            yield key, value
    if pair.scene_edit is not None:
        yield "edit", pair.scene_edit
