"""Draws scenes: images, exact object masks, exact masks of what an edit may change."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from p2p_bench.pinned import with_pinned_settings
from p2p_bench.world.scenes.attributes import MAX_OBJECTS, Scene, SceneObject
from p2p_bench.world.scenes.shapes import signed_distance
from p2p_bench.world.scenes.textures import (
    COLOUR_RGB,
    NUM_FLAKES,
    WEATHER_RGB,
    apply_style,
    background_image,
    pattern_map,
    second_tone,
    weather_cover,
)

SIDE = 64
_EDGE = 1.3
_TINT = 0.04
_BACKGROUND, _OBJECTS, _STYLE, _WEATHER = 0, 24, 40, 48
_NUM_PHASES = _WEATHER + 2 * NUM_FLAKES


@dataclasses.dataclass(frozen=True)
class RenderedScenes:
    """Rendered images.

    Attributes:
        images: RGB in [0, 1].
        object_masks: visible pixels of the first and of the second object (empty where there is none).
    """

    images: Float[Tensor, "n 3 h w"]
    object_masks: Bool[Tensor, "n 2 h w"]


@dataclasses.dataclass(frozen=True)
class _Layer:
    """One object of each scene: what it covers, its colours, its outline, its pattern."""

    cover: Tensor
    rim: Tensor
    colour: Tensor


def _positions(count: int) -> tuple[Tensor, Tensor]:
    centres = (torch.arange(SIDE, dtype=torch.float32) + 0.5) / SIDE
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return x.expand(count, -1, -1), y.expand(count, -1, -1)


def _phases(seeds: Sequence[int]) -> Tensor:
    rows = [np.random.default_rng([seed, 2]).random(_NUM_PHASES, dtype=np.float32) for seed in seeds]
    return torch.from_numpy(np.stack(rows))


def _groups(names: Sequence[str]) -> list[tuple[str, Tensor]]:
    return [
        (name, torch.tensor([i for i, n in enumerate(names) if n == name])) for name in sorted(set(names))
    ]


def _local_frame(items: Sequence[SceneObject]) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates in each object's own frame, pixels of a 64-pixel side, and the radius in pixels."""
    x, y = _positions(len(items))
    place = torch.tensor([[o.x, o.y, o.size, o.angle] for o in items], dtype=torch.float32)
    centre_x, centre_y, size, angle = (column[:, None, None] for column in place.unbind(1))
    dx, dy = (x - centre_x) * SIDE, (y - centre_y) * SIDE
    across = dx * angle.cos() + dy * angle.sin()
    down = dy * angle.cos() - dx * angle.sin()
    return across, down, size * SIDE / 2


def _outside(items: Sequence[SceneObject], across: Tensor, down: Tensor, radius: Tensor) -> Tensor:
    """Signed distance from each object's outline in pixels."""
    distance = torch.empty_like(across)
    for shape, rows in _groups([o.shape for o in items]):
        scale = radius[rows]
        distance[rows] = signed_distance(shape, across[rows] / scale, down[rows] / scale) * scale
    return distance


def _cover(distance: Tensor) -> Tensor:
    return (0.5 - distance / _EDGE).clamp(0, 1)


def _draw_objects(items: Sequence[SceneObject], phases: Tensor) -> _Layer:
    """Draws one object per scene. Uses 8 phases."""
    across, down, radius = _local_frame(items)
    distance = _outside(items, across, down, radius)
    amount = torch.empty_like(across)
    for pattern, rows in _groups([o.pattern for o in items]):
        amount[rows] = pattern_map(pattern, across[rows], down[rows], -distance[rows], phases[rows, :2])
    tint = _TINT * (2 * phases[:, 2:5] - 1)
    base = torch.tensor([COLOUR_RGB[o.colour] for o in items]) + tint
    second = torch.tensor([second_tone(o.colour) for o in items]) + tint
    amount = amount[:, None]
    colour = base[..., None, None] * (1 - amount) + second[..., None, None] * amount
    rim = (1 - (distance + 0.8).abs() / 1.3).clamp(0, 1)
    return _Layer(cover=_cover(distance), rim=rim, colour=(colour * (1 - 0.55 * rim[:, None])).clamp(0, 1))


