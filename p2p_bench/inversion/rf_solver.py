"""RF-Solver (Wang et al., arXiv 2411.04746): steps of second order along a rectified flow, there and back.

The paper's Taylor step (eq. 9), x + h v + h^2 / 2 v', with v' from a velocity half a step on, is the explicit
midpoint rule. Its sharing of attention features between source and target is a controller's business here.

Notation:
    v, v_mid         velocity at a level and half a step on
    h                length of a step in sigma, negative toward the image
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.inversion.base import Sources, StepProgress, no_tick
from p2p_bench.inversion.ddim import StartReplay, passes
from p2p_bench.inversion.flow_ode import FlowPath, Velocity, backward, source_velocity
from p2p_bench.models.level import Level, halfway
from p2p_bench.models.model import DiffusionModel
from p2p_bench.sampling.replay import Replay
from p2p_bench.sampling.stepper import RowState, StepContext, Stepper


def midpoint(
    x: Float[Tensor, "n c h w"], here: Level, there: Level, velocity: Velocity
) -> Float[Tensor, "n c h w"]:
    """One step of second order, either way; asks twice."""
    h = there.sigma - here.sigma
    v_mid = velocity(x + h / 2 * velocity(x, here), halfway(here, there))
    return x + h * v_mid


@dataclass(frozen=True)
class RFSolverStepper(Stepper):
    """The step toward the image; the network is asked twice."""

    def step(self, state: RowState, here: Level, there: Level, context: StepContext) -> RowState:
        """See `Stepper.step`."""
        return (midpoint(state[0], here, there, lambda x, level: context.predict(x, level).velocity),)


@dataclass(frozen=True, eq=False)
class RFSolverReplay(StartReplay):
    """Sampling with steps of second order from where the inversion ended."""

    def stepper(self) -> Stepper:
        """That of the method."""
        return RFSolverStepper()


@dataclass(frozen=True)
class RFSolverInversion(FlowPath):
    """Second order each way; between Gaussians, and there and back again, order 3 was measured.

    The published editing scripts take 15 or 25 steps at guidance 2, inverted at 1.
    """

    @torch.no_grad()
    def invert(
        self, model: DiffusionModel, sources: Sources, steps: int, tick: StepProgress = no_tick
    ) -> Sequence[Replay]:
        """See `Inversion.invert`."""
        velocity = source_velocity(model, sources, self.guidance)
        x = sources.latents
        for here, there in backward(model, steps):
            x = midpoint(x, here, there, velocity)
            tick()
        rows = 2 * steps * passes(model, self.guidance)
        return [RFSolverReplay(start, rows) for start in x]
