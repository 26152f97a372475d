"""Null-text inversion as plainly as possible, one image at a time: a reference and a baseline.

Maps are written out, and every weight that asks for a gradient gets one, as in the released code.
"""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from p2p_bench.models import DiffusionModel
from tests.oracle import materialised_attention


@dataclass(frozen=True)
class NaiveNullText:
    """Start latents, an embedding per step, and the losses of each step's updates."""

    start: Tensor
    embeddings: list[Tensor]
    losses: list[list[float]]


def naive_null_text(
    model: DiffusionModel,
    latents: Tensor,
    prompt: str,
    steps: int,
    guidance: float,
    inner_steps: int = 10,
    learning_rate: float = 1e-2,
    tolerance: float = 1e-5,
    materialised: bool = True,
) -> NaiveNullText:
    """The released algorithm for latents (1, c, h, w); step numbers are scaled to a run of 50."""
    stride, alphas = 1000 // steps, model.schedule.alphas_cumprod
    text, empty = model.encode_prompts([prompt]), model.encode_prompts([""])

    def level(t: int) -> float:
        return float(alphas[max(t, 0)])

    def epsilon(x: Tensor, t: int, embedding: Tensor) -> Tensor:
        out = model.unet(x, t, embedding).sample
        if model.schedule.prediction_type == "epsilon":
            return out
        return level(t) ** 0.5 * out + (1 - level(t)) ** 0.5 * x

    def move(x: Tensor, eps: Tensor, at: float, to: float) -> Tensor:
        return to**0.5 * (x - (1 - at) ** 0.5 * eps) / at**0.5 + (1 - to) ** 0.5 * eps

    with materialised_attention(model.unet, []) if materialised else nullcontext():
        pivot = [latents]
        with torch.no_grad():
            for step in range(steps):
                t = 1 + step * stride
                pivot.append(move(pivot[-1], epsilon(pivot[-1], t, text), level(t - stride), level(t)))
        x, null = pivot[-1], empty
        embeddings, losses = [], []
        for step in range(steps):
            t, place = 1 + (steps - 1 - step) * stride, step * 50 / steps
            null = null.clone().detach().requires_grad_(True)
            optimiser = torch.optim.Adam([null], lr=learning_rate * (1 - place / 100))
            with torch.no_grad():
                conditional = epsilon(x, t, text)
            losses.append([])
            for _ in range(inner_steps):
                unconditional = epsilon(x, t, null)
                eps = unconditional + guidance * (conditional - unconditional)
                loss = (move(x, eps, level(t), level(t - stride)) - pivot[steps - 1 - step]).square().mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                losses[-1].append(loss.item())
                if losses[-1][-1] < tolerance + place * 2e-5:
                    break
            embeddings.append(null.detach())
            with torch.no_grad():
                unconditional = epsilon(x, t, null)
                eps = unconditional + guidance * (conditional - unconditional)
                x = move(x, eps, level(t), level(t - stride))
    return NaiveNullText(pivot[-1], embeddings, losses)
