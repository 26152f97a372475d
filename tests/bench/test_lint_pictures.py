"""Images and masks of a data set: headers, equal files, and masks that divide nothing."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from p2p_bench.bench.lint_pictures import BORDER, area_summary, lint_headers, lint_pixels
from p2p_bench.data.base import MASK_NOTES
from p2p_bench.data.jsonl import JsonlPairs
from p2p_bench.types import EditPair
from tests.app.command import write_pairs


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def noise(seed: int, *size: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3))


def test_headers_tell_sizes_broken_files_and_equal_ones(tmp_path: Path) -> None:
    one, other = save(tmp_path / "1.png", noise(0, 8, 12)), save(tmp_path / "2.png", noise(1, 8, 12))
    again = save(tmp_path / "3.png", noise(0, 8, 12))
    broken, table = tmp_path / "4.png", tmp_path / "5.parquet"
    broken.write_bytes(b"no picture")
    table.write_bytes(b"many pictures")
    paths = {"a": one, "b": other, "c": again, "d": broken, "e": table, "f": one, "g": tmp_path / "none.png"}
    found = lint_headers([EditPair(name, "s", ("t",), image=path) for name, path in paths.items()])
    assert found.sizes == {"12 x 8": 3}
    ((pair, reason),) = found.errors
    assert pair == "d"
    assert "4.png" in reason
    # Two edits of one file are no slip.
    assert found.warnings == [("c", "its image is the same file as that of pair 'a'")]


def test_a_mask_of_another_size_is_told_from_its_header(tmp_path: Path) -> None:
    image, mask = save(tmp_path / "i.png", noise(0, 8, 12)), save(tmp_path / "m.png", np.zeros((8, 8)))
    ((pair, reason),) = lint_headers([EditPair("a", "s", ("t",), image=image, mask=mask)]).errors
    assert pair == "a"
    assert "the mask is 8 x 8 pixels, its image 12 x 8" in reason


@pytest.mark.parametrize("kind", ["part", "empty", "full", "border", "line"])
def test_masks_are_looked_at(tmp_path: Path, kind: str) -> None:
    mask = np.zeros((16, 16))
    mask[{"part": np.s_[4:8], "empty": np.s_[:0], "full": np.s_[:], "border": [0, -1], "line": 1}[kind]] = 255
    save(tmp_path / "i.png", noise(0, 16, 16))
    save(tmp_path / "m.png", mask)
    line = {"id": "a", "source": "s", "target": "t", "image": "i.png", "mask": "m.png"}
    dataset = JsonlPairs(write_pairs(tmp_path / "pairs.jsonl", [line]))
    found = lint_pixels(dataset, dataset.pairs(), (16, 16))
    told = {"empty": MASK_NOTES["empty"], "full": MASK_NOTES["full"], "border": BORDER}
    assert found.warnings == ([("a", told[kind])] if kind in told else [])
    assert found.masks == {kind if kind in ("empty", "full") else "part": 1}
    assert found.areas == [pytest.approx((mask > 0).mean())]


def test_areas_are_summed_up() -> None:
    assert area_summary([]) == {}
    assert area_summary([0.1, 0.5, 0.2]) == {"min": 0.1, "median": 0.2, "max": 0.5}
