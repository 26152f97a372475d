"""Trains the world's CLIP, an open_clip model, on renders and their captions."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTokenizer

from p2p_bench.world.scenes import caption
from p2p_bench.world.training.images import JUDGE_SEEDS, random_rows, render_bytes, to_float, training_scenes
from p2p_bench.world.training.latents import tokenise
from p2p_bench.world.training.runner import adamw, fit

_CLIP_SEEDS = JUDGE_SEEDS + 5_000_000
_GREY = (0.5, 0.5, 0.5)


@dataclasses.dataclass(frozen=True)
class CLIPRecipe:
    """How the world's CLIP is built and trained.

    Attributes:
        width: channels of the image tower's first stage.
        embedding: size of the common space.
        text_width: width of the text tower.
        text_layers: its depth.
        steps: optimiser steps.
        batch: pairs a step.
        learning_rate: peak of the schedule.
        num_images: rendered images.
    """

    width: int = 20
    embedding: int = 128
    text_width: int = 128
    text_layers: int = 2
    steps: int = 1500
    batch: int = 96
    learning_rate: float = 1.5e-3
    num_images: int = 16_000


def clip_config(recipe: CLIPRecipe, tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """The `model_cfg` of open_clip_config.json: a small ResNet and a small text transformer."""
    return {
        "embed_dim": recipe.embedding,
        "vision_cfg": {
            "image_size": 64,
            "layers": [1, 1, 1, 1],
            "width": recipe.width,
            "head_width": 32,
            "patch_size": None,
        },
        "text_cfg": {
            "context_length": tokenizer.model_max_length,
            "vocab_size": len(tokenizer),
            "width": recipe.text_width,
            "heads": recipe.text_width // 32,
            "layers": recipe.text_layers,
            "hf_tokenizer_name": "world",
        },
    }


def build_clip(config: dict[str, Any]) -> open_clip.CLIP:
    """An open_clip model from a `model_cfg`."""
    text = {name: value for name, value in config["text_cfg"].items() if name != "hf_tokenizer_name"}
    return open_clip.CLIP(config["embed_dim"], dict(config["vision_cfg"]), text)


class CLIPModule(lightning.LightningModule):
    """Symmetric contrastive loss (Radford et al. 2021)."""

    def __init__(self, config: dict[str, Any], recipe: CLIPRecipe) -> None:
        super().__init__()
        self.clip, self.recipe = build_clip(config), recipe

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch."""
        images, token_ids = batch
        with torch.autocast(self.device.type, torch.bfloat16):
            image = self.clip.encode_image(images * 2 - 1)
            text = self.clip.encode_text(token_ids)
        image, text = functional.normalize(image.float(), dim=-1), functional.normalize(text.float(), dim=-1)
        logits = self.clip.logit_scale.clamp(max=4.6).exp() * image @ text.T
        target = torch.arange(len(logits), device=logits.device)
        return 0.5 * (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target))

    def configure_optimizers(self) -> Any:
        """Optimiser and schedule of the recipe."""
        steps = self.recipe.steps
        return adamw(self.clip, self.recipe.learning_rate, steps, min(200, steps // 4 + 1), weight_decay=0.02)


def train_clip(
    recipe: CLIPRecipe, tokenizer: CLIPTokenizer, out_dir: Path, device: str = "cpu", seed: int = 0
) -> open_clip.CLIP:
    """Trains, or resumes, or just loads the world's CLIP."""
    lightning.seed_everything(seed, verbose=False)
    module = CLIPModule(clip_config(recipe, tokenizer), recipe)
    shares = {"two_objects": 0.25, "styled": 0.25, "weathered": 0.25, "allow_held_out": True}

    def prepare() -> Callable[[int], tuple[Tensor, Tensor]]:
        scenes = training_scenes(recipe.num_images, _CLIP_SEEDS, **shares)
        images = render_bytes(scenes)

        def make_batch(step: int) -> tuple[Tensor, Tensor]:
            rows = random_rows(len(scenes), recipe.batch, seed, step)
            rng = np.random.default_rng([seed, step])
            texts = [caption(scenes[i], rng, drop=0.03) for i in rows.tolist()]
            return to_float(images[rows]), tokenise(tokenizer, texts)

        return make_batch

    fit(module, prepare, name="clip", steps=recipe.steps, out_dir=out_dir, device=device)
    return module.clip.cpu().eval()


def save_clip(clip: open_clip.CLIP, config: dict[str, Any], tokenizer_dir: Path, out_dir: Path) -> None:
    """Writes what `open_clip.create_model_and_transforms("local-dir:...")` reads, in half precision."""
    out_dir.mkdir(parents=True, exist_ok=True)
    preprocess = {
        "size": [64, 64],
        "mean": _GREY,
        "std": _GREY,
        "interpolation": "bicubic",
        "resize_mode": "squash",
    }
    settings = {"model_cfg": config, "preprocess_cfg": preprocess}
    (out_dir / "open_clip_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in clip.state_dict().items()
    }
    save_file(state, out_dir / "open_clip_model.safetensors")
    for path in sorted(tokenizer_dir.iterdir()):
        shutil.copyfile(path, out_dir / path.name)
    CLIPTokenizer.from_pretrained(tokenizer_dir).save_pretrained(out_dir)
