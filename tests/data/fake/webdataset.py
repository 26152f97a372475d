"""Fake WebDataset shards: `shard-000000.tar` with the image, the mask and the JSON of each sample."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.data.fake.pictures import encoded, picture
from tests.data.fake.tables import white_left

PROMPTS = {"source_prompt": "a red circle on grass", "target_prompt": "a blue circle on grass", "width": 64}


def sample(key: str, seed: int, **changes: Any) -> dict[str, bytes]:
    """The members of a sample; one that is None is left out."""
    members: dict[str, Any] = {
        "png": encoded(picture(64, seed)), "mask.png": white_left()["bytes"], "json": PROMPTS, **changes,
    }  # fmt: skip
    return {
        f"{key}.{part}": content if isinstance(content, bytes) else json.dumps(content).encode()
        for part, content in members.items()
        if content is not None
    }


def write(path: Path, members: Mapping[str, bytes], mode: str = "w") -> Path:
    """Writes an archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]  # modes are texts
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def make(folder: Path) -> Path:
    """Writes two shards; returns their folder."""
    write(folder / "shard-000000.tar", {**sample("one", 1), **sample("in/two", 2, **{"mask.png": None})})
    write(folder / "shard-000001.tar", sample("three", 3))
    return folder
