"""Fake pairs of InstructPix2Pix: `{i:07d}/{prompt.json, metadata.jsonl, <seed>_0.jpg, <seed>_1.jpg}`."""

import json
from pathlib import Path
from typing import Any

from tests.data.fake.pictures import save

PROMPT = {"input": "a red circle on grass", "edit": "make it blue", "output": "a blue circle on grass"}
SEEDS = (10, 9)


def make(folder: Path, prompts: tuple[Any, ...] = (PROMPT, {**PROMPT, "edit": "paint it"})) -> Path:
    """Writes a data set whose last prompt kept no picture besides those given; returns its folder."""
    for number, prompt in enumerate(prompts):
        place = folder / f"{number:07d}"
        place.mkdir(parents=True)
        (place / "prompt.json").write_text(json.dumps(prompt))
        for seed in SEEDS:
            for part in (0, 1):
                save(place / f"{seed}_{part}.jpg", seed=seed + part)
            with (place / "metadata.jsonl").open("a") as file:
                file.write(json.dumps({"seed": seed, "p2p_threshold": 0.5, "clip_sim_dir": 0.3}) + "\n")
    (folder / "0000099").mkdir()
    (folder / "0000099" / "prompt.json").write_text(json.dumps(PROMPT))
    return folder
