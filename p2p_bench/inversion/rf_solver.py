"""RF-Solver (Wang et al., arXiv 2411.04746): steps of second order along a rectified flow, there and back.

The paper's Taylor step (eq. 9), x + h v + h^2 / 2 v', with v' from a velocity half a step on, is the explicit
midpoint rule. Its sharing of attention features between source and target is a controller's business here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from p2p_bench.inversion.base import Sources, StepProgress, no_tick
from p2p_bench.inversion.ddim import StartReplay, passes
from p2p_bench.inversion.flow_ode import FlowPath, backward, source_velocity
from p2p_bench.models.model import DiffusionModel
from p2p_bench.sampling.flow_solvers import Midpoint, midpoint
from p2p_bench.sampling.replay import Replay
from p2p_bench.sampling.stepper import Stepper


@dataclass(frozen=True, eq=False)
class RFSolverReplay(StartReplay):
    """Sampling with steps of second order from where the inversion ended."""

    def stepper(self) -> Stepper:
        """The midpoint rule."""
        return Midpoint()


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
