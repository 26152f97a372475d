"""The renderer: seeded, vectorised, with exact masks."""

import itertools

import numpy as np
import pytest
import torch

from p2p_bench.world.scenes import (
    BACKGROUNDS,
    COLOURS,
    PATTERNS,
    SHAPES,
    STYLES,
    WEATHERS,
    Scene,
    changed_mask,
    held_out,
    render,
    sample_scene,
)

EDITS = [
    *(("shape", value) for value in SHAPES),
    *(("colour", value) for value in COLOURS[:4]),
    *(("pattern", value) for value in PATTERNS),
    *(("background", value) for value in BACKGROUNDS),
    ("x", 0.3),
    ("size", 0.5),
    ("angle", 0.2),
]


def busy_scene(seed: int) -> Scene:
    return sample_scene(seed, two_objects=0.5, styled=0.5, weathered=0.5)


def test_world_is_as_large_as_promised() -> None:
    assert len(SHAPES) >= 8
    assert len(COLOURS) >= 10
    assert len(PATTERNS) >= 5
    assert len(BACKGROUNDS) >= 6
    assert len(STYLES) >= 4
    assert len(WEATHERS) >= 3
    words = [*SHAPES, *COLOURS, *PATTERNS, *BACKGROUNDS, *STYLES, *WEATHERS]
    assert len(set(words)) == len(words)
    assert all(word.isalpha() for word in words)


def test_sampling_and_rendering_depend_on_the_seed_alone() -> None:
    scenes = [busy_scene(seed) for seed in range(24)]
    assert scenes == [busy_scene(seed) for seed in range(24)]
    together = render(scenes)
    assert together.images.shape == (24, 3, 64, 64)
    assert together.images.min() >= 0
    assert together.images.max() <= 1
    for i in (0, 7, 23):
        alone = render(scenes[i : i + 1])
        torch.testing.assert_close(alone.images[0], together.images[i], rtol=0, atol=2e-6)
        assert torch.equal(alone.object_masks[0], together.object_masks[i])
    assert not torch.allclose(together.images[0], together.images[1], atol=0.05)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_counterfactual_changes_nothing_outside_its_mask(seed: int) -> None:
    scene = busy_scene(seed)
    before = render([scene]).images[0]
    for name, value in EDITS:
        for index in range(len(scene.objects) if name not in ("background",) else 1):
            edited = scene.with_attribute(name, value, index)
            mask = changed_mask(scene, edited)
            after = render([edited]).images[0]
            assert torch.equal(before[:, ~mask], after[:, ~mask]), (name, value)
            if edited == scene:
                assert not mask.any()


def test_the_mask_is_tight() -> None:
    scene = sample_scene(11, two_objects=0.0, styled=0.0, weathered=0.0)
    other = scene.with_attribute("colour", "black" if scene.objects[0].colour != "black" else "white")
    mask = changed_mask(scene, other)
    differs = (render([scene]).images - render([other]).images)[0].abs().amax(0) > 0
    assert mask.sum() - (mask & differs).sum() <= 0.05 * mask.sum()
    visible = render([scene]).object_masks[0, 0]
    assert (visible & ~mask).sum() == 0


def test_style_and_weather_may_change_everything_and_seeds_must_agree() -> None:
    scene = sample_scene(5, two_objects=0.0, styled=0.0, weathered=0.0)
    assert changed_mask(scene, scene.with_attribute("style", "sketch")).all()
    assert changed_mask(scene, scene.with_attribute("weather", "fog")).all()
    assert not changed_mask(scene, scene.with_attribute("weather_strength", 0.1)).any()
    with pytest.raises(ValueError, match="share no texture"):
        changed_mask(scene, scene.with_attribute("seed", 6))


@pytest.mark.parametrize("weather", ["fog", "snow"])
def test_weather_grows_with_its_strength(weather: str) -> None:
    scene = sample_scene(8, two_objects=0.0, styled=0.0, weathered=0.0).with_attribute("weather", weather)
    clear = render([scene.with_attribute("weather", "clear")]).images
    steps = [render([scene.with_attribute("weather_strength", s)]).images for s in (0.0, 0.3, 0.6, 1.0)]
    change = [float((image - clear).abs().mean()) for image in steps]
    assert change[0] == 0
    assert all(later > earlier for earlier, later in itertools.pairwise(change))


def test_layout_varies_and_says_nothing_about_the_caption() -> None:
    scenes = [sample_scene(seed, two_objects=0.0) for seed in range(2000)]
    x = np.array([scene.objects[0].x for scene in scenes])
    y = np.array([scene.objects[0].y for scene in scenes])
    assert x.std() >= 0.12
    assert y.std() >= 0.12
    for shape in SHAPES:
        chosen = np.array([scene.objects[0].shape == shape for scene in scenes])
        assert abs(x[chosen].mean() - 0.5) < 0.05
        assert abs(y[chosen].mean() - 0.5) < 0.05


def test_two_objects_overlap_little() -> None:
    scenes = [sample_scene(seed, two_objects=1.0) for seed in range(100)]
    areas = render(scenes).object_masks.sum((2, 3))
    assert areas.min() > 40
    assert all(a.shape != b.shape and a.colour != b.colour for a, b in (scene.objects for scene in scenes))


def test_one_combination_in_ten_is_held_out_of_sampling() -> None:
    combinations = [(s, c, p) for s in SHAPES for c in COLOURS for p in PATTERNS]
    share = np.mean([held_out(*combination) for combination in combinations])
    assert 0.06 < share < 0.14
    for seed in range(300):
        assert not any(held_out(o.shape, o.colour, o.pattern) for o in sample_scene(seed).objects)
        only = sample_scene(seed, only_held_out=True)
        assert all(held_out(o.shape, o.colour, o.pattern) for o in only.objects)


def test_scenes_survive_json_and_faults_are_named() -> None:
    scene = busy_scene(3)
    assert Scene.from_dict(scene.to_dict()) == scene
    with pytest.raises(ValueError, match="did you mean 'circle'"):
        scene.with_attribute("shape", "circel")
    with pytest.raises(ValueError, match="did you mean 'colour'"):
        scene.with_attribute("color", "red")
    with pytest.raises(ValueError, match="object 5"):
        scene.with_attribute("shape", "circle", index=5)
    with pytest.raises(ValueError, match="scene: objects missing"):
        Scene.from_dict({"background": "grass"})
    with pytest.raises(ValueError, match="weather_strength"):
        scene.with_attribute("weather_strength", 1.5)
    with pytest.raises(ValueError, match="at least one"):
        render([])
