"""`p2p-bench convert FILE`: a single file of the original layout becomes the model it is of."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.app.verbs.convert import convert_file
from p2p_bench.errors import ConfigError, MissingWeightsError
from p2p_bench.models import UNetCheckpoint
from p2p_bench.models.lora import _original
from tests.examples import SOURCE, TARGET
from tests.models.small import small_checkpoint
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
    return tiny_checkpoint() if family == "sd" else small_checkpoint(family)


def single_file(family: str, folder: Path) -> Path:
    model = checkpoint_of(family).load()
    state = of_unet(model.unet) | of_vae(model.vae)
    if family == "sdxl":
        state |= of_clip(model.encoders[0], "conditioner.embedders.0.transformer.")
        state |= of_open_clip(model.encoders[1], "conditioner.embedders.1.model.")
    else:
        state |= of_clip(model.encoders[0], "cond_stage_model.transformer.")
    file = folder / f"{family}.safetensors"
    save_file({key: one.clone().contiguous() for key, one in state.items()}, file)
    return file


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_a_single_file_is_the_same_model(tmp_path: Path, family: str) -> None:
    file, plain = single_file(family, tmp_path), checkpoint_of(family)
    with pytest.raises(MissingWeightsError, match=r"single file.*p2p-bench convert"):
        UNetCheckpoint(file).spec()
    with pytest.raises(MissingWeightsError, match=r"--configs DIR.*hf download"):
        convert_file(file, tmp_path / "none")
    convert_file(file, tmp_path / "made", str(plain.path))
    one, other = plain.load(), UNetCheckpoint(tmp_path / "made", record_fraction=0.5).load()
    edits = [p2p.edit(model, SOURCE, TARGET, steps=2).images for model in (one, other)]
    assert torch.equal(*edits)
    with pytest.raises(ConfigError, match="is of a "):
        convert_file(file, tmp_path / "none", str(checkpoint_of("ldm").path))
    assert not (tmp_path / "none").exists()


def test_weights_of_8_bits_are_written_in_half_precision(tmp_path: Path) -> None:
    state, eight = load_file(single_file("sd", tmp_path)), torch.float8_e4m3fn
    save_file({key: one.to(eight) for key, one in state.items()}, tmp_path / "eight.safetensors")
    convert_file(tmp_path / "eight.safetensors", tmp_path / "made", str(tiny_checkpoint().path))
    plain, made = (UNetCheckpoint(one).load() for one in (tiny_checkpoint().path, tmp_path / "made"))
    for one, other in zip(plain.unet.parameters(), made.unet.parameters(), strict=True):
        assert torch.equal(one.to(eight).float(), other)


def test_a_file_that_is_not_whole_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    file, configs = single_file("sd", tmp_path), str(tiny_checkpoint().path)
    state = load_file(file)
    for key, said in (
        ("model.diffusion_model.out.2.weight", "conv_out.weight"),
        ("first_stage_model.decoder.up.0.block.0.conv1.weight", "up_blocks.1.resnets.0.conv1.weight"),
        ("cond_stage_model.transformer.text_model.final_layer_norm.bias", "final_layer_norm.bias"),
    ):
        save_file({name: one for name, one in state.items() if name != key}, tmp_path / "part.safetensors")
        with pytest.raises(MissingWeightsError, match=f"missing: .*{re.escape(said)}"):
            convert_file(tmp_path / "part.safetensors", tmp_path / "made", configs)
        assert not (tmp_path / "made").exists()
    save_file({"lora": torch.ones(1)}, tmp_path / "part.safetensors")
    with pytest.raises(ConfigError, match="no whole checkpoint"):
        convert_file(tmp_path / "part.safetensors", tmp_path / "made", configs)
    for key in ("model.diffusion_model.joint_blocks.0.x.weight", "double_blocks.0.img_mlp.0.weight"):
        save_file({key: torch.ones(1)}, tmp_path / "part.safetensors")
        with pytest.raises(ConfigError, match="but of a transformer"):
            convert_file(tmp_path / "part.safetensors", tmp_path / "made", configs)
    part = shutil.copytree(configs, tmp_path / "part")
    shutil.rmtree(part / "tokenizer")
    with pytest.raises(MissingWeightsError, match="has no tokenizer, whose configurations sd"):
        convert_file(file, tmp_path / "made", str(part))
    with pytest.raises(ConfigError, match="cannot be made"):
        convert_file(file, file / "made", configs)
    junk = Path(shutil.copytree(configs, tmp_path / "junk"))
    config = json.loads((junk / "vae" / "config.json").read_text())
    (junk / "vae" / "config.json").write_text(json.dumps({**config, "act_fn": [1]}))
    with pytest.raises(MissingWeightsError, match=r"vae/config\.json: act_fn is \[1\], expected a name"):
        convert_file(file, tmp_path / "made", str(junk))
    assert not (tmp_path / "made").exists()
    (tmp_path / "model.ckpt").write_bytes(b"pickle")
    with pytest.raises(MissingWeightsError, match="pickle"):
        convert_file(tmp_path / "model.ckpt", tmp_path / "made", configs)


def test_what_a_file_says_of_its_training_is_heeded(tmp_path: Path) -> None:
    file, configs = single_file("sd", tmp_path), str(tiny_checkpoint().path)
    state = load_file(file)
    levels = tiny_checkpoint().load().schedule.alphas_cumprod
    more = "model.diffusion_model.time_embed.cond_proj.weight"
    for added, error, said in (
        ({"v_pred": torch.ones(1)}, ConfigError, "v_pred in it says .*velocity.* says epsilon"),
        ({"ztsnr": torch.ones(1), "v_pred": torch.ones(1)}, ConfigError, "ztsnr in it"),
        ({"edm_mean": torch.ones(4)}, ConfigError, "edm_mean in it"),
        ({"alphas_cumprod": levels**2}, ConfigError, "alphas_cumprod are not those of"),
        ({more: torch.ones(64, 16)}, MissingWeightsError, "not of this network: .*cond_proj"),
    ):
        save_file(state | added, tmp_path / "other.safetensors")
        with pytest.raises(error, match=said):
            convert_file(tmp_path / "other.safetensors", tmp_path / "made", configs)
        assert not (tmp_path / "made").exists()
    save_file(state | {"alphas_cumprod": levels.half()}, tmp_path / "other.safetensors")
    convert_file(tmp_path / "other.safetensors", tmp_path / "made", configs)
    velocity = str(tiny_checkpoint("v_prediction").path)
    save_file(state | {"v_pred": torch.ones(1)}, tmp_path / "velocity.safetensors")
    convert_file(tmp_path / "velocity.safetensors", tmp_path / "v_made", velocity)
    assert UNetCheckpoint(tmp_path / "v_made").spec().prediction_type == "v_prediction"
