"""Prompt pairs of the world: a scene, one attribute changed, and the two captions."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from p2p_bench.world.scenes.attributes import (
    BACKGROUNDS,
    COLOURS,
    DEFAULT_PATTERN,
    DEFAULT_STYLE,
    PATTERNS,
    SHAPES,
    STYLES,
    WEATHERS,
    Scene,
    check_value,
    held_out,
)
from p2p_bench.world.scenes.captions import caption
from p2p_bench.world.scenes.sampling import sample_scene

CATEGORIES = (
    "swap_shape",
    "swap_colour",
    "swap_pattern",
    "swap_background",
    "refine_local",
    "refine_global",
    "reweight",
)
TWO_OBJECTS_SHARE = 0.15
STRONGER, ABSENT = 3.0, -1.0
_SEED_RANGE = 2**31


@dataclasses.dataclass(frozen=True)
class SceneEdit:
    """One attribute of a scene set to a value.

    Attributes:
        attribute: name, as `Scene.with_attribute` takes it.
        value: the new value.
        index: which object, for an object's attribute.
    """

    attribute: str
    value: str | float
    index: int = 0


@dataclasses.dataclass(frozen=True)
class WorldPair:
    """One line of `datasets/world_pairs`.

    Attributes:
        id: unique among the pairs made together.
        category: one of `CATEGORIES`.
        source_prompt: canonical caption of `scene`.
        target_prompt: canonical caption of the edited scene; equal to the source for "reweight".
        seed: of the noise.
        scene: the source scene.
        edit: leads to the exact answer, `scene.with_attribute(...)`.
        word_weights: factor per target word, for "reweight".
        blend_words: words of source and target that mark the place of a local edit, else None.
        real: whether the source image is `render(scene)`; else it is generated from noise, and the
            scene only tells what the prompt asks for.
    """

    id: str
    category: str
    source_prompt: str
    target_prompt: str
    seed: int
    scene: Scene
    edit: SceneEdit
    word_weights: Mapping[str, float]
    blend_words: tuple[tuple[str, ...], tuple[str, ...]] | None
    real: bool

    def answer(self) -> Scene:
        """The edited scene."""
        return self.scene.with_attribute(self.edit.attribute, self.edit.value, self.edit.index)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for one line of JSON; empty optional entries are left out."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields |= {"scene": self.scene.to_dict(), "edit": dataclasses.asdict(self.edit)}
        fields["word_weights"] = dict(self.word_weights)
        if self.blend_words is not None:
            fields["blend_words"] = [list(words) for words in self.blend_words]
        return {name: value for name, value in fields.items() if value not in (None, {})}


def make_pairs(
    count: int, seed: int, real: bool = False, categories: Sequence[str] = CATEGORIES
) -> list[WorldPair]:
    """Draws pairs, categories in turn; equal arguments give equal pairs.

    Only combinations of shape, colour and pattern that are shown in training appear, before and
    after the edit.

    Args:
        count: how many.
        seed: of the draw.
        real: whether the sources are rendered images.
        categories: some of `CATEGORIES`.

    Raises:
        ValueError: for an unknown category or none.
    """
    if not categories:
        raise ValueError(f"categories is empty, give some of {', '.join(CATEGORIES)}")
    for category in categories:
        check_value("category", category, CATEGORIES)
    return [_make_pair(i, seed, real, categories[i % len(categories)]) for i in range(count)]


def write_pairs(pairs: Sequence[WorldPair], path: Path) -> None:
    """Writes one JSON object per line."""
    path.write_text("".join(json.dumps(pair.to_dict()) + "\n" for pair in pairs), encoding="utf-8")


def demo_pairs() -> list[WorldPair]:
    """The fixed pairs of `datasets/world_pairs/demo.jsonl`: 36 from noise, 12 of rendered images."""
    return [*make_pairs(36, seed=7, real=False), *make_pairs(12, seed=8, real=True)]


def _make_pair(number: int, seed: int, real: bool, category: str) -> WorldPair:
    rng = np.random.default_rng([seed, int(real), number])
    while True:
        scene = _source_scene(rng, category)
        edit = _draw_edit(rng, category, scene)
        edited = scene.with_attribute(edit.attribute, edit.value, edit.index)
        if not any(held_out(item.shape, item.colour, item.pattern) for item in edited.objects):
            break
    weights: dict[str, float] = {}
    if category == "reweight":
        weights = {scene.weather: STRONGER if edit.value == 1.0 else ABSENT}
        edited = scene
    return WorldPair(
        id=f"{'real' if real else 'noise'}_{seed}_{number:04d}_{category}",
        category=category,
        source_prompt=caption(scene),
        target_prompt=caption(edited),
        seed=int(rng.integers(_SEED_RANGE)),
        scene=scene,
        edit=edit,
        word_weights=weights,
        blend_words=_blend_words(category, scene, edited, edit.index),
        real=real,
    )


def _source_scene(rng: np.random.Generator, category: str) -> Scene:
    """A clear photo in which the category's edit is possible."""
    scene = sample_scene(
        int(rng.integers(_SEED_RANGE)), two_objects=TWO_OBJECTS_SHARE, styled=0.0, weathered=0.0
    )
    if category == "swap_pattern":
        scene = scene.with_attribute("pattern", str(rng.choice(PATTERNS[1:])))
    if category == "refine_local":
        scene = scene.with_attribute("pattern", DEFAULT_PATTERN)
    if category == "refine_global":
        scene = scene.with_attribute("weather_strength", float(rng.uniform(0.5, 0.9)))
    if category == "reweight":
        scene = scene.with_attribute("weather", str(rng.choice(WEATHERS[1:])))
        scene = scene.with_attribute("weather_strength", float(rng.uniform(0.35, 0.6)))
    if any(held_out(item.shape, item.colour, item.pattern) for item in scene.objects):
        return _source_scene(rng, category)
    return scene


def _draw_edit(rng: np.random.Generator, category: str, scene: Scene) -> SceneEdit:
    item = scene.objects[0]
    match category:
        case "swap_shape":
            return SceneEdit("shape", _another(rng, SHAPES, *(o.shape for o in scene.objects)))
        case "swap_colour":
            return SceneEdit("colour", _another(rng, COLOURS, *(o.colour for o in scene.objects)))
        case "swap_pattern":
            return SceneEdit("pattern", _another(rng, PATTERNS[1:], item.pattern))
        case "swap_background":
            return SceneEdit("background", _another(rng, BACKGROUNDS, scene.background))
        case "refine_local":
            return SceneEdit("pattern", _another(rng, PATTERNS, DEFAULT_PATTERN))
        case "refine_global":
            if rng.random() < 0.5:
                return SceneEdit("style", _another(rng, STYLES, DEFAULT_STYLE))
            return SceneEdit("weather", str(rng.choice(WEATHERS[1:])))
        case "reweight":
            return SceneEdit("weather_strength", 1.0 if rng.random() < 0.5 else 0.0)
        case _:
            raise AssertionError(f"category {category!r} has no edit")


def _another(rng: np.random.Generator, values: Sequence[str], *taken: str) -> str:
    return str(rng.choice([value for value in values if value not in taken]))


def _blend_words(
    category: str, scene: Scene, edited: Scene, index: int
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    if category in ("swap_shape", "swap_colour", "swap_pattern", "refine_local"):
        return (scene.objects[index].shape,), (edited.objects[index].shape,)
    return None
