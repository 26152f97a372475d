"""Ways to make a source and a target image of the same noise."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from layouts import Built

import p2p_bench as p2p
from p2p_bench.models.flux import packed

SOURCE, SWAPPED, LONGER = "a red circle on grass", "a blue circle on grass", "a red striped circle on grass"
PLAIN = "plain sampling, diffusers"


def edit_ways(built: Built, steps: int) -> dict[str, Callable[[], object]]:
    """Plain sampling first, then edits."""
    model, guidance = built.model, built.model.spec.guidance

    def edit(target: str, controller: p2p.Controller) -> Callable[[], object]:
        settings: dict[str, Any] = {"seed": 7, "steps": steps, "guidance": guidance, "record": False}
        return lambda: p2p.edit(model, SOURCE, target, controller, **settings)

    ways = {
        PLAIN: plain_way(built, steps),
        "no control": edit(SWAPPED, p2p.NoControl()),
        "replace (R = 0)": edit(SWAPPED, p2p.Replace(cross=1.0, self_attn=0.4)),
        "refine": edit(LONGER, p2p.Refine(cross=0.8, self_attn=0.4)),
    }
    if model.spec.prediction_type == "flow":
        ways["image queries and keys"] = edit(SWAPPED, p2p.ImageQK())
    return ways


def plain_way(built: Built, steps: int, encoded: bool = False) -> Callable[[], object]:
    """The pipeline's own sampling of the source and the target.

    Args:
        built: The pipeline and its model.
        steps: Denoising steps.
        encoded: Whether the pipeline is given what the prompts are encoded to, and not the prompts.
    """
    model, spec, pipeline = built.model, built.model.spec, built.pipeline
    shape = (1, spec.latent_channels, *spec.latent_size)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(7)).to(model.device, model.dtype)
    latents = noise.expand(2, -1, -1, -1)
    if spec.family == "flux":
        latents = packed(latents)

    told: dict[str, Any] = {"prompt": [SOURCE, SWAPPED], **built.told}
    if encoded:
        told = encoded_prompts(built)
    if spec.family == "if":  # takes no noise from its caller
        pipeline.prepare_intermediate_images = lambda *args: latents
    else:
        told["latents"] = latents

    def plain() -> object:
        return pipeline(
            num_inference_steps=steps, guidance_scale=spec.guidance, output_type="pt",
            height=spec.image_size[0], width=spec.image_size[1], **told,
        )  # fmt: skip

    return plain


def encoded_prompts(built: Built) -> dict[str, Any]:
    """What a pipeline is given in the place of the prompts."""
    family, prompts = built.model.spec.family, [SOURCE, SWAPPED]
    names = ("prompt_embeds", "negative_prompt_embeds")
    with torch.no_grad():
        if family == "flux":
            text, pooled, _ = built.pipeline.encode_prompt(prompts, None, **built.told)
            return {"prompt_embeds": text, "pooled_prompt_embeds": pooled}
        if family == "if":
            told = dict(zip(names, built.pipeline.encode_prompt(prompts, **built.told), strict=True))
            return {**told, **built.told}
        if isinstance(built.pipeline, StableDiffusionPipeline):
            given = built.pipeline.encode_prompt(prompts, built.model.device, 1, True)
            return dict(zip(names, given, strict=True))
        given = built.pipeline.encode_prompt(prompts, None, None, **built.told)
    pooled_names = ("pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    return dict(zip((*names, *pooled_names), given, strict=True))
