"""How far a predicted noise is from white Gaussian noise, and steps toward it.

pix2pix-zero (Parmar et al., arXiv 2302.03027, section 3.2) regularises inversion so. Images do not mix: a
batch gives what each image gives alone.

Notation:
    e            predicted noise of an image, (c, h, w)
    L_pair       squared mean product of a channel with itself, rolled along one side, both sides added up, at
                 half the side again and again down to 8
    L_KL         KL divergence of a Gaussian with the mean and variance of e from the standard one, times 2
"""

from collections.abc import Callable, Sequence
from random import Random

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import avg_pool2d

SMALLEST = 8
"""Side, in latent pixels, below which a channel is not halved again, as released."""

Loss = Callable[[Float[Tensor, "n c h w"]], Float[Tensor, " n"]]
"""A number for each image."""


def num_sizes(height: int) -> int:
    """How many sizes of a channel are looked at."""
    count = 1
    while height > SMALLEST:
        count, height = count + 1, height // 2
    return count


def drawn_shifts(generators: Sequence[Random], channels: int, height: int) -> Int64[Tensor, "n c sizes"]:
    """How far channels are rolled, from 0 to below half their height; 0 is drawn as well, as released.

    Args:
        generators: One per image; each draws channel by channel, size by size.
        channels: Number of channels.
        height: Of a channel.
    """
    sides = [height // 2**size for size in range(num_sizes(height))]
    drawn = [
        [[one.randrange(max(1, side // 2)) for side in sides] for _ in range(channels)] for one in generators
    ]
    return torch.tensor(drawn, dtype=torch.int64)


def auto_correlation(
    noise: Float[Tensor, "n c h w"], shifts: Int64[Tensor, "n c sizes"]
) -> Float[Tensor, " n"]:
    """L_pair of each image, summed over channels and sizes.

    Args:
        noise: Predicted noise.
        shifts: How far each channel is rolled at each size.
    """
    total = noise.new_zeros(len(noise))
    for size in range(shifts.shape[2]):
        if size:
            noise = avg_pool2d(noise, 2)
        for side in (2, 3):
            rolled = _rolled(noise, shifts[:, :, size].to(noise.device), side)
            total = total + (noise * rolled).mean((2, 3)).square().sum(1)
    return total


def kl_divergence(noise: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """L_KL of each image; its variance is that of a sample, as released."""
    flat = noise.flatten(1)
    mean, variance = flat.mean(1), flat.var(1)
    return variance + mean.square() - 1 - torch.log(variance + 1e-7)


def descended(noise: Float[Tensor, "n c h w"], loss: Loss, amount: float) -> Float[Tensor, "n c h w"]:
    """The noise after one gradient step of each image on its own loss.

    Args:
        noise: Predicted noise.
        loss: The loss.
        amount: What the gradient is multiplied with.
    """
    with torch.inference_mode(False), torch.enable_grad():
        own = noise.detach().clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(loss(own).sum(), own)
    return noise - amount * gradient


def _rolled(
    noise: Float[Tensor, "n c h w"], shifts: Int64[Tensor, "n c"], side: int
) -> Float[Tensor, "n c h w"]:
    """Channels rolled along a side, each by its own number."""
    length = noise.shape[side]
    places = (torch.arange(length, device=noise.device) - shifts[:, :, None]) % length
    index = places[:, :, :, None] if side == 2 else places[:, :, None, :]
    return noise.gather(side, index.expand_as(noise))
