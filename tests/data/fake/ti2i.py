"""Fake TI2I sets: a YAML list of images with target prompts, and the mapping file of PnPInversion."""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.data.fake.pictures import save

REAL: tuple[dict[str, Any], ...] = (
    {"init_img": "/ImageNetR-TI2I/circle/toy_1.jpg", "target_prompts": ["a blue circle", "a red circle"]},
    {
        "init_img": "/ImageNetR-TI2I/star/toy_2.jpg",
        "source_prompt": "a star",
        "target_prompts": ["a star in fog"],
    },
)
GENERATED: tuple[dict[str, Any], ...] = (
    {
        "source_prompt": "a red circle on grass", "target_prompts": ["a blue circle on grass"],
        "seed": 50, "scale": 5.0, "ddim_steps": 50,
    },
)  # fmt: skip
MAPPED: dict[str, dict[str, Any]] = {
    "0": {"image_path": "ti2i_benchmark/a.png", "original_prompt": "", "editing_prompt": "a [blue] circle"},
    "1": {"image_path": "b.png", "original_prompt": "a star", "editing_prompt": "a star in fog"},
}


def make(folder: Path, records: Any = REAL, name: str = "imnetr-ti2i.yaml") -> Path:
    """Writes a set with its YAML file; returns its folder."""
    for number, image in enumerate(("circle/toy_1.jpg", "star/toy_2.jpg")):
        save(folder / image, seed=number)
    (folder / name).write_text(yaml.safe_dump(list(records) if isinstance(records, tuple) else records))
    return folder


def make_mapped(folder: Path) -> Path:
    """Writes the repackaged set; returns its folder."""
    for number, image in enumerate("ab"):
        save(folder / "annotation_images" / "ti2i_benchmark" / f"{image}.png", seed=number)
    (folder / "mapping_file_ti2i_benchmark.json").write_text(json.dumps(MAPPED))
    return folder
