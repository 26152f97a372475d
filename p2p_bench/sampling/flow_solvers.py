"""Steps of second order along a rectified flow: Heun's rule and the midpoint rule, two passes each.

Notation:
    v                velocity dx / dsigma, which the network predicts
    h                length of a step in sigma, negative toward the image
"""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from p2p_bench.models.level import Level, halfway
from p2p_bench.models.timesteps import LevelKind
from p2p_bench.sampling.stepper import RowState, StepContext, Stepper

Velocity = Callable[[Float[Tensor, "n c h w"], Level], Float[Tensor, "n c h w"]]
"""The velocity in latents at a level; a pass of the network."""


def midpoint(
    x: Float[Tensor, "n c h w"], here: Level, there: Level, velocity: Velocity
) -> Float[Tensor, "n c h w"]:
    """One step of second order, either way; asks twice."""
    h = there.sigma - here.sigma
    v_mid = velocity(x + h / 2 * velocity(x, here), halfway(here, there))
    return x + h * v_mid


def heun(
    x: Float[Tensor, "n c h w"], here: Level, there: Level, velocity: Velocity
) -> Float[Tensor, "n c h w"]:
    """One step of second order; asks twice, but once where it ends at the clean image, as in diffusers."""
    h = there.sigma - here.sigma
    v = velocity(x, here)
    if there.sigma == 0:
        return x + h * v
    return x + h / 2 * (v + velocity(x + h * v, there))


@dataclass(frozen=True)
class Midpoint(Stepper):
    """The explicit midpoint rule as a stepper; its state is the latents alone."""

    @property
    def levels(self) -> LevelKind:
        """See `Stepper.levels`."""
        return "flow"

    def step(self, state: RowState, here: Level, there: Level, context: StepContext) -> RowState:
        """See `Stepper.step`."""
        return (midpoint(state[0], here, there, _velocity(context)),)


@dataclass(frozen=True)
class Heun(Stepper):
    """Heun's rule as a stepper: diffusers' `FlowMatchHeunDiscreteScheduler` without added noise."""

    @property
    def levels(self) -> LevelKind:
        """See `Stepper.levels`."""
        return "flow"

    def step(self, state: RowState, here: Level, there: Level, context: StepContext) -> RowState:
        """See `Stepper.step`."""
        return (heun(state[0], here, there, _velocity(context)),)


def _velocity(context: StepContext) -> Velocity:
    return lambda x, level: context.predict(x, level).velocity
