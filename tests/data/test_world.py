"""The world's pairs: cheap to list, exact when rendered, and the same in every way they are read."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from p2p_bench.data import JsonlPairs, PairDataset, WorldDemo, WorldPairs, WorldReal
from p2p_bench.data import world as data_world
from p2p_bench.data.world import DrawnPairs
from p2p_bench.errors import ConfigError
from p2p_bench.resources import resource_path
from p2p_bench.world.scenes import Scene, render
from p2p_bench.world.scenes.pairs import CATEGORIES, make_pairs, write_pairs


@pytest.mark.parametrize("dataset", [WorldDemo(limit=9), WorldPairs(limit=9), WorldReal(limit=9)])
def test_pairs_touch_no_pixel(dataset: PairDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(data_world, "render")
    pairs = dataset.pairs()
    assert isinstance(dataset, PairDataset)
    assert len(pairs) == 9
    assert len({pair.id for pair in pairs}) == 9
    assert pairs == dataset.pairs()


def test_demo_covers_what_it_promises() -> None:
    pairs = WorldDemo().pairs()
    assert len(pairs) >= 40
    assert {pair.category for pair in pairs} == set(CATEGORIES)
    assert {pair.has_image for pair in pairs} == {True, False}


def test_the_runs_seed_decides_the_noise() -> None:
    for dataset in (WorldDemo(), WorldPairs(count=7), WorldReal(count=7)):
        assert {pair.seed for pair in dataset.pairs()} == {None}


def test_noise_pairs_have_no_pixels() -> None:
    dataset = WorldPairs(count=3)
    pair = dataset.pairs()[0]
    pixels = dataset.load(pair, (64, 64))
    assert (pixels.image, pixels.mask, pixels.answer, pair.has_image) == (None, None, None, False)
    assert pair.scene_edit is not None


@pytest.mark.parametrize("number", range(len(CATEGORIES)))
def test_answer_and_mask_are_exact(number: int) -> None:
    dataset = WorldReal(count=len(CATEGORIES), seed=3)
    pair = dataset.pairs()[number]
    pixels = dataset.load(pair, (64, 64))
    assert pair.scene is not None
    assert pair.scene_edit is not None
    assert pixels.image is not None
    assert pixels.answer is not None
    assert pixels.mask is not None
    scene = Scene.from_dict(pair.scene)
    edit = pair.scene_edit
    after = scene.with_attribute(edit["attribute"], edit["value"], edit["index"])
    assert torch.equal(pixels.image, render([scene]).images[0])
    assert torch.equal(pixels.answer, render([after]).images[0])
    differs = (pixels.image != pixels.answer).any(dim=0)
    assert differs.any()
    assert (pixels.mask[differs] == 1).all()


def test_other_sizes() -> None:
    dataset = WorldReal(count=1)
    pixels = dataset.load(dataset.pairs()[0], (96, 128))
    assert pixels.image is not None
    assert pixels.mask is not None
    assert pixels.answer is not None
    assert (pixels.image.shape, pixels.answer.shape, pixels.mask.shape) == (
        (3, 96, 128),
        (3, 96, 128),
        (96, 128),
    )


def test_draws() -> None:
    assert WorldReal(count=4, seed=1).pairs() == WorldReal(count=9, seed=1).pairs()[:4]
    assert WorldReal(count=4, seed=1).pairs() != WorldReal(count=4, seed=2).pairs()
    assert {pair.category for pair in WorldPairs(count=5, categories=["reweight"]).pairs()} == {"reweight"}
    assert WorldPairs(count=2, categories="swap_colour").pairs()[1].category == "swap_colour"


def test_a_manifest_reads_back_as_the_drawn_pairs(tmp_path: Path) -> None:
    """The world's own lines pass the JSONL reader, and the JSONL data set renders them too."""
    write_pairs(make_pairs(7, seed=5, real=True), tmp_path / "pairs.jsonl")
    dataset, drawn = JsonlPairs(tmp_path / "pairs.jsonl"), WorldReal(count=7, seed=5)
    read = [dataclasses.replace(pair, seed=None) for pair in dataset.pairs()]
    assert read == drawn.pairs()
    ours, theirs = dataset.load(read[0], (64, 64)), drawn.load(read[0], (64, 64))
    assert ours.answer is not None
    assert theirs.answer is not None
    assert torch.equal(ours.answer, theirs.answer)
    assert JsonlPairs(resource_path("datasets", "world_pairs", "demo.jsonl")).name == "demo"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, r"dataset\.count: expected at least 1, got 0"),
        ({"seed": -1}, r"dataset\.seed: expected at least 0, got -1"),
        ({"limit": 0}, r"dataset\.limit: expected at least 1, or null, got 0"),
        ({"categories": ["swap_color"]}, r"dataset\.categories: .*'swap_color'.*Did you mean 'swap_colour'"),
        ({"categories": []}, r"dataset\.categories: expected a list of at least one of .*, got none"),
    ],
)
@pytest.mark.parametrize("kind", [WorldPairs, WorldReal])
def test_bad_settings(kind: type[DrawnPairs], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**settings)
