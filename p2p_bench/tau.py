"""Tau as a user writes it, checked; loads no torch, so that a fault in it is answered at once.

A schedule of cross-attention is one of

| written | means |
|---|---|
| `0.8` | the interval (0, 0.8) |
| `(0.2, 0.8)` | on between these parts of the steps, counted from the first, noisiest one |
| `Ramp(end=0.8, ramp=0.3)`, `{"end": 0.8, "ramp": 0.3, "shape": "cosine"}` | a smooth gate: on, then going down to off at `end` |
| `{"default_": 0.8, "circle": (0, 0.3)}` | a schedule per word of the target; without `default_` the rest is (0, 1) |

The schedule of self-attention is a number or an interval.
"""  # noqa: E501  # a table

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Annotated, Any

from p2p_bench.errors import ConfigError
from p2p_bench.fields import Parsed

DEFAULT = "default_"
"""Key of the schedule of all words that a per-word schedule does not name."""


@dataclass(frozen=True)
class Ramp:
    """A smooth gate: 1 from `start` on, then down to 0, which it reaches at `end`.

    It is above 0 at exactly the steps of the interval (start, end), and with `ramp=0` it is that interval.
    A mapping with the key `ramp`, and no key but those below, is read as one; a prompt with the word "ramp"
    needs `default_` beside it.

    Args:
        end: Part of the steps after which the edit is off.
        ramp: Part of the steps during which it goes down, before `end`.
        shape: "linear", or "cosine" for half a period of it.
        start: Part of the steps before which the edit is off.

    Raises:
        ConfigError: A part outside [0, 1], a ramp that does not fit between start and end, an unknown shape.
    """

    end: float | int = 0.8
    ramp: float | int = 0.2
    shape: str = "linear"
    start: float | int = 0.0

    def __post_init__(self) -> None:
        for name in ("start", "end", "ramp"):
            object.__setattr__(self, name, _part(getattr(self, name), f"ramp {name}"))
        if self.start > self.end:
            raise ConfigError(f"ramp: it ends at {self.end:g} before it starts at {self.start:g}; swap them")
        if self.ramp > self.end - self.start + TINY:
            raise ConfigError(
                f"ramp: {self.ramp:g} of the steps do not fit between start {self.start:g} and end "
                f"{self.end:g}; make it shorter"
            )
        if self.shape not in ("linear", "cosine"):
            raise ConfigError(f"ramp shape: expected 'linear' or 'cosine', got {self.shape!r}")


TINY = 1e-12
"""Makes up for rounding: 0.3 - 0.1 is a little less than 0.2."""

Schedule = float | tuple[float, float] | Ramp
"""A schedule of one word, checked."""


@dataclass(frozen=True)
class PerWord:
    """Schedules by word, checked; written as a mapping.

    Attributes:
        words: Words or phrases of the target with their schedules; later ones win where they overlap.
        default: Schedule of all other columns, padding included.
    """

    words: tuple[tuple[str, Schedule], ...]
    default: Schedule = (0.0, 1.0)


def parse_tau(value: Any, name: str = "tau") -> Schedule | PerWord:
    """A schedule of cross-attention as given by a user, checked.

    Raises:
        ConfigError: It is none of the forms above; outside [0, 1]; or it ends before it starts.
    """
    if isinstance(value, PerWord):
        return value
    if not isinstance(value, Mapping) or _is_ramp(value):
        return _parse_schedule(value, name)
    if not value:
        raise ConfigError(f"{name}: expected words with their schedules, got none")
    parsed = {str(word): _parse_schedule(part, f"{name} {word!r}") for word, part in value.items()}
    default = parsed.pop(DEFAULT, (0.0, 1.0))
    return PerWord(tuple(parsed.items()), default) if parsed else default


def parse_interval(value: Any, name: str = "tau") -> float | tuple[float, float]:
    """A schedule of self-attention, a number or an interval, checked.

    Raises:
        ConfigError: Neither a number nor two; outside [0, 1]; or an interval that ends before it starts.
    """
    is_interval = isinstance(value, Sequence) and not isinstance(value, str)
    parts = list(value) if is_interval else [value]
    if len(parts) != 1 + is_interval or not all(map(_is_number, parts)):
        raise ConfigError(f"{name}: expected a number or an interval of two numbers, got {value!r}")
    if not all(0 <= part <= 1 for part in parts):
        raise ConfigError(f"{name}: expected values in [0, 1] (a share of the steps), got {value!r}")
    if parts[0] > parts[-1]:
        raise ConfigError(f"{name}: the interval {value!r} ends before it starts; swap its ends")
    return (float(parts[0]), float(parts[1])) if is_interval else float(parts[0])


_Given = float | int | Sequence[float] | Mapping[str, Any] | Ramp | PerWord

Tau = Annotated[_Given, Parsed(parse_tau)]
"""A schedule of cross-attention, as given."""

SelfTau = Annotated[_Given, Parsed(parse_interval)]
"""A schedule of self-attention, as given."""


def is_on(tau: Schedule | PerWord) -> bool:
    """Whether a schedule, or that of any word, is on for some share of the steps, however small."""
    match tau:
        case PerWord(words, default):
            return any(map(is_on, (default, *(part for _, part in words))))
        case Ramp(end=end, start=start) | (start, end):
            return start < end
        case number:
            return number > 0


def part_of(share: float, count: int) -> int:
    """How many of some steps lie in a share of them, cut to a whole number, of which rounding loses none.

    Schedules of cross- and self-attention and the start of a local blend do without: the released code cuts
    the product as it is, which leaves 28 of 50 steps to 0.58.

    Args:
        share: In [0, 1].
        count: Number of steps.
    """
    return int((share + 1e-7) * count)


def tau_text(value: Any) -> str:
    """A schedule as short text: "0.8", "0.2-0.8", "0-0.8 cosine 0.3", "0.8, circle 0-0.3"; "" for None.

    Raises:
        ConfigError: Not a schedule.
    """
    if value is None:
        return ""
    match parse_tau(value):
        case PerWord(words, default):
            return ", ".join([tau_text(default), *(f"{word} {tau_text(part)}" for word, part in words)])
        case Ramp(end, ramp, shape, start):
            return f"{start:g}-{end:g} {shape} {ramp:g}"
        case (start, end):
            return f"{start:g}-{end:g}"
        case number:
            return f"{number:g}"


def _parse_schedule(value: Any, name: str) -> Schedule:
    if isinstance(value, Ramp):
        return value
    if isinstance(value, Mapping) and _is_ramp(value):
        return Ramp(**value)
    if isinstance(value, Mapping):
        raise ConfigError(
            f"{name}: expected a number, an interval or a ramp {{end, ramp, shape, start}}, got {value!r}"
        )
    return parse_interval(value, name)


def _is_ramp(value: Mapping[Any, Any]) -> bool:
    return "ramp" in value and set(value) <= {field.name for field in fields(Ramp)}


def _part(value: Any, name: str) -> float:
    if not _is_number(value) or not 0 <= value <= 1:
        raise ConfigError(f"{name}: expected a number in [0, 1] (a share of the steps), got {value!r}")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
