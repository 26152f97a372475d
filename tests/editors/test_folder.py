"""A folder of images: which picture is whose."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from p2p_bench.editors.folder import FolderOfImages
from p2p_bench.errors import ConfigError
from p2p_bench.types import EditPair


@pytest.mark.parametrize("setting", ["categories", "captioned_only"])
def test_places_are_not_counted_where_pairs_are_left_out(tmp_path: Path, setting: str) -> None:
    (tmp_path / "0.png").write_bytes(b"")
    pairs = [EditPair("b", "a cat", ("a dog",))]
    parts: Any = {"name": "mine", "pairs": lambda: pairs, "load": print}
    dataset: Any = SimpleNamespace(**parts, **{setting: True})
    with pytest.raises(ConfigError, match=rf"{{index}} counts all pairs.*dataset\.{setting} leaves some out"):
        FolderOfImages(tmp_path, "{index}").places(dataset)
    whole: Any = SimpleNamespace(**parts)
    assert list(FolderOfImages(tmp_path, "{index}").places(whole)) == [("b", tmp_path.name, 0)]
