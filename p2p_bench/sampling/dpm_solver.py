"""DPM-Solver++ of second order, multistep (Lu et al., arXiv 2211.01095), and its stochastic form.

Notation:
    lambda        log(alpha / sigma) of a level
    h, h_0        what lambda gains in this step, and gained in the step before
    r_0           h_0 / h
    m_0, m_1      image predicted in this step, and in the step before
    D_1           (m_0 - m_1) / r_0: the slope of the prediction, in steps of h
"""

from dataclasses import dataclass
from math import log

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.models.level import Level
from p2p_bench.models.timesteps import LevelKind
from p2p_bench.sampling.stepper import RowState, StepContext, Stepper


def dpm_solver_step(
    x: Float[Tensor, "n c h w"],
    data: Float[Tensor, "n c h w"],
    here: Level,
    there: Level,
    noise: Float[Tensor, "n c h w"] | None = None,
) -> Float[Tensor, "n c h w"]:
    """One step of first order in the data, which is exact where the predicted image is constant.

    Args:
        x: Latents at `here`.
        data: The image that is taken for the predicted one all along the step; m_0 + D_1 / 2 makes the step
            one of second order (algorithm 2, by the midpoint rule).
        here: Level before the step.
        there: Level after it.
        noise: Standard normal noise, for the stochastic form (SDE-DPM-Solver++); None takes the other.
    """
    decay, shrink = there.sigma / here.sigma, _shrink(here, there)  # shrink is exp(-h)
    if noise is None:
        drift: Tensor = decay * x + there.alpha * (1 - shrink) * data
        return drift
    drift = decay * shrink * x + there.alpha * (1 - shrink**2) * data
    noised: Tensor = drift + there.sigma * (1 - shrink**2) ** 0.5 * noise
    return noised


@dataclass(frozen=True)
class DPMSolver(Stepper):
    """DPM-Solver++ 2M as a stepper; its state is the latents and the image predicted in the step before.

    The first step and the last, which ends at the clean image, are of first order, as in diffusers'
    `DPMSolverMultistepScheduler` with the final sigma at zero.

    Attributes:
        sde: The stochastic form.
        karras: Levels by Karras's rule.
    """

    sde: bool = False
    karras: bool = False

    @property
    def stochastic(self) -> bool:
        """See `Stepper.stochastic`."""
        return self.sde

    @property
    def levels(self) -> LevelKind:
        """See `Stepper.levels`."""
        return "karras" if self.karras else "multistep"

    def init(self, start: RowState) -> RowState:
        """The latents; nothing was predicted before."""
        (x,) = start
        return x, torch.zeros_like(x)

    def step(self, state: RowState, here: Level, there: Level, context: StepContext) -> RowState:
        """See `Stepper.step`."""
        x, m_1 = state
        m_0 = context.predict(x, here).x_0
        data = m_0
        if context.before is not None and there.sigma > 0:
            r_0 = log(_shrink(context.before, here)) / log(_shrink(here, there))
            data = m_0 + 0.5 * (m_0 - m_1) / r_0
        return dpm_solver_step(x, data, here, there, context.noise), m_0


def _shrink(here: Level, there: Level) -> float:
    """exp(-h) of a step."""
    return here.alpha * there.sigma / (there.alpha * here.sigma)
