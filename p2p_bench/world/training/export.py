"""Writes trained parts in the layout that is shipped, with checksums."""

import json
import shutil
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from p2p_bench.hashing import sha256_file
from p2p_bench.models.vocabulary import write_vocabulary
from p2p_bench.world.scenes.captions import CAPTION_WORDS
from p2p_bench.world.training.flow import FlowNetworks, build_flow_scheduler
from p2p_bench.world.training.unet import build_scheduler

MANIFEST = "MANIFEST.json"


def assemble(
    vae: AutoencoderKL, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer
) -> StableDiffusionPipeline:
    """The parts as a Stable Diffusion pipeline, without safety checker."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),  # type: ignore[arg-type]  # its stub knows one scheduler class only
        safety_checker=None,  # type: ignore[arg-type]  # None is allowed, its stub says otherwise
        feature_extractor=None,  # type: ignore[arg-type]  # None is allowed, its stub says otherwise
        requires_safety_checker=False,
    )


def assemble_flow(
    vae: AutoencoderKL, networks: FlowNetworks, tokenizer: CLIPTokenizer, shift: float
) -> StableDiffusion3Pipeline:
    """The parts as a Stable Diffusion 3 pipeline, without T5; `shift` is of its noise levels.

    The autoencoder has a shift of latents then, which is 0, as the pipeline asks for one.
    """
    vae.register_to_config(shift_factor=0.0)
    first, second = cast("list[CLIPTextModelWithProjection]", list(networks.texts))
    return StableDiffusion3Pipeline(
        transformer=networks.transformer,
        scheduler=build_flow_scheduler(shift),  # type: ignore[arg-type]  # its stub means a stand-in class
        vae=vae,
        text_encoder=first,
        tokenizer=tokenizer,
        text_encoder_2=second,
        tokenizer_2=tokenizer,
        text_encoder_3=None,  # type: ignore[arg-type]  # None is allowed, its stub says otherwise
        tokenizer_3=None,
    )


def export_pipeline(pipeline: DiffusionPipeline, tokenizer_dir: Path, out_dir: Path) -> None:
    """Writes the pipeline in half precision; tokenizer files are copied as they were learnt.

    The words that it was trained on are listed beside them.
    """
    dtype = pipeline.dtype
    pipeline.to(torch.float16).save_pretrained(out_dir, safe_serialization=True)
    pipeline.to(dtype)
    for folder in sorted(out_dir.glob("tokenizer*")):
        for path in sorted(tokenizer_dir.iterdir()):
            shutil.copyfile(path, folder / path.name)
    write_vocabulary(out_dir, CAPTION_WORDS)


def write_manifest(out_dir: Path, recipe: dict[str, Any]) -> None:
    """Writes MANIFEST.json: label, recipe, and the checksum of every other file below `out_dir`."""
    files = {
        path.relative_to(out_dir).as_posix(): sha256_file(path)
        for path in sorted(out_dir.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    manifest = {"schema_version": 1, "label": "world", **recipe, "files": files}
    (out_dir / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def read_manifest(out_dir: Path) -> dict[str, Any] | None:
    """What MANIFEST.json says; None where there is none."""
    file = out_dir / MANIFEST
    if not file.exists():
        return None
    manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return manifest


def verify_manifest(out_dir: Path) -> list[str]:
    """Names of files that are absent or differ from MANIFEST.json; empty if all is well."""
    files = json.loads((out_dir / MANIFEST).read_text(encoding="utf-8"))["files"]
    return [name for name, digest in files.items() if not _matches(out_dir / name, digest)]


def _matches(path: Path, digest: str) -> bool:
    return path.is_file() and sha256_file(path) == digest
