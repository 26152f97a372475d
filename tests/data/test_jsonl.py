"""The JSONL data set and the data module that hands its pairs out."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from p2p_bench.data import JsonlPairs, LoadedPair, PairDataModule, PairDataset, load_pair
from p2p_bench.errors import ConfigError, DataError


def make_set(folder: Path) -> Path:
    """Pairs with image and mask, a missing image, a wrong mask, a corrupt image, and from noise."""
    Image.fromarray(np.full((8, 16, 3), 255, np.uint8)).save(folder / "good.png")
    noise = np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "corrupt.png")
    mask = np.zeros((8, 16), np.uint8)
    mask[:, 4:8] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    Image.fromarray(mask[:4]).save(folder / "small_mask.png")
    (folder / "corrupt.png").write_bytes((folder / "corrupt.png").read_bytes()[:200])
    lines = [
        {"id": "good", "image": "good.png", "mask": "mask.png"},
        {"id": "missing", "image": "none.png"},
        {"id": "masked", "image": "good.png", "mask": "small_mask.png"},
        {"id": "corrupt", "image": "corrupt.png"},
        {"id": "noise"},
    ]
    path = folder / "my_pairs.jsonl"
    path.write_text("\n".join(json.dumps({"source": "a", "target": "b", **line}) for line in lines))
    return path


def test_pairs_and_limit(tmp_path: Path) -> None:
    dataset: PairDataset = JsonlPairs(make_set(tmp_path))
    assert isinstance(dataset, PairDataset)
    assert dataset.name == "my_pairs"
    assert [pair.id for pair in dataset.pairs()] == ["good", "missing", "masked", "corrupt", "noise"]
    assert [pair.id for pair in JsonlPairs(tmp_path / "my_pairs.jsonl", limit=2).pairs()] == [
        "good",
        "missing",
    ]
    with pytest.raises(ConfigError, match=r"dataset\.limit: expected at least 1"):
        JsonlPairs(tmp_path / "my_pairs.jsonl", limit=0).pairs()


def test_load_crops_image_and_mask_alike(tmp_path: Path) -> None:
    dataset = JsonlPairs(make_set(tmp_path))
    pixels = dataset.load(dataset.pairs()[0], (8, 8))
    assert pixels.image is not None
    assert torch.equal(pixels.image, torch.ones(3, 8, 8))
    assert pixels.mask is not None
    assert torch.equal(pixels.mask[0], torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0]))
    assert pixels.answer is None
    strict = JsonlPairs(tmp_path / "my_pairs.jsonl", fit="error")
    with pytest.raises(DataError, match=r"dataset\.fit in a run\) to crop"):
        strict.load(strict.pairs()[0], (8, 8))


def test_a_bad_file_is_an_error_of_its_pair(tmp_path: Path) -> None:
    dataset = JsonlPairs(make_set(tmp_path))
    loaded = [load_pair(dataset, pair, (8, 8)) for pair in dataset.pairs()]
    assert [pair.error is None for pair in loaded] == [True, False, False, False, True]
    assert "none.png: no such image file" in str(loaded[1].error)
    assert "the mask is 16 x 4 pixels, its image 16 x 8" in str(loaded[2].error)
    assert "corrupt.png: the image is damaged" in str(loaded[3].error)
    assert loaded[4].image is None


def test_all_images_missing_stops_before_the_run(tmp_path: Path) -> None:
    path = make_set(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(DataError, match=r"none of its 4 images exists, .*dataset\.root"):
        JsonlPairs(path, root=tmp_path / "elsewhere").pairs()


def test_module_keeps_order_and_drops_nothing(tmp_path: Path) -> None:
    dataset = JsonlPairs(make_set(tmp_path))
    batches = list(PairDataModule(dataset, batch_size=2, size=(8, 8)).test_dataloader())
    assert [[loaded.pair.id for loaded in batch] for batch in batches] == [
        ["good", "missing"],
        ["masked", "corrupt"],
        ["noise"],
    ]
    assert isinstance(batches[0], list)
    assert isinstance(batches[0][0], LoadedPair)


def test_module_with_pairs_of_its_own(tmp_path: Path) -> None:
    dataset = JsonlPairs(make_set(tmp_path))
    left = [dataset.pairs()[4], dataset.pairs()[0]]
    (batch,) = PairDataModule(dataset, batch_size=8, size=(8, 8), pairs=left).test_dataloader()
    assert [loaded.pair.id for loaded in batch] == ["noise", "good"]
    with pytest.raises(ConfigError, match="batch_size"):
        PairDataModule(dataset, batch_size=0, size=(8, 8))
