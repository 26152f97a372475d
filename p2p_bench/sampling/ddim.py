"""DDIM (Song, Meng and Ermon, arXiv 2010.02502): steps toward the image and back.

Notation:
    x_t, x_prev      latents at the noisier and at the less noisy timestep of a step
    epsilon          predicted noise in x_t
    alpha_bar_t      share of signal power at the noisier timestep
    alpha_bar_prev   share of signal power at the less noisy timestep
    sigma            standard deviation of the noise that is added, eq. 16
"""

from dataclasses import dataclass
from typing import Annotated

from jaxtyping import Float
from torch import Tensor

from p2p_bench.fields import Between, check_fields
from p2p_bench.models.schedule import clean_latents
from p2p_bench.sampling.stepper import RowState, StepContext, Stepper


def ddim_step(
    x_t: Float[Tensor, "n c h w"],
    epsilon: Float[Tensor, "n c h w"],
    alpha_bar_t: float,
    alpha_bar_prev: float,
    eta: float = 0.0,
    noise: Float[Tensor, "n c h w"] | None = None,
) -> Float[Tensor, "n c h w"]:
    """One step toward the image (eq. 12).

    Args:
        x_t: Latents.
        epsilon: Noise predicted in them.
        alpha_bar_t: Signal power before the step.
        alpha_bar_prev: Signal power after the step.
        eta: Share of DDPM's noise that is added, in [0, 1].
        noise: Standard normal noise; needed unless `eta` is 0.

    Returns:
        `x_prev`.
    """
    x_0 = clean_latents(x_t, epsilon, alpha_bar_t)
    if eta == 0:
        return alpha_bar_prev**0.5 * x_0 + (1 - alpha_bar_prev) ** 0.5 * epsilon
    if noise is None:
        raise ValueError(f"noise: a step with eta {eta} adds noise, got None")
    sigma = eta * ddim_sigma(alpha_bar_t, alpha_bar_prev)
    direction = (1 - alpha_bar_prev - sigma**2) ** 0.5 * epsilon
    return alpha_bar_prev**0.5 * x_0 + direction + sigma * noise


def ddim_sigma(alpha_bar_t: float, alpha_bar_prev: float) -> float:
    """Standard deviation of the noise of a step with eta 1, which is DDPM's (eq. 16)."""
    return ((1 - alpha_bar_prev) / (1 - alpha_bar_t) * (1 - alpha_bar_t / alpha_bar_prev)) ** 0.5


def ddim_inverse_step(
    x_prev: Float[Tensor, "n c h w"],
    epsilon: Float[Tensor, "n c h w"],
    alpha_bar_t: float,
    alpha_bar_prev: float,
) -> Float[Tensor, "n c h w"]:
    """One step back toward the noise: `ddim_step` solved for `x_t`, with the noise of `x_prev` in its place.

    The noise in `x_t` is not known before `x_t` is; taking that of `x_prev` is the error of DDIM inversion.

    Args:
        x_prev: Latents.
        epsilon: Noise predicted in them, at the timestep of `alpha_bar_t`.
        alpha_bar_t: Signal power after this (backward) step.
        alpha_bar_prev: Signal power before it.

    Returns:
        `x_t`.
    """
    x_0 = clean_latents(x_prev, epsilon, alpha_bar_prev)
    return alpha_bar_t**0.5 * x_0 + (1 - alpha_bar_t) ** 0.5 * epsilon


@dataclass(frozen=True)
class DDIM(Stepper):
    """DDIM as a stepper; its state is the latents alone.

    Attributes:
        eta: Share of DDPM's noise that is added, in [0, 1].
    """

    eta: Annotated[float, Between(0, 1)] = 0.0

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

    def step(self, state: RowState, context: StepContext) -> RowState:
        """See `Stepper.step`."""
        (x_t,) = state
        epsilon = context.epsilon(x_t)
        alpha_bar_t = context.schedule.alpha_bar(context.timestep)
        alpha_bar_prev = context.schedule.alpha_bar(context.previous)
        return (ddim_step(x_t, epsilon, alpha_bar_t, alpha_bar_prev, self.eta, context.noise),)
