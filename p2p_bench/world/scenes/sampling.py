"""Scenes drawn at random from a seed."""

import math

import numpy as np

from p2p_bench.world.scenes.attributes import (
    BACKGROUNDS,
    COLOURS,
    DEFAULT_PATTERN,
    DEFAULT_STYLE,
    DEFAULT_WEATHER,
    PATTERNS,
    SHAPES,
    STYLES,
    WEATHERS,
    Scene,
    SceneObject,
    held_out,
)

MIN_SIZE, MAX_SIZE = 0.38, 0.56
MIN_SIZE_OF_TWO, MAX_SIZE_OF_TWO = 0.34, 0.46
MAX_ANGLE = math.radians(22)
PLAIN_SHARE = 0.3
MARGIN = 0.02
_PLACEMENT_TRIES = 40


def sample_scene(
    seed: int,
    *,
    two_objects: float = 0.25,
    styled: float = 0.15,
    weathered: float = 0.15,
    allow_held_out: bool = False,
    only_held_out: bool = False,
) -> Scene:
    """Draws one scene; equal arguments give the equal scene.

    Place, size and rotation are drawn independently of everything a caption can say, except that
    two objects are smaller and kept apart.

    Args:
        seed: any non-negative integer; also the scene's own seed.
        two_objects: probability of a second object.
        styled: probability of a style other than the default.
        weathered: probability of fog or snow.
        allow_held_out: whether held-out combinations may appear.
        only_held_out: whether only held-out combinations may appear.
    """
    rng = np.random.default_rng([seed, 1])
    count = 2 if rng.random() < two_objects else 1
    kinds: list[tuple[str, str, str]] = []
    while len(kinds) < count:
        kind = _sample_kind(rng)
        is_held_out = held_out(*kind)
        if (only_held_out and not is_held_out) or (is_held_out and not (allow_held_out or only_held_out)):
            continue
        if kinds and (kind[0] == kinds[0][0] or kind[1] == kinds[0][1]):
            continue
        kinds.append(kind)
    objects = tuple(
        SceneObject(*kind, x=x, y=y, size=size, angle=float(rng.uniform(-MAX_ANGLE, MAX_ANGLE)))
        for kind, (x, y, size) in zip(kinds, _sample_places(rng, count), strict=True)
    )
    return Scene(
        objects=objects,
        background=str(rng.choice(BACKGROUNDS)),
        style=str(rng.choice(STYLES[1:])) if rng.random() < styled else DEFAULT_STYLE,
        weather=str(rng.choice(WEATHERS[1:])) if rng.random() < weathered else DEFAULT_WEATHER,
        weather_strength=float(rng.uniform(0.2, 1.0)),
        seed=seed,
    )


def _sample_kind(rng: np.random.Generator) -> tuple[str, str, str]:
    pattern = DEFAULT_PATTERN if rng.random() < PLAIN_SHARE else str(rng.choice(PATTERNS[1:]))
    return str(rng.choice(SHAPES)), str(rng.choice(COLOURS)), pattern


def _sample_places(rng: np.random.Generator, count: int) -> list[tuple[float, float, float]]:
    """Centres and diameters; two objects overlap by little or nothing."""
    low, high = (MIN_SIZE, MAX_SIZE) if count == 1 else (MIN_SIZE_OF_TWO, MAX_SIZE_OF_TWO)
    best: list[tuple[float, float, float]] = []
    best_gap = -math.inf
    for _ in range(_PLACEMENT_TRIES):
        places = []
        for _ in range(count):
            size = float(rng.uniform(low, high))
            edge = size / 2 + MARGIN
            x, y = rng.uniform(edge, 1 - edge, size=2)
            places.append((float(x), float(y), size))
        if count == 1:
            return places
        (x0, y0, size0), (x1, y1, size1) = places
        gap = math.hypot(x1 - x0, y1 - y0) - 0.5 * (size0 + size1)
        if gap >= 0:
            return places
        if gap > best_gap:
            best, best_gap = places, gap
    return best
