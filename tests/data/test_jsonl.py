"""The JSONL data set and the batches that hand its pairs out."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from p2p_bench.data import JsonlPairs, LoadedPair, PairDataset, fit_mask, load_pair, pair_batches
from p2p_bench.data.images import _part
from p2p_bench.errors import ConfigError, DataError
from p2p_bench.metrics.base import EditView, Undefined
from p2p_bench.metrics.masks import divided
from p2p_bench.types import EditPair


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
        JsonlPairs(tmp_path / "my_pairs.jsonl", limit=0)


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


def test_batches_keep_the_order_and_drop_nothing(tmp_path: Path) -> None:
    dataset = JsonlPairs(make_set(tmp_path))
    batches = list(pair_batches(dataset, dataset.pairs(), batch_size=2, size=(8, 8)))
    assert [[loaded.pair.id for loaded in batch] for batch in batches] == [
        ["good", "missing"],
        ["masked", "corrupt"],
        ["noise"],
    ]
    assert isinstance(batches[0], list)
    assert isinstance(batches[0][0], LoadedPair)


def test_batches_of_some_pairs(tmp_path: Path) -> None:
    dataset = JsonlPairs(make_set(tmp_path))
    left = [dataset.pairs()[4], dataset.pairs()[0]]
    (batch,) = pair_batches(dataset, left, batch_size=8, size=(8, 8))
    assert [loaded.pair.id for loaded in batch] == ["noise", "good"]
    with pytest.raises(ConfigError, match="batch_size"):
        pair_batches(dataset, left, batch_size=0, size=(8, 8))


def masked_set(folder: Path, mask: np.ndarray, fit: str = "crop") -> JsonlPairs:
    """One pair with an image of the mask's size."""
    Image.fromarray(np.full((*mask.shape, 3), 90, np.uint8)).save(folder / "image.png")
    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "mask.png")
    path = folder / "masked.jsonl"
    path.write_text(json.dumps({"source": "a", "target": "b", "image": "image.png", "mask": "mask.png"}))
    return JsonlPairs(path, fit=fit)


@pytest.mark.parametrize(
    ("columns", "fit", "state"),
    [
        (slice(0, 60), "crop", "lost"),
        (slice(0, 60), "pad", "part"),
        (slice(0, 60), "resize", "part"),
        (slice(0, 70), "crop", "part"),
        (slice(60, 140), "crop", "full"),
        (slice(60, 140), "resize", "part"),
        (slice(0, 0), "crop", "empty"),
        (slice(0, 192), "pad", "part"),
        (slice(0, 192), "resize", "full"),
    ],
)
def test_a_mask_that_does_not_divide_its_image_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, columns: slice, fit: str, state: str
) -> None:
    """The kept middle of 192 x 64 pixels is columns 64 to 127."""
    mask = np.zeros((64, 192), bool)
    mask[:, columns] = True
    dataset = masked_set(tmp_path, mask, fit)
    loaded = load_pair(dataset, dataset.pairs()[0], (16, 16))
    assert (loaded.mask_state, loaded.error) == (state, None)
    assert ("pair '1': its mask" in caplog.text) == (state != "part")


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    inner=st.tuples(st.integers(1, 16), st.integers(1, 16)),
    fit=st.sampled_from(["crop", "pad", "resize"]),
    at=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
)
def test_a_mask_of_one_pixel_is_lost_to_the_crop_alone(
    size: tuple[int, int], inner: tuple[int, int], fit: Any, at: tuple[float, float]
) -> None:
    """Property: no size, up or down, makes a mask vanish that lies within what is kept."""
    mask = torch.zeros(size)
    mask[int(at[0] * size[0]), int(at[1] * size[1])] = 1
    kept = _part(mask[None], inner, fit).any()
    assert bool(fit_mask(mask, inner, fit).any()) == bool(kept)
    assert fit != "crop" or kept or fit_mask(mask, inner, "resize").any()


def test_whatever_one_pair_raises_the_others_are_loaded(tmp_path: Path) -> None:
    path = make_set(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "empty.png").touch()
    names = [
        "x" * 5000 + ".png",
        "pipe.png",
        "dangling.png",
        "folder.png",
        "empty.png",
        "a\nb.png",
        "\u202e.png",
    ]
    lines = [{"source": "a", "target": "b", "image": name} for name in ["good.png", *names]]
    path.write_text("\n".join(map(json.dumps, lines)))
    dataset = JsonlPairs(path)
    loaded = [load_pair(dataset, pair, (8, 8)) for pair in dataset.pairs()]
    assert [pair.error is None for pair in loaded] == [True] + [False] * len(names)
    assert all(len(str(pair.error)) < 400 and "\n" not in str(pair.error) for pair in loaded)


def test_an_error_nobody_thought_of_is_that_of_its_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = JsonlPairs(make_set(tmp_path))

    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("no size")

    monkeypatch.setattr("p2p_bench.data.jsonl.load_masked_image", fail)
    loaded = [load_pair(dataset, pair, (8, 8)) for pair in dataset.pairs()]
    assert loaded[0].error == "the pair cannot be loaded (ZeroDivisionError: no size)"
    assert loaded[4].error is None


def test_a_mask_of_half_grey_is_what_metrics_take_it_for() -> None:
    pair = EditPair("a", "a cat", ("a dog",))
    for values, state in (([0.5, 0.0], "part"), ([0.5, 0.5], "full"), ([0.49, 0.0], "empty")):
        mask = torch.tensor([values])
        view = EditView(torch.zeros(3, 1, 2), torch.zeros(3, 1, 2), "a", "b", mask=mask)
        assert LoadedPair(pair, mask=mask).mask_state == state
        assert isinstance(divided(view), Undefined) == (state != "part")