@with_pinned_settings
def render(scenes: Sequence[Scene]) -> RenderedScenes:
    """Renders scenes, vectorised; equal scenes give equal images whatever the batch.

    Args:
        scenes: at least one scene.

    Returns:
        Images and visible object masks at `SIDE` x `SIDE` pixels.

    Raises:
        ValueError: if `scenes` is empty.
    """
    if not scenes:
        raise ValueError("render needs at least one scene")
    count = len(scenes)
    x, y = _positions(count)
    phases = _phases([scene.seed for scene in scenes])
    image = torch.empty(count, 3, SIDE, SIDE)
    for background, rows in _groups([scene.background for scene in scenes]):
        drawn = background_image(background, x[rows], y[rows], phases[rows, _BACKGROUND:])
        tint = _TINT * (2 * phases[rows, _BACKGROUND + 16 : _BACKGROUND + 19] - 1)
        image[rows] = (drawn + tint[..., None, None]).clamp(0, 1)

    rims = torch.zeros(count, SIDE, SIDE)
    masks = torch.zeros(count, MAX_OBJECTS, SIDE, SIDE, dtype=torch.bool)
    for index in range(MAX_OBJECTS):
        rows = torch.tensor(
            [i for i, scene in enumerate(scenes) if len(scene.objects) > index], dtype=torch.long
        )
        if not len(rows):
            continue
        items = [scene.objects[index] for scene in scenes if len(scene.objects) > index]
        layer = _draw_objects(items, phases[rows, _OBJECTS + 8 * index :])
        cover = layer.cover[:, None]
        image[rows] = image[rows] * (1 - cover) + layer.colour * cover
        rims[rows] = rims[rows] * (1 - layer.cover) + layer.rim * layer.cover
        visible = layer.cover > 0.5
        masks[rows] &= ~visible[:, None]
        masks[rows, index] = visible

    image = _finish(scenes, image, rims, phases)
    return RenderedScenes(images=image.clamp(0, 1), object_masks=masks)


def _finish(scenes: Sequence[Scene], image: Tensor, rims: Tensor, phases: Tensor) -> Tensor:
    """Style, then weather."""
    x, y = _positions(len(scenes))
    for style, rows in _groups([scene.style for scene in scenes]):
        drawn = apply_style(style, image[rows], rims[rows], x[rows], y[rows], phases[rows, _STYLE:])
        image[rows] = drawn.clamp(0, 1)
    for weather, rows in _groups([scene.weather for scene in scenes]):
        if weather == "clear":
            continue
        strength = torch.tensor([scenes[i].weather_strength for i in rows.tolist()])
        cover = weather_cover(weather, strength, x[rows], y[rows], phases[rows, _WEATHER:])[:, None]
        tone = torch.tensor(WEATHER_RGB[weather]).view(1, 3, 1, 1)
        image[rows] = image[rows] * (1 - cover) + tone * cover
    return image


def changed_mask(scene: Scene, other: Scene) -> Bool[Tensor, "h w"]:
    """Pixels that may differ between two scenes of equal seed; all others are equal exactly.

    A changed style or weather may change every pixel, a changed background every pixel that the
    objects do not cover fully, a changed object the pixels that it touches in either scene and that
    no unchanged object in front covers fully.

    Raises:
        ValueError: if the scenes have different seeds, so that nothing need be equal.
    """
    if scene.seed != other.seed:
        raise ValueError(f"scenes of seeds {scene.seed} and {other.seed} share no texture, nothing is kept")
    whole = (scene.style, scene.weather) != (other.style, other.weather)
    if whole or (scene.weather != "clear" and scene.weather_strength != other.weather_strength):
        return torch.ones(SIDE, SIDE, dtype=torch.bool)
    changed = torch.full((SIDE, SIDE), scene.background != other.background)
    for index in range(MAX_OBJECTS):
        before = scene.objects[index] if index < len(scene.objects) else None
        after = other.objects[index] if index < len(other.objects) else None
        covers = [_object_cover(item) for item in (before, after) if item is not None]
        if before == after:
            for cover in covers:
                changed &= cover < 1
        else:
            for cover in covers:
                changed |= cover > 0
    return changed


def _object_cover(item: SceneObject) -> Tensor:
    return _cover(_outside([item], *_local_frame([item])))[0]
