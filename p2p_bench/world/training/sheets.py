"""Pictures of what a half-trained model draws."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from jaxtyping import Float
from lightning.pytorch.callbacks import Callback
from PIL import Image
from torch import Tensor

from p2p_bench.guidance import EVERY_STEP, Interval, guided_steps
from p2p_bench.world.training.flow import T5_COLUMNS

log = logging.getLogger(__name__)

SHEET_PROMPTS = (
    "a red circle on grass",
    "a blue square on sand",
    "a yellow star on water",
    "a green heart on brick",
    "a purple cross on wood",
    "a pink ring on stone",
    "a white crescent on grass",
    "a black triangle on sand",
    "a tangerine striped circle on stone",
    "a turquoise dotted square on wood",
    "a pink checkered heart on water",
    "a blue bordered star on sand",
    "a red circle and a blue square on sand",
    "a yellow star and a purple heart on grass",
    "a green ring in snow",
    "a red striped square on water in fog",
    "a sketch of a blue heart on brick",
    "a mosaic of a yellow cross on grass",
    "a vintage of a red triangle on stone",
    "a white dotted circle on brick",
    "a black checkered square on grass in snow",
    "a purple crescent on water",
    "a tangerine ring and a green cross on wood",
    "",
)


def write_sheet(images: Float[Tensor, "n 3 h w"], path: Path, columns: int = 8, zoom: int = 2) -> None:
    """Writes images in [0, 1] as one PNG, row by row."""
    rows = -(-len(images) // columns)
    _, _, height, width = images.shape
    page = torch.ones(rows * columns, 3, height, width)
    page[: len(images)] = images
    page = page.view(rows, columns, 3, height, width).permute(0, 3, 1, 4, 2)
    pixels = (page.reshape(rows * height, columns * width, 3) * 255).round().byte().numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST).save(path)


@torch.no_grad()
def sample(
    pipeline: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int = 25,
    guidance: float = 4.0,
    batch: int = 32,
    interval: Interval = EVERY_STEP,
) -> Float[Tensor, "n 3 h w"]:
    """Plain samples of the pipeline in [0, 1], one CPU noise per seed.

    Args:
        pipeline: That of Stable Diffusion 1 or 3, see `assemble` and `assemble_flow`.
        prompts: One an image.
        seeds: One an image.
        steps: Of the pipeline's scheduler.
        guidance: Its scale.
        batch: Images at once.
        interval: Between which parts of the steps guidance acts; other than all for Stable Diffusion 3 alone.
    """
    network, options = _network(pipeline)
    guided = guided_steps(interval, steps)
    pipeline.set_progress_bar_config(disable=True)
    size, channels = network.config.sample_size, network.config.in_channels
    chunks = []
    for start in range(0, len(prompts), batch):
        part = slice(start, start + batch)
        noise = [
            torch.randn(channels, size, size, generator=torch.Generator().manual_seed(s)) for s in seeds[part]
        ]
        own: dict[str, Any] = {"prompt": list(prompts[part]), "guidance_scale": guidance}
        if interval != EVERY_STEP:
            own = _guided_in(pipeline, own["prompt"], guidance, guided)
        result = pipeline(  # type: ignore[operator]  # the base class has no call
            **own,
            num_inference_steps=steps,
            latents=torch.stack(noise).to(pipeline.device, pipeline.dtype),
            output_type="pt",
            **options,
        )
        chunks.append(result.images.float().cpu())
    return torch.cat(chunks)


def _network(pipeline: Any) -> tuple[Any, dict[str, Any]]:
    """What denoises, and what the pipeline wants beside prompts: the columns in place of an absent T5."""
    if hasattr(pipeline, "unet"):
        return pipeline.unet, {}
    return pipeline.transformer, {"max_sequence_length": T5_COLUMNS}


def _guided_in(pipeline: Any, prompts: Sequence[str], scale: float, guided: range) -> dict[str, Any]:
    """What a call of Stable Diffusion 3's pipeline takes to guide some steps: a callback switches it."""
    texts = pipeline.encode_prompt(list(prompts), None, None, max_sequence_length=T5_COLUMNS)
    prompted, empty, pooled, empty_pooled = texts
    alone = {"prompt_embeds": prompted, "pooled_prompt_embeds": pooled}
    both = {
        "prompt_embeds": torch.cat([empty, prompted]),
        "pooled_prompt_embeds": torch.cat([empty_pooled, pooled]),
    }

    def switch(pipe: Any, step: int, timestep: Any, tensors: Any) -> dict[str, Any]:
        on = step + 1 in guided
        pipe._guidance_scale = scale if on else 1.0
        return dict(both if on else alone)

    return {
        **alone,
        "negative_prompt_embeds": empty,
        "negative_pooled_prompt_embeds": empty_pooled,
        "guidance_scale": scale if 0 in guided else 1.0,
        "callback_on_step_end": switch,
    }


class SheetObserver(Callback):
    """Every so many steps, samples fixed prompts with the averaged weights."""

    def __init__(self, assemble: Callable[[Any], DiffusionPipeline], out_dir: Path, every: int) -> None:
        """`assemble` makes a pipeline of the module that is trained."""
        self.assemble, self.out_dir, self.every = assemble, out_dir, every

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes a sheet every so many steps."""
        if trainer.global_step % self.every:
            return
        images = sample(self.assemble(pl_module), SHEET_PROMPTS, range(len(SHEET_PROMPTS)))
        path = self.out_dir / f"sheet_{trainer.global_step:06d}.png"
        write_sheet(images, path)
        log.info("wrote %s", path)
