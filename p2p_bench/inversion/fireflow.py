"""FireFlow (Deng et al., arXiv 2412.07517): the midpoint rule at the cost of Euler's, there and back.

The velocity that leads to the middle of a step is that of the middle of the step before, so that a step asks
the network once; only the first asks twice.

Notation:
    v_hat            velocity in the middle of the step before; at first that at the start
    h                length of a step in sigma, negative toward the image
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.inversion.base import Sources, StepProgress, no_tick
from p2p_bench.inversion.ddim import StartReplay, passes
from p2p_bench.inversion.flow_ode import FlowPath, backward, source_velocity
from p2p_bench.models.level import Level, halfway
from p2p_bench.models.model import DiffusionModel
from p2p_bench.sampling.flow_solvers import Velocity
from p2p_bench.sampling.replay import Replay
from p2p_bench.sampling.stepper import RowState, StepContext, Stepper

Pair = tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"]]


def fireflow_step(
    x: Float[Tensor, "n c h w"],
    v_hat: Float[Tensor, "n c h w"],
    here: Level,
    there: Level,
    velocity: Velocity,
) -> Pair:
    """One step, either way: the latents, and the velocity that the next step begins with."""
    h = there.sigma - here.sigma
    v_mid = velocity(x + h / 2 * v_hat, halfway(here, there))
    return x + h * v_mid, v_mid


@dataclass(frozen=True)
class FireFlowStepper(Stepper):
    """The step toward the image; its state is the latents and the velocity of the step before."""

    def init(self, start: RowState) -> RowState:
        """There is no step before the first, which asks for its velocity."""
        return (*start, torch.zeros_like(start[0]))

    def step(self, state: RowState, here: Level, there: Level, context: StepContext) -> RowState:
        """See `Stepper.step`."""

        def velocity(x: Float[Tensor, "n c h w"], level: Level) -> Float[Tensor, "n c h w"]:
            return context.predict(x, level).velocity

        x, v_hat = state
        v_hat = velocity(x, here) if context.step == 0 else v_hat
        return fireflow_step(x, v_hat, here, there, velocity)


@dataclass(frozen=True, eq=False)
class FireFlowReplay(StartReplay):
    """Sampling with the method's steps from where the inversion ended."""

    def stepper(self) -> Stepper:
        """That of the method."""
        return FireFlowStepper()


@dataclass(frozen=True)
class FireFlowInversion(FlowPath):
    """Second order at one pass a step; there and back again order 3 was measured.

    The published runs take 8 or 15 steps at guidance 2, inverted at 1; their sharing of attention features
    between source and target is a controller's business here.
    """

    @torch.no_grad()
    def invert(
        self, model: DiffusionModel, sources: Sources, steps: int, tick: StepProgress = no_tick
    ) -> Sequence[Replay]:
        """See `Inversion.invert`."""
        velocity = source_velocity(model, sources, self.guidance)
        way = backward(model, steps)
        x = sources.latents
        v_hat = velocity(x, way[0][0])
        for here, there in way:
            x, v_hat = fireflow_step(x, v_hat, here, there, velocity)
            tick()
        rows = (steps + 1) * passes(model, self.guidance)
        return [FireFlowReplay(start, rows) for start in x]
