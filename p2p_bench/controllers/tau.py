"""Tau: during which steps an edit is on.

A fraction t means the interval (0, t); an interval (a, b) counts from the first, noisiest step. As in the
released code of Prompt-to-Prompt, a cross schedule has `steps + 1` entries and a self schedule has `steps`.
"""

from collections.abc import Sequence
from numbers import Real
from typing import Any

from p2p_bench.errors import ConfigError

Tau = float | int | Sequence[float]


def parse_tau(value: Any, name: str = "tau") -> float | tuple[float, float]:
    """A tau as given by a user, checked.

    Raises:
        ConfigError: Neither a number nor two; outside [0, 1]; or an interval that ends before it starts.
    """
    parts: list[Any]
    match value:
        case [*parts]:
            is_interval = True
        case _:
            parts, is_interval = [value], False
    numbers = all(isinstance(part, Real) and not isinstance(part, bool) for part in parts)
    if len(parts) != 1 + is_interval or not numbers:
        raise ConfigError(f"{name}: expected a number or an interval of two numbers, got {value!r}")
    if not all(0 <= part <= 1 for part in parts):
        raise ConfigError(f"{name}: expected values in [0, 1] (a share of the steps), got {value!r}")
    if parts[0] > parts[-1]:
        raise ConfigError(f"{name}: the interval {value!r} ends before it starts; swap its ends")
    return (float(parts[0]), float(parts[1])) if is_interval else float(parts[0])


def cross_steps(tau: Tau, steps: int) -> tuple[int, int]:
    """First step, and step after the last, of a cross-attention edit: `int(tau * (steps + 1))`."""
    start, end = _interval(tau)
    return min(int(start * (steps + 1)), steps), min(int(end * (steps + 1)), steps)


def self_steps(tau: Tau, steps: int) -> tuple[int, int]:
    """First step, and step after the last, of a self-attention injection: `int(tau * steps)`."""
    start, end = _interval(tau)
    return int(start * steps), int(end * steps)


def _interval(tau: Tau) -> tuple[float, float]:
    parsed = parse_tau(tau)
    return parsed if isinstance(parsed, tuple) else (0.0, parsed)
