"""Latent consistency models: told the guidance scale, asked once a step."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import LatentConsistencyModelPipeline, LCMScheduler, UNet2DConditionModel
from safetensors.torch import save_file

import p2p_bench as p2p
from p2p_bench.errors import ConfigError
from p2p_bench.models import LocalCheckpoint, UNetCheckpoint
from p2p_bench.models.schedule import schedule_from_config
from p2p_bench.sampling import LCMSampler, initial_noise
from p2p_bench.sampling.sampler import warn_of_steps
from tests.examples import SOURCE, TARGET
from tests.models.tiny import tiny_checkpoint, tiny_model

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> UNetCheckpoint:
    """The tiny checkpoint with a U-Net that is told the guidance scale."""
    path = tmp_path_factory.mktemp("lcm") / "checkpoint"
    shutil.copytree(Path(tiny_checkpoint().path), path)
    plain = UNet2DConditionModel.from_pretrained(path / "unet")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        told = UNet2DConditionModel.from_config({**plain.config, "time_cond_proj_dim": 8})
    told.load_state_dict(plain.state_dict(), strict=False)
    told.save_pretrained(path / "unet")
    scheduler = LCMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=True,
    )  # fmt: skip
    scheduler.save_pretrained(path / "scheduler")
    return UNetCheckpoint(path, name="lcm", steps=4, guidance=8.0, record_fraction=0.5)


def test_a_plain_run_equals_the_pipeline(checkpoint: UNetCheckpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    model = checkpoint.load()
    scheduler = LCMScheduler.from_pretrained(checkpoint.path, subfolder="scheduler")
    pipeline = LatentConsistencyModelPipeline.from_pretrained(
        checkpoint.path, local_files_only=True, scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    noises = [initial_noise(100 + step, (4, 8, 8)) for step in range(3)]
    waiting = list(noises)
    module = "diffusers.schedulers.scheduling_lcm.randn_tensor"
    monkeypatch.setattr(module, lambda *call, **options: waiting.pop(0)[None])
    expected = pipeline(
        SOURCE, num_inference_steps=4, guidance_scale=8.0, latents=initial_noise(5, (4, 8, 8))[None],
        output_type="latent",
    ).images  # fmt: skip
    ours = [*noises, noises[0]]
    monkeypatch.setattr("p2p_bench.sampling.replay.step_noise", lambda seed, step, shape: ours[step])
    result = p2p.edit(model, SOURCE, TARGET, seed=5, sampler="lcm", record=False)
    # Latents of a network that was trained on nothing grow: rounding is relative to the largest.
    assert float((result.latents[0] - expected[0]).abs().max() / expected.abs().max()) <= 1e-6
    other = p2p.edit(model, SOURCE, TARGET, seed=5, sampler="lcm", guidance=4.0, record=False)
    assert float((result.latents[0] - other.latents[0]).abs().max()) > 1e-4, "the scale is told"


def test_the_pipeline_that_it_is_published_with_is_known(checkpoint: UNetCheckpoint, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint.path, tmp_path / "published"))
    index = json.loads((folder / "model_index.json").read_text())
    index["_class_name"] = "LatentConsistencyModelPipeline"
    (folder / "model_index.json").write_text(json.dumps(index))
    spec = LocalCheckpoint(folder).spec()
    assert (spec.family, spec.guided_by, spec.consistency) == ("sd", "input", True)


def test_it_is_asked_once_a_step_and_refuses_what_needs_a_pass_without_the_prompt(
    checkpoint: UNetCheckpoint,
) -> None:
    model = checkpoint.load(dtype=torch.float64)
    result = p2p.edit(model, SOURCE, [TARGET] * 2, [p2p.Replace(0.5), p2p.NoControl()], sampler="lcm")
    assert (result.source_rows, result.target_rows) == (4, (4, 4))
    assert float((result.latents[1] - result.latents[2]).abs().max()) > 1e-3
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    for inversion in ("null_text", "negative_prompt", "proximal"):
        with pytest.raises(ConfigError, match="passes without the prompt"):
            p2p.edit(model, SOURCE, TARGET, image=image, inversion=inversion, steps=4)
    back = p2p.edit(model, SOURCE, TARGET, image=image, inversion="direct", steps=4)
    wanted = model.encode_images(image[None])[0]
    assert float((back.latents[0] - wanted).abs().max()) <= 1e-8


def test_other_steps_are_warned_of(checkpoint: UNetCheckpoint, caplog: pytest.LogCaptureFixture) -> None:
    model = checkpoint.load()
    p2p.edit(model, SOURCE, TARGET, steps=2, sampler="lcm", record=False)
    p2p.edit(tiny_checkpoint().load(), SOURCE, TARGET, steps=2, record=False)
    assert not caplog.records
    p2p.edit(model, SOURCE, TARGET, steps=2, record=False)
    assert "'lcm' was distilled for" in caplog.text
    assert "DDIMSampler" in caplog.text


def test_a_checkpoint_that_was_merged_says_so_itself() -> None:
    with pytest.raises(ConfigError, match="not distilled"):
        p2p.edit(tiny_checkpoint().load(), SOURCE, TARGET, sampler="lcm")
    merged = UNetCheckpoint(tiny_checkpoint().path, consistency=True, record_fraction=0.5).load()
    assert p2p.edit(merged, SOURCE, TARGET, sampler="lcm", guidance=1.5, record=False).error is None


@pytest.mark.parametrize("original", [20, 50, 100])
def test_the_timesteps_that_a_file_says_it_was_distilled_on(
    checkpoint: UNetCheckpoint, original: int
) -> None:
    scheduler = LCMScheduler.from_pretrained(checkpoint.path, subfolder="scheduler")
    config = {**scheduler.config, "_class_name": "LCMScheduler", "original_inference_steps": original}
    scheduler = LCMScheduler.from_config(config)
    layout = replace(schedule_from_config(config), kind="consistency").layout
    for steps in (1, 4, 7):
        scheduler.set_timesteps(steps)
        assert layout.timesteps(steps) == tuple(scheduler.timesteps.tolist())
    assert layout.most == original
    for bad in (0, "50", 10**9):
        with pytest.raises(ConfigError, match="original_inference_steps is"):
            schedule_from_config({**config, "original_inference_steps": bad})
    with pytest.raises(ConfigError, match=r"timestep_scaling is 5\.0, expected 10"):
        schedule_from_config({**config, "timestep_scaling": 5.0})


@pytest.mark.parametrize(
    ("name", "title", "keys", "believed"),
    [
        ("lcm-lora-sdv1-5/pytorch_lora_weights", "", "kohya", True),
        (
            "models--someone--lcm-lora-sdv1-5/snapshots/1a2b/pytorch_lora_weights",
            "",
            "kohya",
            True,
        ),
        ("loras/SD15_LCM_v2", "", "kohya", True),
        ("loras/fast", "LCM LoRA", "kohya", True),
        ("loras/fast", "", "kohya", None),
        ("lcm/loras/style", "", "kohya", None),
        ("loras/calcmodel", "balcmony", "kohya", None),
        ("loras/lcm", "", "text", False),
    ],
)
def test_a_lora_is_one_of_latent_consistency_if_it_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, title: str, keys: str, believed: bool | None
) -> None:
    file = tmp_path / f"{name}.safetensors"
    file.parent.mkdir(parents=True)
    weight = tiny_model(torch.float32).unet.get_submodule(LAYER).weight
    layer = f"lora_unet_{LAYER.replace('.', '_')}" if keys == "kohya" else "lora_te_layers_0_q_proj"
    factors = {"lora_down": torch.ones(1, weight.shape[1]), "lora_up": torch.ones(weight.shape[0], 1)}
    state = {f"{layer}.{end}.weight": one for end, one in factors.items()}
    save_file(state, file, metadata={"modelspec.title": title})
    checkpoint = replace(tiny_checkpoint(), lora=[str(file), 0.1])
    assert checkpoint.spec().consistency is believed
    assert replace(checkpoint, consistency=not believed).spec().consistency is not believed
    assert replace(checkpoint, lora=[str(file), 0.0]).spec().consistency is False
    if believed is False:
        with pytest.raises(ConfigError, match=r"not distilled.*model\.consistency=true"):
            LCMSampler().steps_on(checkpoint.spec())
    else:
        warn_of_steps(LCMSampler(), checkpoint.spec())
        assert ("nothing says that its LoRA" in caplog.text) is (believed is None)
