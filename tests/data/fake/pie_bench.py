"""Fake PIE-Bench: `mapping_file.json` beside `annotation_images/`, ids of 12 digits, type 0 lying flat."""

import json
from pathlib import Path
from typing import Any

from tests.data.fake.pictures import save

LEFT_HALF = [number for row in range(512) for number in (row * 512, 256)]


def record(**changes: Any) -> dict[str, Any]:
    """One entry of the mapping file."""
    return {
        "image_path": "0_random_140/000000000000.jpg",
        "original_prompt": "a [red] circle on grass",
        "editing_prompt": "a [blue] circle on grass",
        "editing_instruction": "make the circle blue",
        "editing_type_id": "0",
        "blended_word": "red blue",
        "mask": LEFT_HALF,
        **changes,
    }


def records() -> dict[str, dict[str, Any]]:
    """Three edits: of a word, of an object in the deeper folders, of style without blend words and mask."""
    deep = "1_change_object_80/1_artificial/1_animal/111000000000.jpg"
    return {
        "000000000000": record(),
        "111000000000": record(
            image_path=deep,
            editing_type_id="1",
            original_prompt="a [circle] on sand",
            editing_prompt="a [square] on sand",
            blended_word="circle square",
            mask=[0, 512, 1024, 100],
        ),
        "911000000000": record(
            image_path="9_change_style_80/1_artificial/1_animal/911000000000.jpg",
            editing_type_id="9",
            original_prompt="a green star",
            editing_prompt="a green star in fog",
            blended_word="",
            mask=[0, 512 * 512],
        ),
    }


def make(folder: Path, entries: dict[str, dict[str, Any]] | None = None, side: int = 512) -> Path:
    """Writes a data set; returns its folder."""
    entries = records() if entries is None else entries
    for number, entry in enumerate(entries.values()):
        save(folder / "annotation_images" / str(entry["image_path"]), side, seed=number)
    (folder / "mapping_file.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder
