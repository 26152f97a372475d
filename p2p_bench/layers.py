"""Steps and layers as a user writes them, by share or by index, checked; loads no torch."""

from collections.abc import Sequence
from math import inf
from numbers import Real
from typing import Annotated, Any

from p2p_bench.errors import ConfigError
from p2p_bench.fields import Parsed


def parse_step(value: Any, name: str) -> float | int:
    """The first step of something: a share of the steps, or an index.

    Raises:
        ConfigError: Neither a share in [0, 1] nor an index.
    """
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not (0 <= value <= 1 or (isinstance(value, int) and value >= 0))
    ):
        raise ConfigError(
            f"{name}: expected a share of the steps such as 0.08, or an index such as 4, got {value!r}"
        )
    return value


def parse_layers(value: Any, name: str) -> float | int | tuple[float | int, ...]:
    """A range of layers: the first, or the first and the one after the last.

    Raises:
        ConfigError: Not one or two numbers; shares outside [0, 1]; or it ends before it starts.
    """
    is_range = isinstance(value, Sequence) and not isinstance(value, str)
    places = tuple(value) if is_range else (value,)
    if not 1 <= len(places) <= 2 or not all(isinstance(p, Real) and not isinstance(p, bool) for p in places):
        raise ConfigError(
            f"{name}: expected the first layer, or the first and the one after the last, got {value!r}"
        )
    start, stop, as_share = layer_bounds(places)
    if not 0 <= start < stop or (as_share and stop > 1):
        kind = "shares in [0, 1]" if as_share else "indices from 0 on"
        raise ConfigError(f"{name}: expected {kind}, the first below the last, got {value!r}")
    return places if is_range else places[0]


def layer_bounds(layers: float | int | Sequence[float | int]) -> tuple[float, float, bool]:
    """The first layer of a range, the one after the last, and whether they are shares of all or indices."""
    places = layers if isinstance(layers, Sequence) else (layers,)
    as_share = any(isinstance(place, float) for place in places)
    start, stop = (*places, 1.0 if as_share else inf)[:2]
    return float(start), float(stop), as_share


FirstStep = Annotated[float | int, Parsed(parse_step)]
"""The first step of something, as given."""

LayerRange = Annotated[float | int | Sequence[float | int], Parsed(parse_layers)]
"""A range of layers, as given."""
