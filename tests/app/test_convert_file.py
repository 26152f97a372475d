"""`p2p-bench convert FILE`: a single file of the original layout becomes the model it is of."""

import json
import logging
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import p2p_bench as p2p
from p2p_bench.app.verbs.convert import convert_file
from p2p_bench.errors import ConfigError, MissingWeightsError
from p2p_bench.models import UNetCheckpoint
from tests.app.command import Command
from tests.examples import SOURCE, TARGET
from tests.models.original_layout import checkpoint_of, single_file, written
from tests.models.tiny import tiny_checkpoint


def edited(model: p2p.DiffusionModel, family: str) -> torch.Tensor:
    if family == "ip2p":
        image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(2))
        return p2p.instruct(model, image, "make it snow", steps=2).images
    return p2p.edit(model, SOURCE, TARGET, steps=2).images


@pytest.mark.parametrize("family", ["sd", "sd2", "sdxl", "ip2p"])
def test_a_single_file_is_the_same_model(tmp_path: Path, family: str) -> None:
    file, plain = single_file(family, tmp_path), checkpoint_of(family)
    with pytest.raises(MissingWeightsError, match=r"single file.*p2p-bench convert"):
        UNetCheckpoint(file).spec()
    remedy = (
        r"--configs DIR.*whose weights are not read$" if family == "sd2" else r"--configs DIR.*hf download"
    )
    with pytest.raises(MissingWeightsError, match=remedy):
        convert_file(file, tmp_path / "none")
    convert_file(file, tmp_path / "made", str(plain.path))
    one, other = plain.load(), UNetCheckpoint(tmp_path / "made", record_fraction=0.5).load()
    assert torch.equal(edited(one, family), edited(other, family))
    with pytest.raises(ConfigError, match="is of a "):
        convert_file(file, tmp_path / "none", str(checkpoint_of("ldm").path))
    assert not (tmp_path / "none").exists()


def test_the_last_layer_of_stable_diffusion_2_is_left_out(tmp_path: Path) -> None:
    """Files hold 24 layers of OpenCLIP, of which the model reads the last but one."""
    configs = Path(shutil.copytree(checkpoint_of("sd2").path, tmp_path / "configs"))
    state = load_file(single_file("sd2", tmp_path))
    layers = {key: one for key, one in state.items() if "resblocks.2." in key}
    for place in range(3, 24):
        state |= {
            key.replace("resblocks.2.", f"resblocks.{place}."): one * place for key, one in layers.items()
        }
    prefix = "cond_stage_model.model."
    state |= {f"{prefix}text_projection": torch.eye(24), f"{prefix}logit_scale": torch.ones(())}
    config = json.loads((configs / "text_encoder" / "config.json").read_text())
    (configs / "text_encoder" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 23}))
    convert_file(written(state, tmp_path / "whole.safetensors"), tmp_path / "made", str(configs))
    made = load_file(tmp_path / "made" / "text_encoder" / "model.safetensors")
    for place in (2, 22):
        packed = state[f"{prefix}transformer.resblocks.{place}.attn.in_proj_weight"]
        parts = [made[f"encoder.layers.{place}.self_attn.{one}_proj.weight"] for one in "qkv"]
        assert torch.equal(torch.cat(parts), packed)
    assert not any("layers.23." in key for key in made)


def test_configurations_stay_as_they_were_written(tmp_path: Path) -> None:
    """Sizes of the first releases follow from a file's release, number formats from what it leaves out."""
    configs = Path(shutil.copytree(tiny_checkpoint().path, tmp_path / "configs"))
    for part, key, value in (("unet", "_diffusers_version", "0.2.2"), ("vae", "force_upcast", None)):
        config = {**json.loads((configs / part / "config.json").read_text()), key: value}
        kept = {name: one for name, one in config.items() if one is not None}
        (configs / part / "config.json").write_text(json.dumps(kept))
    convert_file(single_file("sd", tmp_path), tmp_path / "made", str(configs))
    one, other = (UNetCheckpoint(folder).spec() for folder in (configs, tmp_path / "made"))
    assert one.latent_size == other.latent_size == (64, 64)
    half = UNetCheckpoint(tmp_path / "made").load(dtype=torch.float16)
    assert {half.vae.dtype, half.unet.dtype} == {torch.float16}


