"""Tau: the gates of schedules, as numbers per step; `p2p_bench.tau` has the forms in which they are written.

As in the released code of Prompt-to-Prompt, a cross schedule has `steps + 1` entries and a self schedule has
`steps`.
"""

from collections.abc import Sequence
from math import cos, pi

import torch
from jaxtyping import Float64
from torch import Tensor

from p2p_bench.prompts.words import TokenizedPrompt, columns_of
from p2p_bench.tau import (
    TINY,
    PerWord,
    Ramp,
    Schedule,
    Tau,
    parse_interval,
    parse_tau,
)


def cross_gate(tau: Tau, target: TokenizedPrompt, steps: int) -> Float64[Tensor, "steps w"]:
    """The gate alpha of a cross-attention edit: how far it is on at each step, for each target column.

    Raises:
        ConfigError: Not a schedule.
        PromptError: A word with a schedule of its own is not in the target prompt.
    """
    parsed = parse_tau(tau)
    default, words = (parsed.default, parsed.words) if isinstance(parsed, PerWord) else (parsed, ())
    gate = schedule_gate(default, target.width, steps)
    for word, schedule in words:
        gate[:, list(columns_of(target, word))] = _curve(schedule, steps)[:, None]
    return gate


def schedule_gate(schedule: Schedule, width: int, steps: int) -> Float64[Tensor, "steps w"]:
    """The gate of a schedule that holds for all columns."""
    return _curve(schedule, steps)[:, None].repeat(1, width)


def cross_steps(tau: float | Sequence[float], steps: int) -> tuple[int, int]:
    """First step, and step after the last, of a hard cross-attention gate: `int(tau * (steps + 1))`."""
    start, end = _ends(parse_interval(tau))
    return min(int(start * (steps + 1)), steps), min(int(end * (steps + 1)), steps)


def self_steps(tau: Tau, steps: int) -> tuple[int, int]:
    """First step, and step after the last, of an edit of self-attention: `int(tau * steps)`."""
    start, end = _ends(parse_interval(tau))
    return int(start * steps), int(end * steps)


def _curve(schedule: Schedule, steps: int) -> Float64[Tensor, " steps"]:
    """The gate of one schedule at each step."""
    curve = torch.zeros(steps, dtype=torch.float64)
    if not isinstance(schedule, Ramp):
        start, stop = cross_steps(schedule, steps)
        curve[start:stop] = 1
        return curve
    start, stop = cross_steps((schedule.start, schedule.end), steps)
    full = min(schedule.end - schedule.ramp + TINY, schedule.end)
    down, _ = cross_steps((max(full, 0.0), 1.0), steps)
    curve[start:down] = 1
    for step in range(max(start, down), stop):
        u = (step - down + 1) / (stop - down + 1)
        curve[step] = 1 - u if schedule.shape == "linear" else (1 + cos(pi * u)) / 2
    return curve


def _ends(tau: float | tuple[float, float]) -> tuple[float, float]:
    return tau if isinstance(tau, tuple) else (0.0, tau)
