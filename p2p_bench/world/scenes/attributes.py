"""The words of the world and the scene they describe.

One attribute value is exactly one caption word, so that a word swap keeps the number of words.
"""

import dataclasses
import difflib
import hashlib
from collections.abc import Mapping
from typing import Any

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "crescent")
COLOURS = ("red", "tangerine", "yellow", "green", "turquoise", "blue", "purple", "pink", "white", "black")
PATTERNS = ("plain", "striped", "dotted", "checkered", "bordered")
BACKGROUNDS = ("grass", "sand", "water", "brick", "wood", "stone")
STYLES = ("photo", "sketch", "mosaic", "vintage")
WEATHERS = ("clear", "fog", "snow")

DEFAULT_PATTERN = "plain"
DEFAULT_STYLE = "photo"
DEFAULT_WEATHER = "clear"
MAX_OBJECTS = 2

OBJECT_VALUES: dict[str, tuple[str, ...]] = {"shape": SHAPES, "colour": COLOURS, "pattern": PATTERNS}
SCENE_VALUES: dict[str, tuple[str, ...]] = {
    "background": BACKGROUNDS,
    "style": STYLES,
    "weather": WEATHERS,
}
OBJECT_NUMBERS = ("x", "y", "size", "angle")
SCENE_NUMBERS = ("weather_strength", "seed")


def check_value(name: str, value: str, allowed: tuple[str, ...]) -> str:
    """Returns `value` if it is one of `allowed`.

    Raises:
        ValueError: naming the attribute, the value and the nearest allowed one.
    """
    if value not in allowed:
        near = difflib.get_close_matches(str(value), allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown {name} {value!r}, expected one of {', '.join(allowed)}{hint}")
    return value


@dataclasses.dataclass(frozen=True)
class SceneObject:
    """One flat shape.

    Attributes:
        shape: one of `SHAPES`.
        colour: one of `COLOURS`.
        pattern: one of `PATTERNS`.
        x: centre, fraction of the side from the left.
        y: centre, fraction of the side from the top.
        size: diameter, fraction of the side.
        angle: rotation in radians.
    """

    shape: str
    colour: str
    pattern: str
    x: float
    y: float
    size: float
    angle: float

    def __post_init__(self) -> None:
        for name, allowed in OBJECT_VALUES.items():
            check_value(name, getattr(self, name), allowed)


@dataclasses.dataclass(frozen=True)
class Scene:
    """Everything the renderer needs for one image.

    Attributes:
        objects: one or two objects, the later one in front.
        background: one of `BACKGROUNDS`.
        style: one of `STYLES`.
        weather: one of `WEATHERS`.
        weather_strength: density of fog or snow in [0, 1]; without effect in clear weather.
        seed: fixes texture phases, tints and flakes.
    """

    objects: tuple[SceneObject, ...]
    background: str
    style: str = DEFAULT_STYLE
    weather: str = DEFAULT_WEATHER
    weather_strength: float = 0.6
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= len(self.objects) <= MAX_OBJECTS:
            raise ValueError(f"a scene has 1 or {MAX_OBJECTS} objects, got {len(self.objects)}")
        for name, allowed in SCENE_VALUES.items():
            check_value(name, getattr(self, name), allowed)
        if not 0.0 <= self.weather_strength <= 1.0:
            raise ValueError(f"weather_strength must lie in [0, 1], got {self.weather_strength}")

    def with_attribute(self, name: str, value: Any, index: int = 0) -> "Scene":
        """The counterfactual scene: one attribute changed, all else (seed included) kept.

        Args:
            name: an attribute of the scene or of its objects.
            value: the new value.
            index: which object, for an object's attribute.

        Raises:
            ValueError: for an unknown attribute, value or object.
        """
        if name in SCENE_VALUES or name in SCENE_NUMBERS:
            return dataclasses.replace(self, **{name: value})
        if name in OBJECT_VALUES or name in OBJECT_NUMBERS:
            if not 0 <= index < len(self.objects):
                raise ValueError(f"object {index} asked for in a scene of {len(self.objects)}")
            changed = dataclasses.replace(self.objects[index], **{name: value})
            objects = (*self.objects[:index], changed, *self.objects[index + 1 :])
            return dataclasses.replace(self, objects=objects)
        names = (*OBJECT_VALUES, *OBJECT_NUMBERS, *SCENE_VALUES, *SCENE_NUMBERS)
        check_value("attribute", name, names)
        raise AssertionError("unreachable")

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON; `from_dict` reads it back."""
        return {**dataclasses.asdict(self), "objects": [dataclasses.asdict(o) for o in self.objects]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Scene":
        """Reads what `to_dict` wrote.

        Raises:
            ValueError: if a key is missing, unknown, or holds a bad value.
        """
        try:
            objects = tuple(SceneObject(**item) for item in data["objects"])
            return cls(objects=objects, **{key: value for key, value in data.items() if key != "objects"})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a scene: {error}; see datasets/world_pairs/README.md") from error


def held_out(shape: str, colour: str, pattern: str) -> bool:
    """Whether this combination (one in ten) is never shown in training."""
    digest = hashlib.sha256(f"{shape} {colour} {pattern}".encode()).digest()
    return digest[0] % 10 == 0
