"""Noise as a function of seeds, drawn on the CPU in float32, so that it is equal everywhere."""

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.hashing import noise_seed


def initial_noise(seed: int, shape: tuple[int, int, int]) -> Float[Tensor, "c h w"]:
    """Start noise of a sample: what diffusers draws from `torch.Generator("cpu").manual_seed(seed)`.

    Args:
        seed: Seed of the sample, not of the run.
        shape: Channels, height and width of a latent.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float32)


def step_noise(seed: int, step: int, shape: tuple[int, int, int], draw: int = 0) -> Float[Tensor, "c h w"]:
    """Noise added at a step, equal for source and targets of the sample.

    Args:
        seed: Seed of the sample.
        step: Index from 0.
        shape: Channels, height and width of a latent.
        draw: Which of several noises of the step, from 0.
    """
    name = f"step {step}" + (f" draw {draw}" if draw else "")
    return initial_noise(noise_seed(seed, name), shape)
