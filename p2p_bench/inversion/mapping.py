"""StyleDiffusion's mapping network M (Li et al., arXiv 2303.15649, section 3.2), one per image, side by side.

The released network is three convolutions of size 1 that mix tokens: from the image's tokens to twice the
text's columns; again, with batch normalisation and a leaky rectifier; and again. It sees one image at a time
and stays in training mode, so that normalisation is over the width of a token. Half of what comes out
multiplies the text, half is added.

Notation:
    theta    all weights of one image's network, one after the other
    tokens   what the image encoder says of the image, k x d
    l        text columns
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import leaky_relu

_EPSILON = 1e-5
"""Of batch normalisation."""


@dataclass(frozen=True)
class MappingNetwork:
    """The shape of the networks.

    Attributes:
        tokens: Tokens k of the image.
        columns: Text columns l.
    """

    tokens: int
    columns: int

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of weight and bias of the first, the second, of the normalisation, and of the third."""
        out = 2 * self.columns
        return (out, self.tokens), (out,), (out, out), (out,), (out,), (out,), (out, out), (out,)

    def start(self, generators: Sequence[torch.Generator]) -> Float[Tensor, "n p"]:
        """Networks before training, as torch initialises convolutions and normalisation.

        Args:
            generators: One per network, on the CPU.
        """
        return torch.stack([self._drawn(generator) for generator in generators])

    def _drawn(self, generator: torch.Generator) -> Float[Tensor, " p"]:
        """One network: uniform convolutions, drawn in the released order, and normalisation alone."""
        parts = [torch.full(shape, float(place == 4)) for place, shape in enumerate(self.shapes)]
        for place in (2, 0, 6):
            bound = self.shapes[place][1] ** -0.5
            for drawn in parts[place : place + 2]:
                drawn.uniform_(-bound, bound, generator=generator)
        return torch.cat([part.flatten() for part in parts])

    def __call__(
        self, theta: Float[Tensor, "n p"], tokens: Float[Tensor, "n k d"]
    ) -> tuple[Float[Tensor, "n l d"], Float[Tensor, "n l d"]]:
        """What each image's text is multiplied with, and what is added to it.

        Args:
            theta: Networks.
            tokens: Of their images.
        """
        first, first_bias, inner, inner_bias, gamma, beta, last, last_bias = (
            part.reshape(len(theta), *shape)
            for part, shape in zip(torch.split(theta, self._sizes, 1), self.shapes, strict=True)
        )
        hidden = first @ tokens + first_bias[..., None]
        hidden = inner @ hidden + inner_bias[..., None]
        spread, mean = torch.var_mean(hidden, 2, correction=0, keepdim=True)
        hidden = (hidden - mean) * (spread + _EPSILON).rsqrt() * gamma[..., None] + beta[..., None]
        made = last @ leaky_relu(hidden, 0.01) + last_bias[..., None]
        return made[:, : self.columns], made[:, self.columns :]

    @property
    def _sizes(self) -> list[int]:
        return [torch.Size(shape).numel() for shape in self.shapes]