def test_the_scheduler_is_the_one_that_the_index_names(tmp_path: Path) -> None:
    """As in pipelines, whichever wrote its file."""
    configs = Path(shutil.copytree(tiny_checkpoint().path, tmp_path / "configs"))
    scheduler = configs / "scheduler" / "scheduler_config.json"
    scheduler.write_text(
        json.dumps({**json.loads(scheduler.read_text()), "_class_name": "EDMEulerScheduler"})
    )
    convert_file(single_file("sd", tmp_path), tmp_path / "made", str(configs))
    index = json.loads((configs / "model_index.json").read_text())
    index = {**index, "scheduler": ["diffusers", "EDMEulerScheduler"]}
    (configs / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(MissingWeightsError, match="EDMEulerScheduler, whose noise levels are not"):
        convert_file(tmp_path / "sd.safetensors", tmp_path / "none", str(configs))


def test_what_configurations_say_of_predictions_is_told(tmp_path: Path, command: Command) -> None:
    file, configs = single_file("sd", tmp_path), str(tiny_checkpoint("v_prediction").path)
    done = command("convert", str(file), "made", "--configs", configs)
    assert done.code == 0, done.err
    assert "by which it predicts v_prediction" in " ".join(done.err.split())


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
    for part, key, value, said in (
        ("text_encoder", "hidden_act", "junk", r"hidden_act is \"junk\", expected"),
        ("vae", "act_fn", [1], r"act_fn is \[1\], expected a name"),
        ("unet", "layers_per_block", [1, 1], r"layers_per_block is \[1, 1\], expected an integer"),
    ):
        other = Path(shutil.copytree(configs, tmp_path / part))
        config = json.loads((other / part / "config.json").read_text())
        (other / part / "config.json").write_text(json.dumps({**config, key: value}))
        with pytest.raises(MissingWeightsError, match=rf"{part}/config\.json: {said}"):
            convert_file(file, tmp_path / "made", str(other))
    assert not (tmp_path / "made").exists()
    (tmp_path / "model.ckpt").write_bytes(b"pickle")
    with pytest.raises(MissingWeightsError, match="pickle"):
        convert_file(tmp_path / "model.ckpt", tmp_path / "made", configs)


BF16, E4M3 = torch.bfloat16, torch.float8_e4m3fn


def test_what_a_file_says_of_its_training_is_heeded(tmp_path: Path) -> None:
    file, configs = single_file("sd", tmp_path), str(tiny_checkpoint().path)
    state = load_file(file)
    levels = tiny_checkpoint().load().schedule.alphas_cumprod
    without_signal = levels - levels[-1]
    more = "model.diffusion_model.time_embed.cond_proj.weight"
    for added, error, said in (
        ({"v_pred": torch.ones(1)}, ConfigError, "v_pred in it says .*velocity.* says epsilon"),
        ({"ztsnr": torch.ones(1), "v_pred": torch.ones(1)}, ConfigError, "ztsnr in it"),
        ({"edm_mean": torch.ones(4)}, ConfigError, "edm_mean in it"),
        ({"alphas_cumprod": levels**2}, ConfigError, "alphas_cumprod are not those of"),
        ({"alphas_cumprod": without_signal.to(BF16)}, ConfigError, "alphas_cumprod are not those of"),
        ({"alphas_cumprod": without_signal.to(E4M3)}, ConfigError, "alphas_cumprod are not those of"),
        ({"betas": torch.linspace(1e-4, 0.02, 1000)}, ConfigError, "betas are not those of"),
        ({"denoiser.sigmas": 2 * (1 / levels - 1).sqrt()}, ConfigError, "sigmas are not those of"),
        ({"scale_factor": torch.tensor(0.9)}, ConfigError, r"scale_factor is \[0\.89.*scaling_factor 0\.5"),
        ({more: torch.ones(64, 16)}, MissingWeightsError, "not of this network: .*cond_proj"),
    ):
        written(state | added, tmp_path / "other.safetensors")
        with pytest.raises(error, match=said):
            convert_file(tmp_path / "other.safetensors", tmp_path / "made", configs)
        assert not (tmp_path / "made").exists()
    own = {
        "betas": 1 - levels / torch.cat([torch.ones(1), levels[:-1]]),
        "denoiser.sigmas": (1 / levels - 1).sqrt().float().flip(0),
        "scale_factor": torch.tensor(0.5),
    }
    for place, form in enumerate((torch.half, BF16, E4M3)):
        held = state | {"alphas_cumprod": levels.to(form)} | own
        written(held, tmp_path / "other.safetensors", {"modelspec.architecture": "stable-diffusion-v1"})
        convert_file(tmp_path / "other.safetensors", tmp_path / f"made{place}", configs)
    velocity = str(tiny_checkpoint("v_prediction").path)
    written(
        state | {"v_pred": torch.ones(1)}, tmp_path / "velocity.safetensors", {"modelspec.predict_key": "v"}
    )
    convert_file(tmp_path / "velocity.safetensors", tmp_path / "v_made", velocity)
    assert UNetCheckpoint(tmp_path / "v_made").spec().prediction_type == "v_prediction"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("modelspec.prediction_type", "v", "prediction_type in its header says .*velocity.* says epsilon"),
        ("modelspec.predict_key", "v", "predict_key in its header says .*velocity.* says epsilon"),
        ("modelspec.prediction_type", "sample", "predicts 'sample', expected epsilon or v"),
        ("ss_v_parameterization", "True", "ss_v_parameterization in its header says .*velocity"),
        (
            "modelspec.architecture",
            "stable-diffusion-v2-768-v",
            "but its keys are those of stable-diffusion-v1",
        ),
        (
            "modelspec.architecture",
            "stable-diffusion-xl-v1-base",
            "its keys are those of stable-diffusion-v1",
        ),
        ("modelspec.architecture", "stable-diffusion-v3-medium", "its keys are those of stable-diffusion-v1"),
        ("modelspec.architecture", "Flux.1-dev", "its keys are those of stable-diffusion-v1"),
        ("modelspec.architecture", "stable-diffusion-v1/lora", "expected a whole text-to-image model"),
        ("modelspec.architecture", "stable-diffusion-v1-inpainting", "expected a whole text-to-image model"),
    ],
)
def test_what_the_header_of_a_file_says_is_heeded(tmp_path: Path, key: str, value: str, said: str) -> None:
    file, configs = single_file("sd", tmp_path), str(tiny_checkpoint().path)
    written(load_file(file), file, {key: value})
    with pytest.raises(ConfigError, match=said):
        convert_file(file, tmp_path / "made", configs)
    assert not (tmp_path / "made").exists()


