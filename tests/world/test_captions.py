"""Captions: one word per value, read back exactly, never about the layout."""

import dataclasses

import numpy as np
import pytest

from p2p_bench.world.scenes import (
    BACKGROUNDS,
    COLOURS,
    SHAPES,
    Scene,
    SceneObject,
    attributes_of,
    caption,
    sample_scene,
)


def test_canonical_captions_read_as_the_grammar_says() -> None:
    circle = SceneObject("circle", "red", "striped", 0.5, 0.5, 0.4, 0.0)
    star = SceneObject("star", "blue", "plain", 0.2, 0.2, 0.3, 0.0)
    assert caption(Scene((circle,), "grass")) == "a red striped circle on grass"
    assert caption(Scene((star,), "sand")) == "a blue star on sand"
    two = Scene((circle, star), "sand", style="mosaic", weather="fog")
    assert caption(two) == "a mosaic of a red striped circle and a blue star on sand in fog"


def test_canonical_captions_name_every_attribute() -> None:
    for seed in range(200):
        scene = sample_scene(seed, styled=0.5, weathered=0.5)
        read = attributes_of(caption(scene))
        assert read["background"] == scene.background
        assert (read["style"] or "photo") == scene.style
        assert (read["weather"] or "clear") == scene.weather
        assert len(read["objects"]) == len(scene.objects)
        for words, item in zip(read["objects"], scene.objects, strict=True):
            assert (words["shape"], words["colour"], words["pattern"] or "plain") == (
                item.shape,
                item.colour,
                item.pattern,
            )


def test_a_swapped_value_swaps_one_word() -> None:
    scene = sample_scene(4, two_objects=0.0).with_attribute("pattern", "striped")
    words = caption(scene).split()
    for name, values in (("shape", SHAPES), ("colour", COLOURS), ("background", BACKGROUNDS)):
        for value in values:
            index = 0
            other = caption(scene.with_attribute(name, value, index)).split()
            assert len(other) == len(words)
            assert sum(a != b for a, b in zip(words, other, strict=True)) <= 1


def test_the_layout_is_never_told() -> None:
    scene = sample_scene(9)
    moved = dataclasses.replace(scene.objects[0], x=0.31, y=0.62, size=0.41, angle=0.1)
    assert caption(scene) == caption(dataclasses.replace(scene, objects=(moved, *scene.objects[1:])))


def test_random_captions_leave_things_out_now_and_then_but_say_nothing_wrong() -> None:
    rng = np.random.default_rng(0)
    scene = sample_scene(1, two_objects=1.0, styled=1.0, weathered=1.0)
    texts = [caption(scene, rng, drop=0.2) for _ in range(300)]
    assert 20 < len(set(texts)) < 300
    missing = sum(attributes_of(text)["background"] is None for text in texts) / len(texts)
    assert 0.1 < missing < 0.3
    for text in texts:
        read = attributes_of(text)
        assert read["style"] in (None, scene.style)
        assert read["weather"] in (None, scene.weather)
        for words, item in zip(read["objects"], scene.objects, strict=True):
            for name, value in words.items():
                assert value in (None, getattr(item, name))


def test_a_foreign_word_is_named() -> None:
    with pytest.raises(ValueError, match="'cat'"):
        attributes_of("a red cat on grass")
