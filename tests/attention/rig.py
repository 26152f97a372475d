"""A small U-Net, prompts and a comparison of two processors on the same inputs."""

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from p2p_bench.attention.plan import RowEdit, StepPlan, build_step_plan
from p2p_bench.attention.processor import FoldedAttnProcessor
from p2p_bench.attention.sites import unet_sites
from p2p_bench.controllers import Controller, EditContext
from p2p_bench.prompts.words import tokenize
from tests.oracle import MapEdit, MapRow, MaterialisedAttnProcessor
from tests.prompts.tiny_tokenizer import build_tokenizer

WIDTH = 24
STEPS = 10
SELF_FRACTION = 0.5


@cache
def tokenizer() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return build_tokenizer(Path(folder), WIDTH)


@cache
def tiny_unet(dtype: torch.dtype = torch.float64) -> UNet2DConditionModel:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    return unet.eval().requires_grad_(False).to(dtype)


def inputs(rows: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, int, Tensor]:
    """Latents, timestep and embeddings; different for each row."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(rows, 4, 8, 8, generator=generator, dtype=torch.float64)
    embeddings = torch.randn(rows, WIDTH, 16, generator=generator, dtype=torch.float64)
    return latents.to(dtype), 500, embeddings.to(dtype)


def context(source: str, target: str) -> EditContext:
    prompts = (tokenize(source, tokenizer()), tokenize(target, tokenizer()))
    return EditContext(*prompts, steps=STEPS, self_fraction=SELF_FRACTION)


class _Both:
    """Runs the folded and the written-out processor on the same inputs and keeps their difference."""

    def __init__(self, site: Any, oracle: MaterialisedAttnProcessor, plan: StepPlan) -> None:
        self.folded, self.oracle, self.plan = FoldedAttnProcessor(site), oracle, plan
        self.difference = float("nan")

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        out = self.folded(*args, **kwargs, plan=self.plan)
        self.difference = float((out - self.oracle(*args, **kwargs)).abs().max())
        return out


def site_differences(
    plan: StepPlan, edits: Sequence[MapRow], step: int, rows: int, **options: Any
) -> dict[str, float]:
    """Largest difference between folded and written-out attention at each site, same inputs for both."""
    unet = tiny_unet()
    before = dict(unet.attn_processors)
    pairs = {
        f"{site.name}.processor": _Both(site, MaterialisedAttnProcessor(site, edits, step), plan)
        for site in unet_sites(unet)
    }
    unet.set_attn_processor(dict(pairs))
    try:
        latents, timestep, embeddings = inputs(rows)
        unet(latents, timestep, embeddings, **options)
    finally:
        unet.set_attn_processor(before)
    return {name: pair.difference for name, pair in pairs.items()}


def written_out_difference(controller: Controller, source: str, target: str, edit: MapEdit) -> float:
    """Largest difference, over steps and sites, between a controller and an edit of the written-out maps."""
    bound = controller.bind(context(source, target))
    found = [0.0]
    for step in range(STEPS):
        # Two unconditional rows, the source, and the target.
        plan = build_step_plan(unet_sites(tiny_unet()), 4, [RowEdit(3, 2, bound)], step, dtype=torch.float64)
        found += site_differences(plan, [MapRow(3, 2, edit)], step, 4).values()
    return max(found)


def row_edits(rows: Sequence[tuple[int, int, Any]]) -> list[RowEdit]:
    """Row edits from (row, source, bound controller)."""
    return [RowEdit(row, source, controller) for row, source, controller in rows]