def test_that_stable_diffusion_2_predicts_velocity_is_in_its_name(tmp_path: Path) -> None:
    configs = Path(shutil.copytree(checkpoint_of("sd2").path, tmp_path / "configs"))
    file = single_file("sd2", tmp_path)
    written(load_file(file), file, {"modelspec.architecture": "stable-diffusion-v2-768-v"})
    convert_file(file, tmp_path / "made", str(configs))
    scheduler = configs / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace("v_prediction", "epsilon"))
    with pytest.raises(ConfigError, match=r"architecture in its header says .*velocity"):
        convert_file(file, tmp_path / "none", str(configs))


def test_two_models_in_one_file_are_refused(tmp_path: Path) -> None:
    file, configs = single_file("sd", tmp_path), str(tiny_checkpoint().path)
    state, text, vae = load_file(file), "cond_stage_model.transformer.", "first_stage_model."
    bare = f"{text}text_model."
    of_sdxl = load_file(single_file("sdxl", tmp_path))
    of_sd2 = load_file(single_file("sd2", tmp_path))
    for added, error, said in (
        (
            {key.replace(vae, "vae."): 2 * one for key, one in state.items()},
            ConfigError,
            "VAEs of two models",
        ),
        ({key.replace(vae, ""): 2 * one for key, one in state.items()}, ConfigError, "VAEs of two models"),
        (
            {key: one for key, one in of_sd2.items() if "cond" in key},
            ConfigError,
            "text encoders of two models",
        ),
        (
            {key: one for key, one in of_sdxl.items() if "cond" in key},
            ConfigError,
            "text encoders of two models",
        ),
        (
            {key.replace(bare, text): 2 * one for key, one in state.items()},
            MissingWeightsError,
            "text_encoder: not",
        ),
    ):
        both = written(added | state, tmp_path / "both.safetensors")
        with pytest.raises(error, match=said):
            convert_file(both, tmp_path / "made", configs)
        assert not (tmp_path / "made").exists()


