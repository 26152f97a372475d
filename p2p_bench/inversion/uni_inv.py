"""Uni-Inv (Jiao et al., UniEdit-Flow, arXiv 2504.13109): Euler's inversion, asked where a step leads.

A step of Euler's backward rule needs the velocity at its end, which is not known; it is asked for at a guess
of that end, made with the velocity of the step before.

Notation:
    x, x_guess       latents at a level, and a guess of those at the next
    v                velocity that led to x; it leads to the next guess
    h                length of a step in sigma, positive toward the noise
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.inversion.base import Sources, StepProgress, no_tick
from p2p_bench.inversion.ddim import StartReplay, passes
from p2p_bench.inversion.flow_ode import FlowPath, backward, source_velocity
from p2p_bench.models.level import Level
from p2p_bench.models.model import DiffusionModel
from p2p_bench.sampling.flow_solvers import Velocity
from p2p_bench.sampling.replay import Replay


def uni_inv(
    x: Float[Tensor, "n c h w"],
    way: Sequence[tuple[Level, Level]],
    velocity: Velocity,
    tick: Callable[[], None] = no_tick,
) -> Float[Tensor, "n c h w"]:
    """Latents at the end of a way to the noise (algorithm 1); asks once a step and once more at the start.

    Args:
        x: Latents at the start.
        way: Its steps.
        velocity: Asked for.
        tick: Called after each step.
    """
    v = velocity(x, way[0][0]) if way else x
    for here, there in way:
        h = there.sigma - here.sigma
        x_guess = x + h * v
        v = velocity(x_guess, there)
        x = x + h * v
        tick()
    return x


@dataclass(frozen=True)
class UniInvInversion(FlowPath):
    """First order at the noise; replayed by Euler's steps it comes back with an error of order 2 (measured).

    The published runs invert with the source prompt, or with the empty one (`inversion_prompt`), unguided.
    """

    @torch.no_grad()
    def invert(
        self, model: DiffusionModel, sources: Sources, steps: int, tick: StepProgress = no_tick
    ) -> Sequence[Replay]:
        """See `Inversion.invert`."""
        velocity = source_velocity(model, sources, self.guidance)
        x = uni_inv(sources.latents, backward(model, steps), velocity, tick)
        rows = (steps + 1) * passes(model, self.guidance)
        return [StartReplay(start, rows) for start in x]
