"""Captions: the grammar that names a scene's attributes and never its layout."""

from typing import Final, Literal

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
)

FILLER_WORDS = ("a", "and", "on", "in", "of", "object")

CAPTION_WORDS = (*SHAPES, *COLOURS, *PATTERNS, *BACKGROUNDS, *STYLES, *WEATHERS, *FILLER_WORDS)
"""Every word that a caption may have."""

BACKGROUND_OWNER: Final = "background"
Owner = int | Literal["background"] | None
"""Whose pixels a word of a caption names: an object, by index, the background, or nobody's."""


def caption(scene: Scene, rng: np.random.Generator | None = None, drop: float = 0.05) -> str:
    """Names the scene, e.g. "a mosaic of a red striped circle and a blue star on sand in fog".

    Args:
        scene: what to name.
        rng: None for the full, canonical caption. With a generator each attribute is left out with
            probability `drop`, the plain pattern is named now and then, and so are the default
            style and weather.
        drop: probability of leaving out an attribute.

    Returns:
        The caption, lower case, words separated by one space. The default pattern, style and
        weather go unnamed in the canonical form.
    """
    return " ".join(word for word, _ in caption_words(scene, rng, drop))


def caption_words(
    scene: Scene, rng: np.random.Generator | None = None, drop: float = 0.05
) -> list[tuple[str, Owner]]:
    """The words of `caption`, each with whose pixels it names."""

    def keep() -> bool:
        return rng is None or rng.random() >= drop

    def name_default() -> bool:
        return rng is not None and rng.random() < 0.25

    words: list[tuple[str, Owner]] = []
    for index, item in enumerate(scene.objects):
        phrase = _object_phrase(item, rng, drop)
        words += [("and", None)] if index else []
        words += [(phrase[0], None), *((word, index) for word in phrase[1:])]
    if (scene.style != DEFAULT_STYLE and keep()) or (scene.style == DEFAULT_STYLE and name_default()):
        words = [("a", None), (scene.style, None), ("of", None), *words]
    if keep():
        words += [("on", None), (scene.background, BACKGROUND_OWNER)]
    if scene.weather != DEFAULT_WEATHER and keep():
        words += [("in", None), (scene.weather, None)]
    return words


def _object_phrase(item: SceneObject, rng: np.random.Generator | None, drop: float) -> list[str]:
    words = ["a"]
    if rng is None or rng.random() >= drop:
        words.append(item.colour)
    is_default = item.pattern == DEFAULT_PATTERN
    named = not is_default if rng is None else rng.random() < (0.25 if is_default else 1 - drop)
    if named:
        words.append(item.pattern)
    words.append(item.shape if rng is None or rng.random() >= drop else "object")
    return words


def attributes_of(text: str) -> dict[str, object]:
    """Reads a caption of the grammar back.

    Args:
        text: a caption, canonical or not.

    Returns:
        `objects`: a tuple of dicts with the keys `shape`, `colour`, `pattern` (None where not
        named), and `background`, `style`, `weather` (None where not named).

    Raises:
        ValueError: naming the first word that the grammar does not know.
    """
    objects: list[dict[str, str | None]] = []
    result: dict[str, object] = {"background": None, "style": None, "weather": None}
    current: dict[str, str | None] = {"shape": None, "colour": None, "pattern": None}
    tables: tuple[tuple[str, tuple[str, ...]], ...] = (("colour", COLOURS), ("pattern", PATTERNS))
    whole: tuple[tuple[str, tuple[str, ...]], ...]
    whole = (("background", BACKGROUNDS), ("style", STYLES), ("weather", WEATHERS))
    for word in text.split():
        if word in SHAPES or word == "object":
            objects.append({**current, "shape": None if word == "object" else word})
            current = {"shape": None, "colour": None, "pattern": None}
            continue
        for name, values in tables:
            if word in values:
                current[name] = word
        for name, values in whole:
            if word in values:
                result[name] = word
        if word not in CAPTION_WORDS:
            raise ValueError(f"{word!r} in {text!r} is not a word of the world's captions")
    return {"objects": tuple(objects), **result}