def test_what_is_no_part_of_the_model_is_refused_or_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, configs = single_file("sd", tmp_path), str(tiny_checkpoint().path)
    state, unet, vae = load_file(file), "model.diffusion_model.", "first_stage_model."
    for key, error, said in (
        (
            f"{vae}decoder.mid.block_3.conv1.weight",
            MissingWeightsError,
            "vae: not of this network: first_stage",
        ),
        (
            f"{vae}encoder.down.7.block.0.conv1.weight",
            MissingWeightsError,
            "vae: not of this network: first_st",
        ),
        (f"{vae}encoder.norm_out.scale_weight", MissingWeightsError, "vae: not of this network: first_stage"),
        ("control_model.time_embed.0.weight", ConfigError, "a ControlNet beside the model"),
        ("lora_unet_mid_block.lora_up.weight", ConfigError, "a LoRA beside the model"),
    ):
        more = written(state | {key: torch.ones(2, 2)}, tmp_path / "more.safetensors")
        with pytest.raises(error, match=said):
            convert_file(more, tmp_path / "made", configs)
    averaged = {
        f"model_ema.diffusion_model{key.removeprefix(unet).replace('.', '')}": 2 * one
        for key, one in state.items()
        if key.startswith(unet)
    }
    others = {"embedding_manager.a": torch.ones(2), f"{vae}loss.logvar": torch.ones(1)}
    more = written(state | averaged | others, tmp_path / "more.safetensors")
    with caplog.at_level(logging.WARNING):
        convert_file(more, tmp_path / "made", configs)
    told = [one.getMessage() for one in caplog.records]
    assert [("averaged weights (model_ema." in one, "embedding_manager.a in it" in one) for one in told] == [
        (True, False),
        (False, True),
    ]
    plain, made = (UNetCheckpoint(one).load().unet for one in (configs, tmp_path / "made"))
    for one, other in zip(plain.parameters(), made.parameters(), strict=True):
        assert torch.equal(one, other)


def test_what_is_no_such_checkpoint_is_called_by_its_name(tmp_path: Path) -> None:
    configs, one = str(tiny_checkpoint().path), torch.ones(2, 2)
    state = load_file(single_file("sd", tmp_path))
    refiner = {
        key.replace("cond_stage_model.transformer", "conditioner.embedders.0.model"): t
        for key, t in state.items()
    }
    first = "model.diffusion_model.input_blocks.0.0.weight"
    for held, said in (
        ({"lora_unet_x.lora_up.weight": one}, "it is a LoRA .*model.lora=FILE"),
        ({"clip_l": one, "clip_g": one}, "learnt by textual inversion .*model.embeddings=FILE"),
        ({"encoder.conv_in.weight": one, "decoder.conv_in.weight": one}, "it is a VAE alone"),
        ({"control_model.a": one, "control_model.b": one}, "it is a ControlNet"),
        ({"model_ema.a": one, "cond_stage_model.a": one}, "averaged weights .* alone"),
        (
            {"model.diffusion_model.layers.0.x": one},
            "no model.diffusion_model.input_blocks.0.0.weight, but .*layers",
        ),
        (refiner, "the refiner of Stable Diffusion XL"),
        (state | {first: torch.ones(16, 9, 3, 3)}, "takes 9 channels and .* returns 4; inpainting"),
    ):
        file = written(held, tmp_path / "other.safetensors")
        for given in (configs, None):
            with pytest.raises(ConfigError, match=said):
                convert_file(file, tmp_path / "made", given)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(MissingWeightsError, match=r"gguf is not known here; get it as safetensors"):
        convert_file(tmp_path / "model.gguf", tmp_path / "made", configs)
    assert not (tmp_path / "made").exists()


def test_tensors_that_are_no_such_weights_are_named(tmp_path: Path) -> None:
    file, configs = single_file("sd", tmp_path), str(tiny_checkpoint().path)
    state, unet = load_file(file), "model.diffusion_model."
    key = f"{unet}middle_block.1.proj_in.weight"
    no_block = {name: one for name, one in state.items() if not name.startswith(f"{unet}input_blocks.1.")}
    no_bias = {name: one for name, one in state.items() if name != f"{unet}input_blocks.2.0.op.bias"}
    for held, said in (
        (
            state | {key: (50 * state[key]).to(torch.int8)},
            r"floating-point numbers: mid_block.*proj_in.*\(int8\)",
        ),
        (state | {key: state[key].to(torch.complex64)}, r"floating-point numbers: mid_block.*\(complex64\)"),
        (no_block, r"missing: down_blocks\.0\.attentions"),
        (no_bias, r"missing: down_blocks\.0\.downsamplers\.0\.conv\.bias"),
    ):
        other = written(held, tmp_path / "other.safetensors")
        with pytest.raises(MissingWeightsError, match=said):
            convert_file(other, tmp_path / "made", configs)
    no_first = {
        name: one for name, one in load_file(single_file("sdxl", tmp_path)).items() if ".0.tr" not in name
    }
    other = written(no_first, tmp_path / "other.safetensors")
    with pytest.raises(MissingWeightsError, match="text_encoder: missing"):
        convert_file(other, tmp_path / "made", str(checkpoint_of("sdxl").path))
