"""Noise levels, and what a network makes of latents at one of them.

Notation, for every family:
    x_t = alpha x_0 + sigma epsilon     latents at a level: image and noise in them
    alpha^2 + sigma^2 = 1               families that learnt by diffusion (DDPM)
    alpha + sigma = 1                   families that learnt a rectified flow
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Level:
    """A noise level.

    Attributes:
        timestep: What the network is told of it; negative at the clean end of a diffusion, where no network
            is asked, and 0 at that of a flow.
        alpha: Factor of the image, in [0, 1].
        sigma: Factor of the noise, in [0, 1].
    """

    timestep: float
    alpha: float
    sigma: float

    def noised(self, x_0: Float[Tensor, "*shape"], noise: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Latents of an image at this level."""
        return self.alpha * x_0 + self.sigma * noise


def halfway(here: Level, there: Level) -> Level:
    """The level between two of a rectified flow."""
    middle = [(one + other) / 2 for one, other in zip(_numbers(here), _numbers(there), strict=True)]
    return Level(*middle)


def _numbers(level: Level) -> tuple[float, float, float]:
    return level.timestep, level.alpha, level.sigma


@dataclass(frozen=True)
class Thresholding:
    """Dynamic thresholding of images in [-1, 1] (Saharia et al., arXiv 2205.11487, section 2.3).

    An image is cut off at `s`, the given quantile of its absolute values and at least 1, and divided by `s`.

    Attributes:
        ratio: The quantile, in [0, 1].
        maximum: Most that `s` is; 1 is plain clipping.
    """

    ratio: float
    maximum: float

    def __call__(self, x_0: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The images, cut off."""
        sizes = torch.quantile(x_0.abs().flatten(1), self.ratio, dim=1).clamp(1, self.maximum)
        s = sizes[:, None, None, None]
        return torch.clamp(x_0, -s, s) / s


@dataclass(frozen=True, eq=False)
class Denoised:
    """What a network says of noisy latents: the image and the noise in them, by one of the two or a mixture.

    Guidance and what else is linear in a network's answer works on `output`; `x_0` and `epsilon` follow.

    Attributes:
        x_t: The latents.
        level: Their level.
        output: The answer, of the latents' shape.
        kind: What `output` is: "epsilon", the noise; or "flow", the noise minus the image, for levels with
            alpha + sigma = 1 (where the noise alone says nothing of the image at alpha 0).
        thresholding: What is done to the image, for models of pixels. As in diffusers' `DDIMScheduler` it
            comes after guidance, and the noise stays as the network said it, so that image and noise no
            longer add up to the latents.
    """

    x_t: Float[Tensor, "n c h w"]
    level: Level
    output: Float[Tensor, "n c h w"]
    kind: Literal["epsilon", "flow"] = "epsilon"
    thresholding: Thresholding | None = None

    @property
    def epsilon(self) -> Float[Tensor, "n c h w"]:
        """The noise in the latents."""
        return self.output if self.kind == "epsilon" else self.x_t + self.level.alpha * self.output

    @property
    def x_0(self) -> Float[Tensor, "n c h w"]:
        """The image in the latents."""
        x_0 = self.x_t - self.level.sigma * self.output
        if self.kind == "epsilon":
            x_0 = x_0 / self.level.alpha
        return x_0 if self.thresholding is None else self.thresholding(x_0)

    @property
    def velocity(self) -> Float[Tensor, "n c h w"]:
        """The noise less the image: how the latents of a rectified flow change with sigma."""
        return self.output if self.kind == "flow" else self.epsilon - self.x_0

    def with_output(self, output: Float[Tensor, "n c h w"]) -> "Denoised":
        """Another answer of the same kind to the same latents."""
        return replace(self, output=output)

    def held(self, x: Float[Tensor, "n c h w"], level: Level) -> "Denoised":
        """The same answer, taken for that to other latents at another level.

        What leads back to the noise asks for this. The image is that which is in these latents, and is not
        thresholded, which could not be undone.
        """
        return replace(self, x_t=x, level=level, thresholding=None)

    def select(self, rows: Int64[Tensor, " k"]) -> "Denoised":
        """The answer to some rows, by index."""
        return replace(self, x_t=self.x_t.index_select(0, rows), output=self.output.index_select(0, rows))

    def rows(self, start: int, stop: int) -> "Denoised":
        """The answer to consecutive rows."""
        return replace(self, x_t=self.x_t[start:stop], output=self.output[start:stop])


def stacked(parts: Sequence[Denoised]) -> Denoised:
    """Answers of one kind at one level, one under the other."""
    if len(parts) == 1:
        return parts[0]
    x_t, output = (torch.cat([getattr(part, name) for part in parts]) for name in ("x_t", "output"))
    return replace(parts[0], x_t=x_t, output=output)


@dataclass(frozen=True, eq=False)
class Prediction:
    """A guided and edited prediction of the rows of a batch, with what it was made of.

    Attributes:
        guided: What is stepped with.
        conditional: Predicted with the prompts, after the edit.
        unconditional: Predicted without; in rows without an unconditional pass the conditional one.
    """

    guided: Denoised
    conditional: Denoised
    unconditional: Denoised

    @property
    def x_0(self) -> Float[Tensor, "n c h w"]:
        """The image in the latents."""
        return self.guided.x_0

    @property
    def epsilon(self) -> Float[Tensor, "n c h w"]:
        """The noise in the latents."""
        return self.guided.epsilon

    @property
    def velocity(self) -> Float[Tensor, "n c h w"]:
        """The noise less the image."""
        return self.guided.velocity

    @property
    def difference(self) -> Float[Tensor, "n c h w"]:
        """What the prompt adds: conditional minus unconditional output; 0 without an unconditional pass."""
        return self.conditional.output - self.unconditional.output

    def rows(self, start: int, stop: int) -> "Prediction":
        """That of consecutive rows."""
        parts = (part.rows(start, stop) for part in (self.guided, self.conditional, self.unconditional))
        return Prediction(*parts)
