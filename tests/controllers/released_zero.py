"""pix2pix-zero with DDIM and direct inversion, written out as the released scripts do it.

The source is sampled first and its maps of all steps are kept; one image at a time, maps written out. The
prompt takes the place of the caption. No code of the package but the networks.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.controllers.released_loops import Released


class CrossMaps:
    """Cross-attention of one layer, whose map of the last pass is kept, as `attn_probs` is."""

    def __init__(self) -> None:
        self.probs = torch.empty(0)

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any) -> Tensor:
        q, k, v = attn.to_q(hidden_states), attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        q, k, v = (attn.head_to_batch_dim(one) for one in (q, k, v))
        self.probs = (attn.scale * q @ k.transpose(1, 2)).softmax(-1)
        made: Tensor = attn.to_out[0](attn.batch_to_head_dim(self.probs @ v))
        return made


@contextmanager
def kept_maps(unet: Any) -> Iterator[list[CrossMaps]]:
    before = dict(unet.attn_processors)
    made = {name: CrossMaps() for name in before if "attn2" in name}
    unet.set_attn_processor({**before, **made})
    try:
        yield list(made.values())
    finally:
        unet.set_attn_processor(before)


PUBLISHED: Mapping[str, Any] = {
    "lambda_ac": 20.0, "lambda_kl": 20.0, "rounds": 5, "rolls": 5, "smallest": 8,
}  # fmt: skip


def auto_corr_loss(x: Tensor, drawn: Random, smallest: int) -> Any:
    loss: Any = 0.0
    for channel in x[0]:
        noise = channel[None, None]
        while True:
            roll = drawn.randrange(noise.shape[2] // 2)
            loss += (noise * torch.roll(noise, roll, 2)).mean() ** 2
            loss += (noise * torch.roll(noise, roll, 3)).mean() ** 2
            if noise.shape[2] <= smallest:
                break
            noise = F.avg_pool2d(noise, 2)
    return loss


def gradient(loss: Any, x: Tensor) -> Tensor:
    (made,) = torch.autograd.grad(loss, x)
    return made


class ReleasedZero(Released):
    """The two halves of the script."""

    def regularised(
        self,
        eps: Tensor,
        drawn: Random,
        lambda_ac: float,
        lambda_kl: float,
        rounds: int,
        rolls: int,
        smallest: int,
    ) -> Tensor:
        # The factors are for latents of 64 x 64: in a mean over fewer pixels each counts for more.
        area = eps.shape[2] * eps.shape[3] / 64**2
        for _ in range(rounds):
            for _ in range(rolls):
                var = eps.detach().clone().requires_grad_(True)
                eps = eps - area * lambda_ac * gradient(auto_corr_loss(var, drawn, smallest), var) / rolls
            var = eps.detach().clone().requires_grad_(True)
            kl = var.var() + var.mean() ** 2 - 1 - torch.log(var.var() + 1e-7)
            eps = eps - area * lambda_kl * gradient(kl, var)
        return eps.detach()

    def zero_inverted(self, x: Tensor, prompt: str, seed: int = 1234, **said: Any) -> list[Tensor]:
        """Latents from the image to the noise; `DDIMInverseScheduler`'s levels."""
        # The script seeds `random`; the checks of types in tests draw from that too.
        drawn, path = Random(seed), [x]
        for t in reversed(self.timesteps):
            with torch.no_grad():
                eps = self.epsilon(path[-1], t, self.told(prompt))
            eps = self.regularised(eps, drawn, **{**PUBLISHED, **said})
            ahead = t + 1000 // self.steps
            there = self.alphas[ahead - 1] if ahead <= 1000 else self.alphas[-1]
            path.append(self.moved(path[-1], eps, self.alphas[t - 1], there))
        return path

    def pix2pix_zero(
        self,
        path: Sequence[Tensor],
        source: str,
        target: str,
        *,
        direct: bool = False,
        guidance: float = 7.5,
        amount: float = 0.1,
        negative: str | None = None,
        maps: float = 1.0,
        sites: slice = slice(None),
        targets: bool = True,
    ) -> Tensor:
        """Latents of source and edit.

        Args:
            path: From the image to the noise.
            direct: Whether the source is put back on the path.
            negative: What passes without the prompt are told; None: the source prompt.
            maps: What the source's maps are multiplied with, for a reference that is wrong.
            sites: Which layers are compared, likewise.
            targets: Whether the target takes the offset too, likewise.
        """
        without = source if negative is None else negative
        text, kept, offsets = self.told(without, source), [], []
        with kept_maps(self.model.unet) as layers:
            x = path[-1]
            with torch.no_grad():
                for step, t in enumerate(self.timesteps):
                    u, c = self.epsilon(torch.cat([x, x]), t, text).chunk(2)
                    kept.append([maps * layer.probs for layer in layers])
                    x = self.moved(x, u + guidance * (c - u), self.alphas[t], self.before(t))
                    offsets.append(path[-2 - step] - x if direct else torch.zeros_like(x))
                    x = x + offsets[-1]
            rebuilt, x = x, path[-1]
            text = text.clone()
            text[1:] += self.told(target) - self.told(source)
            for step, t in enumerate(self.timesteps):
                x_in = torch.cat([x, x]).requires_grad_(True)
                self.epsilon(x_in, t, text)
                loss: Any = 0.0
                for layer, ref in list(zip(layers, kept[step], strict=True))[sites]:
                    loss += ((layer.probs - ref) ** 2).sum((1, 2)).mean(0)
                x_in = (x_in - amount * gradient(loss, x_in)).detach()
                with torch.no_grad():
                    u, c = self.epsilon(x_in, t, text).chunk(2)
                x = self.moved(x_in[:1], u + guidance * (c - u), self.alphas[t], self.before(t))
                x = x + (offsets[step] if targets else 0)
        return torch.cat([rebuilt, x])


SAID: Mapping[str, Any] = {"as_released": True, "shift_seed": 1234}
"""Settings of the script."""
