"""The small checkpoints, briefly trained: what a prompt adds is small and can be learnt back."""

import functools

import torch
from torch import Tensor, nn

from p2p_bench.models import DiffusionModel
from p2p_bench.models.checkpoint import UNetCheckpoint
from tests.models.small import small_checkpoint

PROMPTS = ("a red circle on grass", "a blue circle on grass", "a red square on sand", "a blue square on sand")
_STEPS, _BATCH, _RATE = 100, 8, 3e-3
_SIDE = 8
_MEANS = 0.15
"""How far apart the prompts' mean colours are; the latents themselves vary by about 1."""


def smooth_latents(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Latents without fine detail, (count, 4, side, side)."""
    noise = torch.randn(count, 4, side, side, generator=generator)
    return 2 * nn.functional.avg_pool2d(noise, 5, 1, 2, count_include_pad=False)


@functools.cache
def trained_model(family: str) -> DiffusionModel:
    """One of `SMALL`, trained in float32 on smooth latents whose mean is the prompt's, once per session."""
    checkpoint = small_checkpoint(family)
    options = {**vars(checkpoint), "unprompted": "encoded" if family == "sdxl" else None}
    model = UNetCheckpoint(**options).load(dtype=torch.float32)
    _without_pooled(model.network)
    learnt = [p for name, p in model.network.named_parameters() if not name.startswith("add_embedding")]
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        _train(model, [parameter.requires_grad_(True) for parameter in learnt])
    model.network.requires_grad_(False)
    return model


def _without_pooled(network: nn.Module) -> None:
    """Null-text cannot change what is no text embedding; random weights let that decide too much."""
    for name, parameter in network.named_parameters():
        if name.startswith("add_embedding"):
            parameter.data.zero_()


def _train(model: DiffusionModel, learnt: list[nn.Parameter]) -> None:
    texts = [model.encode([model.tokenize(prompt)]) for prompt in PROMPTS] + [model.unconditional()]
    conditioning = {key: torch.cat([text[key] for text in texts]) for key in texts[0]}
    generator = torch.Generator().manual_seed(0)
    means = _MEANS * torch.randn(len(texts), 4, 1, 1, generator=generator)
    means[-1] = 0
    levels = model.ladder(100)[:-1]
    adam = torch.optim.Adam(learnt, _RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, _RATE, _STEPS)
    for _ in range(_STEPS):
        rows = torch.randint(len(texts), (_BATCH,), generator=generator)
        level = levels[int(torch.randint(len(levels), (), generator=generator))]
        x_0 = smooth_latents(_BATCH, _SIDE, generator) + means[rows]
        noise = torch.randn(x_0.shape, generator=generator)
        told = {key: value[rows] for key, value in conditioning.items()}
        predicted = model.predict(level.noised(x_0, noise), level, told)
        adam.zero_grad()
        (predicted.epsilon - noise).square().mean().backward()
        nn.utils.clip_grad_norm_(learnt, 1.0)
        adam.step()
        schedule.step()
