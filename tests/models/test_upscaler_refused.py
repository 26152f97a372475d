"""Stage II of DeepFloyd IF: what cannot enlarge is refused, before weights are loaded where that shows."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import p2p_bench as p2p
from p2p_bench.errors import ConfigError, MissingWeightsError
from p2p_bench.models import LocalCheckpoint
from tests.models.small import small_checkpoint
from tests.models.small_if import SIDE, small_if
from tests.models.small_if_upscaler import cascade, small_cascade, small_upscaler


def change_json(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """An upscaler that a test may damage."""
    return Path(shutil.copytree(small_upscaler(), tmp_path / "upscaler"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"upscaler_steps": 350}, r"model\.upscaler_steps: 350 steps .* 1000 timesteps"),
        ({"upscaler_steps": 0}, r"model\.upscaler_steps: expected at least 1"),
        ({"upscaler_guidance": 0.5}, r"model\.upscaler_guidance: expected a finite number of at least 1"),
        ({"upscaler_noise_level": 1000}, r"model\.upscaler_noise_level: expected .*999"),
        ({"upscaler": None}, r"model\.upscaler_steps: there is no upscaler"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(small_cascade(), **settings).spec()


def test_other_folders_are_refused(tmp_path: Path) -> None:
    for folder, kind, message in (
        (tmp_path / "nowhere", MissingWeightsError, r"model\.upscaler: no directory .*nowhere"),
        ("nobody/nothing", MissingWeightsError, r"model\.upscaler: .* or give its .*model\.upscaler=DIR"),
        (tmp_path, MissingWeightsError, r"model_index\.json is missing"),
        (small_if().path, ConfigError, r"model\.upscaler: .* IFPipeline, expected an IFSuperResolution"),
        (small_checkpoint("sdxl").path, ConfigError, "StableDiffusionXLPipeline, expected an IFSuper"),
    ):
        with pytest.raises(kind, match=message):
            cascade(folder).spec()
    with pytest.raises(ConfigError, match=r"stage II goes as model\.upscaler=DIR"):
        LocalCheckpoint(small_upscaler()).spec()


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("unet/config.json", {"in_channels": 3}, "in_channels=3, expected 6"),
        ("unet/config.json", {"out_channels": 3}, "out_channels=3, expected 6"),
        ("unet/config.json", {"encoder_hid_dim": 17}, "encoder_hid_dim is 17"),
        ("unet/config.json", {"class_embed_type": None}, "class_embed_type=None"),
        ("unet/config.json", {"sample_size": SIDE}, "no multiple of the 16 x 16 of stage I"),
        ("unet/config.json", {"sample_size": 40}, "40 x 40 pixels"),
        ("scheduler/scheduler_config.json", {"_class_name": "DDIMScheduler"}, "expected DDPMScheduler"),
        ("scheduler/scheduler_config.json", {"variance_type": "learned"}, "variance_type is 'learned'"),
        ("scheduler/scheduler_config.json", {"sample_max_value": 0}, "sample_max_value"),
        ("image_noising_scheduler/scheduler_config.json", {"beta_schedule": "x"}, "beta_schedule"),
    ],
)
def test_other_networks_and_schedulers_are_refused(
    copy: Path, file: str, values: dict[str, Any], message: str
) -> None:
    change_json(copy / file, **values)
    with pytest.raises(p2p.P2PError, match=message):
        cascade(copy).spec()


@pytest.mark.parametrize(
    "file",
    [
        "unet/diffusion_pytorch_model.safetensors",
        "unet/config.json",
        "scheduler/scheduler_config.json",
        "image_noising_scheduler/scheduler_config.json",
    ],
)
def test_a_missing_file_is_named(copy: Path, file: str) -> None:
    (copy / file).unlink()
    with pytest.raises(MissingWeightsError, match=f"IFSuperResolutionPipeline .*missing: {file}") as caught:
        cascade(copy).spec()
    assert caught.value.exit_code == 3


def test_a_variant_that_stage_i_has_alone(tmp_path: Path) -> None:
    stage = Path(shutil.copytree(small_if().path, tmp_path / "stage"))
    for file in (*stage.glob("unet/*.safetensors"), *stage.glob("text_encoder/*.safetensors")):
        file.rename(file.with_suffix(".fp16.safetensors"))
    spec = dataclasses.replace(small_cascade(), path=stage, variant="fp16").spec()
    assert spec.upscaler == small_cascade().spec().upscaler


def test_pickles_and_damage_are_refused(copy: Path) -> None:
    weights = copy / "unet/diffusion_pytorch_model.safetensors"
    tensors = {key: one.clone() for key, one in load_file(weights).items() if key != "conv_in.bias"}
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(MissingWeightsError, match=r"conv_in\.bias"):
        cascade(copy).load()
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(MissingWeightsError):
        cascade(copy).spec()
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(MissingWeightsError, match=r"through pickle.*p2p-bench convert"):
        cascade(copy).spec()
