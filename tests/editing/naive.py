"""Sampling written out as plainly as possible: the reference for the loop."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from p2p_bench.models import DiffusionModel
from tests.oracle import MapRow, materialised_attention

Combine = Callable[[int, Tensor, Tensor], Tensor]
"""(step, unconditional, conditional) -> noise, all rows."""


@torch.no_grad()
def naive_sampling(
    model: DiffusionModel,
    prompts: Sequence[str],
    noise: Tensor,
    steps: int,
    combine: Combine | float = 7.5,
    empty: Callable[[int], Tensor] | None = None,
    edits: Sequence[MapRow] = (),
    after: Callable[[int, Tensor], Tensor] | None = None,
    eta_noise: Callable[[int], Tensor] | None = None,
    saved: dict[str, Tensor] | None = None,
) -> Tensor:
    """Final latents of prompts that share their start noise; maps are written out and edited by `edits`.

    Args:
        combine: Guidance scale, or how predictions are combined.
        empty: Unconditional embeddings (n, W, c) of a step.
        edits: Rows count from 0 at the first prompt.
        after: Changes the latents after a step.
        eta_noise: Noise of a step with eta 1; None samples with eta 0.
        saved: Receives the edited maps of each step before `after` is called, the conditional rows last.
    """
    if isinstance(combine, int | float):
        scale = float(combine)
        combine = lambda step, u, c: u + scale * (c - u)  # noqa: E731  # a formula
    alphas = model.schedule.alphas_cumprod
    x = noise.to(model.dtype).expand(len(prompts), -1, -1, -1)
    text = model.encode_prompts(list(prompts))
    plain = model.encode_prompts([""]).expand_as(text)
    shifted = [MapRow(len(prompts) + edit.row, len(prompts) + edit.source, edit.edit) for edit in edits]
    with materialised_attention(model.unet, shifted, saved=saved) as oracles:
        for step in range(steps):
            for oracle in oracles.values():
                oracle.step = step
            t = 1 + (steps - 1 - step) * (1000 // steps)
            a_t = alphas[t]
            a_prev = alphas[t - 1000 // steps] if t >= 1000 // steps else alphas[0]
            embeddings = torch.cat([plain if empty is None else empty(step), text])
            out = model.unet(torch.cat([x, x]), t, embeddings).sample
            if model.schedule.prediction_type == "v_prediction":
                out = a_t.sqrt() * out + (1 - a_t).sqrt() * torch.cat([x, x])
            eps = combine(step, *out.chunk(2))
            x_0 = (x - (1 - a_t).sqrt() * eps) / a_t.sqrt()
            if eta_noise is None:
                x = a_prev.sqrt() * x_0 + (1 - a_prev).sqrt() * eps
            else:
                variance = (1 - a_prev) / (1 - a_t) * (1 - a_t / a_prev)
                x = a_prev.sqrt() * x_0 + (1 - a_prev - variance).sqrt() * eps
                x = x + variance.sqrt() * eta_noise(step)
            x = x if after is None else after(step, x)
    return x
