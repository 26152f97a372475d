"""The words of the world and the scene they describe.

One attribute value is exactly one caption word, so that a word swap keeps the number of words.
"""

import dataclasses
import difflib
import hashlib
import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
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
_RANGES = {
    "x": (0.0, 1.0),
    "y": (0.0, 1.0),
    "size": (0.01, 1.0),
    "angle": (-2 * math.pi, 2 * math.pi),
    "weather_strength": (0.0, 1.0),
}


def check_value(name: str, value: str, allowed: tuple[str, ...]) -> str:
    """Returns `value` if it is one of `allowed`.

    Raises:
        ValueError: naming the attribute, the value and the nearest allowed one.
    """
    if not isinstance(value, str) or value not in allowed:
        near = difflib.get_close_matches(str(value)[:100], allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown {name} {_shown(value)}, expected one of {', '.join(allowed)}{hint}")
    return value


def check_attribute(name: str, value: Any) -> None:
    """Sees that a value is one that an attribute of a scene or of an object can have.

    Raises:
        ValueError: naming the attribute, what it can be, and the value.
    """
    words = {**OBJECT_VALUES, **SCENE_VALUES}
    if name in words:
        check_value(name, value, words[name])
    elif name == "seed":
        if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= value < 2**63:
            raise ValueError(f"seed: expected an integer in [0, 2**63), got {_shown(value)}")
    elif name in _RANGES:
        low, high = _RANGES[name]
        # A comparison that is false for NaN, and that integers of any length stand.
        if isinstance(value, bool) or not isinstance(value, Real) or not low <= value <= high:
            raise ValueError(f"{name}: expected a number in [{low:.4g}, {high:.4g}], got {_shown(value)}")


def _shown(value: Any) -> str:
    """A value in a message: no longer than a line."""
    if isinstance(value, int) and abs(value) > 10**20:
        return "an integer of more than 20 digits"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


@dataclasses.dataclass(frozen=True)
class SceneObject:
    """One flat shape.

    Attributes:
        shape: one of `SHAPES`.
        colour: one of `COLOURS`.
        pattern: one of `PATTERNS`.
        x: centre, fraction of the side from the left, in [0, 1].
        y: centre, fraction of the side from the top, in [0, 1].
        size: diameter, fraction of the side, in [0.01, 1].
        angle: rotation in radians, at most a full turn either way.
    """

    shape: str
    colour: str
    pattern: str
    x: float
    y: float
    size: float
    angle: float

    def __post_init__(self) -> None:
        for name in (*OBJECT_VALUES, *OBJECT_NUMBERS):
            check_attribute(name, getattr(self, name))


@dataclasses.dataclass(frozen=True)
class Scene:
    """Everything the renderer needs for one image.

    Attributes:
        objects: one or two objects, the later one in front.
        background: one of `BACKGROUNDS`.
        style: one of `STYLES`.
        weather: one of `WEATHERS`.
        weather_strength: density of fog or snow in [0, 1]; without effect in clear weather.
        seed: fixes texture phases, tints and flakes; an integer in [0, 2**63).
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
        for name in (*SCENE_VALUES, *SCENE_NUMBERS):
            check_attribute(name, getattr(self, name))

    def with_attribute(self, name: str, value: Any, index: int = 0) -> "Scene":
        """The counterfactual scene: one attribute changed, all else (seed included) kept.

        Args:
            name: an attribute of the scene or of its objects.
            value: the new value.
            index: which object, for an object's attribute.

        Raises:
            ValueError: for an unknown attribute, value or object.
        """
        check_attribute(name, value)
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
            ValueError: if a key is missing, unknown, or holds a bad value; names the key.
        """
        _check_keys(data, cls, "scene")
        items = data["objects"]
        if isinstance(items, str) or not isinstance(items, Sequence):
            raise ValueError(f"objects: expected a list of objects, got {_shown(items)}")
        objects = tuple(_read_object(item, f"objects[{index}]") for index, item in enumerate(items))
        others = {key: value for key, value in data.items() if key != "objects"}
        for name, value in others.items():
            check_attribute(name, value)
        return cls(objects=objects, **others)


def _read_object(item: Any, where: str) -> SceneObject:
    if not isinstance(item, Mapping):
        raise ValueError(f"{where}: expected an object {{...}}, got {_shown(item)}")
    _check_keys(item, SceneObject, where)
    try:
        for name, value in item.items():
            check_attribute(name, value)
        return SceneObject(**item)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _check_keys(data: Mapping[str, Any], kind: type[Scene | SceneObject], where: str) -> None:
    fields = dataclasses.fields(kind)
    names = [field.name for field in fields]
    needed = [field.name for field in fields if field.default is dataclasses.MISSING]
    unknown = [key for key in data if key not in names]
    if unknown:
        raise ValueError(f"{where}: unknown key {_shown(unknown[0])}, known are {', '.join(names)}")
    if missing := [name for name in needed if name not in data]:
        raise ValueError(f"{where}: {', '.join(missing)} missing; see datasets/world_pairs/README.md")


def held_out(shape: str, colour: str, pattern: str) -> bool:
    """Whether this combination (one in ten) is never shown in training."""
    digest = hashlib.sha256(f"{shape} {colour} {pattern}".encode()).digest()
    return digest[0] % 10 == 0
