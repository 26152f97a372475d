"""DDPM (Ho, Jain and Abbeel, arXiv 2006.11239): a step with noise, of a variance that may have been learnt.

Notation:
    x_t, x_prev      images at the noisier and at the less noisy level of a step
    alpha_bar        share of signal power at a level
    beta             1 - alpha_bar of the noisier level / that of the other
"""

from math import log

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.models.level import Denoised, Level
from p2p_bench.models.schedule import Variance

_LEAST = 1e-20
"""Variance below which diffusers does not go."""


def ddpm_step(
    predicted: Denoised,
    here: Level,
    there: Level,
    noise: Float[Tensor, "n c h w"] | None,
    variance: Variance,
    said: Float[Tensor, "n c h w"],
) -> Float[Tensor, "n c h w"]:
    """One step to a less noisy level: the mean of eq. 7, and noise. It equals diffusers' `DDPMScheduler`.

    Args:
        predicted: Image in `x_t`.
        here: Level before the step.
        there: Level after it.
        noise: Standard normal noise; None adds none, as at timestep 0.
        variance: Of the noise.
        said: What the network says of the variance, read where it has learnt it: from -1, the least that it
            can be, to 1, the most (Nichol and Dhariwal, arXiv 2102.09672, eq. 15).

    Returns:
        `x_prev`.
    """
    alpha_bar_ratio = (here.alpha / there.alpha) ** 2
    beta = 1 - alpha_bar_ratio
    of_image = there.alpha * beta / here.sigma**2
    of_sample = alpha_bar_ratio**0.5 * there.sigma**2 / here.sigma**2
    mean: Tensor = of_image * predicted.x_0 + of_sample * predicted.x_t
    if noise is None:
        return mean
    least = max(there.sigma**2 / here.sigma**2 * beta, _LEAST)
    if variance == "learned_range":
        share = (said + 1) / 2
        return mean + torch.exp(0.5 * (share * log(beta) + (1 - share) * log(least))) * noise
    deviation: float = (least if variance == "fixed_small" else beta) ** 0.5
    return mean + deviation * noise
