"""Sampling of latent consistency models (Luo et al., arXiv 2310.04378): the image, and noise on it again.

Notation:
    c_skip, c_out    weights of the latents and of the predicted image, which are 1 and 0 at timestep 0
    t                timestep, of 0..999
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from p2p_bench.models.level import Level, Prediction
from p2p_bench.models.schedule import TIMESTEP_SCALING
from p2p_bench.models.timesteps import LevelKind
from p2p_bench.sampling.stepper import RowState, StepContext, Stepper

_SIGMA_DATA = 0.5


@dataclass(frozen=True)
class Consistency(Stepper):
    """Multistep consistency sampling (algorithm 3) as a stepper; its state is the latents alone."""

    @property
    def stochastic(self) -> bool:
        """See `Stepper.stochastic`."""
        return True

    @property
    def levels(self) -> LevelKind:
        """See `Stepper.levels`."""
        return "consistency"

    def step(self, state: RowState, here: Level, there: Level, context: StepContext) -> RowState:
        """See `Stepper.step`."""
        (x,) = state
        assert context.noise is not None
        return (there.noised(consistency(x, context.predict(x, here), here), context.noise),)


def consistency(x: Float[Tensor, "n c h w"], predicted: Prediction, here: Level) -> Float[Tensor, "n c h w"]:
    """The consistency function: the image at the end of the flow through latents (eq. 9).

    Args:
        x: Latents at `here`.
        predicted: Asked for there.
        here: Their level.
    """
    t = here.timestep * TIMESTEP_SCALING
    c_skip = _SIGMA_DATA**2 / (t**2 + _SIGMA_DATA**2)
    c_out = t / (t**2 + _SIGMA_DATA**2) ** 0.5
    denoised: Tensor = c_out * predicted.x_0 + c_skip * x
    return denoised
