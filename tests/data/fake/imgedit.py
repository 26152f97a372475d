"""Fake ImgEdit-Bench: `Basic/basic_edit.json`, whose `id` is the path of a shared image."""

import json
from pathlib import Path
from typing import Any

from tests.data.fake.pictures import save

RECORDS: dict[str, Any] = {
    "1082": {"id": "animal/a.jpg", "prompt": "make it blue", "edit_type": "adjust"},
    "673": {"id": "animal/a.jpg", "prompt": "add fog", "edit_type": "background"},
}


def make(folder: Path, records: dict[str, Any] = RECORDS) -> Path:
    """Writes a set; returns its folder."""
    save(folder / "animal" / "a.jpg", seed=1)
    (folder / "Basic").mkdir(exist_ok=True)
    (folder / "Basic" / "basic_edit.json").write_text(json.dumps(records))
    return folder
