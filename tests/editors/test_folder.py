"""A folder of images: which picture is whose."""

import os
import unicodedata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from p2p_bench.editors.folder import FolderOfImages
from p2p_bench.editors.found import Found, most_common_size
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


def pairs_of(*ids: str) -> Any:
    """A data set of pairs with these ids."""
    pairs = [EditPair(id, "a cat", ("a dog",)) for id in ids]
    return SimpleNamespace(name="mine", pairs=lambda: pairs, load=print)


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_no_file_is_that_of_two_edits_by_two_names(tmp_path: Path) -> None:
    write(tmp_path, "cat.png", "dog.png")
    found = FolderOfImages(tmp_path).places(pairs_of("cat", "cat.png", "dog"))
    told = {key[0]: one for key, one in found.items()}
    assert "cat would be that of 2 edits" in str(told["cat"])
    assert "cat.png would be that of 2 edits" in str(told["cat.png"])
    assert isinstance(told["dog"], Found)


def test_letters_may_be_composed_or_not(tmp_path: Path) -> None:
    apart = unicodedata.normalize("NFD", "caf\u00e9")
    write(tmp_path, f"{apart}/{apart}.png", "b/caf\u00e9.png", f"b/{apart}.jpg")
    dataset = pairs_of("caf\u00e9")
    names = FolderOfImages(tmp_path, "{variant}/{id}").variants_there(dataset)
    assert names == ("b", "caf\u00e9")
    found = FolderOfImages(tmp_path, "{variant}/{id}", names).places(dataset)
    assert isinstance(found["caf\u00e9", "caf\u00e9", 0], Found)
    assert "there are 2 pictures of it" in str(found["caf\u00e9", "b", 0])


def test_variants_are_what_is_left_beside_an_edits_own_name(tmp_path: Path) -> None:
    write(tmp_path, "a_1_mine.png", "a_mine.png", "a_x_other.png", "a_x_.png", "b.png")
    dataset = pairs_of("a_1", "a_x", "b")
    assert FolderOfImages(tmp_path, "{id}_{variant}").variants_there(dataset) == ("mine", "other")
    write(tmp_path, "m/m_a_1.png", "m/n_a_1.png", "o/o_b.jpg")
    assert FolderOfImages(tmp_path, "{variant}/{variant}_{id}").variants_there(dataset) == ("m", "o")
    assert FolderOfImages(tmp_path, "{variant}/{variant}_{id}.jpg").variants_there(dataset) == ("o",)


def test_what_is_no_edits_is_told_by_its_variant(tmp_path: Path) -> None:
    write(tmp_path / "in", "a/1.png", "b/1.png", "b/1.jpg", "c/7.png", "c/8.png", ".d/1.png")
    write(tmp_path / "far", "1.png")
    (tmp_path / "in" / "e").symlink_to(tmp_path / "far")
    dataset = pairs_of("1")
    names = FolderOfImages(tmp_path / "in", "{variant}/{id}").variants_there(dataset)
    assert names == ("a", "b"), "what is there twice is an error, and not left out"
    editor = FolderOfImages(tmp_path / "in", "{variant}/{id}", names)
    unused = editor.unused(editor.places(dataset))
    assert editor.left_out(unused) == {"c": ["c/7.png", "c/8.png"]}
    assert editor.linked_folders() == ["e"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "f").symlink_to(tmp_path / "far")
    with pytest.raises(ConfigError, match=r"holds no pictures .* links to folders are not entered \('f'\)"):
        FolderOfImages(tmp_path / "empty").places(dataset)


def test_a_folder_that_cannot_be_read_is_not_passed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "1.png", "sub/2.png")
    scan = os.scandir

    def refused(path: Any) -> Any:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(ConfigError, match=r"sub: the folder cannot be read \(Permission denied\)"):
        FolderOfImages(tmp_path).places(pairs_of("1"))


def test_of_sizes_that_are_as_common_the_largest_counts() -> None:
    assert most_common_size({(32, 32): 2, (48, 48): 2, (64, 64): 1}) == (48, 48)
    assert most_common_size({(48, 48): 1, (32, 32): 2}) == (32, 32)
