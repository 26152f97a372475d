"""DDIM (Song, Meng and Ermon, arXiv 2010.02502): steps toward the image and back.

Written in factors of image and noise, a step without added noise is the Euler step of a rectified flow, too.

Notation:
    x_t, x_prev      latents at the noisier and at the less noisy level of a step
    x_0, epsilon     image and noise predicted in x_t
    here, there      levels before and after a step
    sigma_t          standard deviation of the noise that is added, eq. 16
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from jaxtyping import Float
from torch import Tensor

from p2p_bench.fields import Between, check_fields
from p2p_bench.models.level import Denoised, Level, Prediction
from p2p_bench.models.timesteps import LevelKind
from p2p_bench.sampling.stepper import RowState, StepContext, Stepper


def ddim_step(
    predicted: Denoised | Prediction,
    here: Level,
    there: Level,
    eta: float = 0.0,
    noise: Float[Tensor, "n c h w"] | None = None,
) -> Float[Tensor, "n c h w"]:
    """One step to another level (eq. 12).

    Args:
        predicted: Image and noise in the latents at `here`.
        here: Level before the step.
        there: Level after it.
        eta: Share of DDPM's noise that is added, in [0, 1].
        noise: Standard normal noise; needed unless `eta` is 0.

    Returns:
        The latents at `there`.
    """
    x_0, epsilon = predicted.x_0, predicted.epsilon
    if eta == 0:
        return there.noised(x_0, epsilon)
    if noise is None:
        raise ValueError(f"noise: a step with eta {eta} adds noise, got None")
    sigma_t = eta * ddim_sigma(here, there)
    direction: Tensor = max(0.0, there.sigma**2 - sigma_t**2) ** 0.5 * epsilon
    return there.alpha * x_0 + direction + sigma_t * noise


def ddim_sigma(here: Level, there: Level) -> float:
    """Standard deviation of the noise of a step with eta 1, which is DDPM's (eq. 16)."""
    # What q(x_t | x_prev) adds to the noise of x_prev.
    added = here.sigma**2 - (here.alpha / there.alpha * there.sigma) ** 2
    sigma: float = there.sigma / here.sigma * max(0.0, added) ** 0.5
    return sigma


def ddim_inverse_step(
    x_prev: Float[Tensor, "n c h w"], predicted: Denoised, here: Level, there: Level
) -> Float[Tensor, "n c h w"]:
    """One step back toward the noise: `ddim_step` solved for `x_t`, with a prediction that is not of `x_t`.

    The prediction for `x_t` is not known before `x_t` is; taking that for `x_prev` is the error of DDIM
    inversion.

    Args:
        x_prev: Latents at `there`.
        predicted: Asked for at the level `here`.
        here: The noisier level, after this (backward) step.
        there: The level before it.

    Returns:
        `x_t`.
    """
    held = predicted.held(x_prev, there)
    return here.noised(held.x_0, held.epsilon)


@dataclass(frozen=True)
class DDIM(Stepper):
    """DDIM as a stepper; its state is the latents alone.

    On levels that end at the clean image it is Euler's step for a probability flow, and with eta 1 Euler's
    ancestral step: only the levels differ.

    Attributes:
        eta: Share of DDPM's noise that is added, in [0, 1].
        kind: Whose levels it steps along.
    """

    eta: Annotated[float, Between(0, 1)] = 0.0
    kind: Literal["ddim", "euler"] = "ddim"

    def __post_init__(self) -> None:
        """Checks the value.

        Raises:
            ConfigError: `eta` is out of range.
        """
        check_fields(self, "sampler.")

    @property
    def stochastic(self) -> bool:
        """Whether noise is added."""
        return self.eta > 0

    @property
    def levels(self) -> LevelKind:
        """See `Stepper.levels`."""
        return self.kind

    @property
    def leads_back(self) -> bool:
        """See `Stepper.leads_back`."""
        return self.eta == 0

    def step(self, state: RowState, here: Level, there: Level, context: StepContext) -> RowState:
        """See `Stepper.step`."""
        (x_t,) = state
        return (ddim_step(context.predict(x_t, here), here, there, self.eta, context.noise),)
