"""Single files in the layout of the original code, made of small checkpoints by a translation of our own."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from p2p_bench.models import UNetCheckpoint
from p2p_bench.models.lora import _original
from tests.models.small import small_checkpoint
from tests.models.small_ip2p import small_ip2p
from tests.models.tiny import tiny_checkpoint

TOP = {
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip
VAE = (
    (r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d)\.upsamplers\.0", r"up_blocks.\1.upsample"),
    (r"up_blocks\.(\d)\.resnets\.(\d)", r"up_blocks.\1.block.\2"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"mid_block\.attentions\.0\.to_", "mid.attn_1."),
    ("conv_norm_out", "norm_out"),
    ("conv_shortcut", "nin_shortcut"),
)
OPEN_CLIP = (
    ("encoder.layers", "transformer.resblocks"),
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
    ("self_attn", "attn"),
    ("final_layer_norm", "ln_final"),
    ("embeddings.token_embedding", "token_embedding"),
    ("embeddings.position_embedding.weight", "positional_embedding"),
)


def of_unet(unet: Any) -> dict[str, Tensor]:
    state = {}
    for key, tensor in unet.state_dict().items():
        path, _, end = key.rpartition(".")
        name = TOP.get(path) or _original(path, unet)
        name = (
            name.replace(".norm1", ".in_layers.0").replace(".norm2", ".out_layers.0")
            if "resnets" in path
            else name
        )
        state[f"model.diffusion_model.{name}.{end}"] = tensor
    return state


def of_vae(vae: Any) -> dict[str, Tensor]:
    state, last = {}, len(vae.config.up_block_types) - 1
    for key, tensor in vae.state_dict().items():
        name = key
        for pattern, new in VAE:
            name = re.sub(pattern, new, name)
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        name = re.sub(r"up_blocks\.(\d)", lambda m: f"up.{last - int(m[1])}", name)
        kernel = "attn_1" in name and tensor.ndim == 2
        state[f"first_stage_model.{name}"] = tensor[:, :, None, None] if kernel else tensor
    return state


def of_clip(encoder: Any, prefix: str) -> dict[str, Tensor]:
    return {
        f"{prefix}text_model.{key.removeprefix('text_model.')}": tensor
        for key, tensor in encoder.state_dict().items()
    }


def of_open_clip(encoder: Any, prefix: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for key, tensor in encoder.state_dict().items():
        name = key.removeprefix("text_model.")
        for old, new in OPEN_CLIP:
            name = name.replace(old, new)
        if name == "text_projection.weight":
            state[f"{prefix}text_projection"] = tensor.T
        elif match := re.fullmatch(r"(.*)\.[qkv]_proj\.(weight|bias)", name):
            parts = [encoder.state_dict()[re.sub(r"[qkv]_proj", f"{one}_proj", key)] for one in "qkv"]
            state[f"{prefix}{match[1]}.in_proj_{match[2]}"] = torch.cat(parts)
        else:
            state[f"{prefix}{name}"] = tensor
    return state


def checkpoint_of(family: str) -> UNetCheckpoint:
    """The small checkpoint whose configurations a single file of the family needs."""
    if family == "ip2p":
        return small_ip2p()
    return tiny_checkpoint() if family == "sd" else small_checkpoint(family)


def single_file(family: str, folder: Path) -> Path:
    """The weights of the family's small checkpoint in one file of the original layout."""
    model = checkpoint_of(family).load()
    state = of_unet(model.unet) | of_vae(model.vae)
    if family == "sdxl":
        state |= of_clip(model.encoders[0], "conditioner.embedders.0.transformer.")
        state |= of_open_clip(model.encoders[1], "conditioner.embedders.1.model.")
    elif family == "sd2":
        state |= of_open_clip(model.encoders[0], "cond_stage_model.model.")
    else:
        state |= of_clip(model.encoders[0], "cond_stage_model.transformer.")
    return written(state, folder / f"{family}.safetensors")


def written(state: Mapping[str, Tensor], file: Path, header: dict[str, str] | None = None) -> Path:
    """Tensors as a file."""
    save_file({key: one.clone().contiguous() for key, one in state.items()}, file, metadata=header)
    return file
