"""Every stage of the training, in seconds; resuming; the layout it writes."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import yaml
from diffusers import StableDiffusion3Pipeline, StableDiffusionPipeline
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p_bench.errors import ConfigError
from p2p_bench.metrics.oracle import LABELS, load_oracle, reading_errors
from p2p_bench.metrics.perceptual_trunk import load_trunk, perceptual_distance
from p2p_bench.resources import resource_path
from p2p_bench.world.scenes import render, sample_scene
from p2p_bench.world.training import train_world, verify_manifest
from p2p_bench.world.training.export import read_manifest
from p2p_bench.world.training.flow import FlowRecipe, KeepingJointProcessor, build_transformer
from p2p_bench.world.training.latents import draw_timesteps
from p2p_bench.world.training.muon import MuonAdamW, muon_groups, orthogonalise
from p2p_bench.world.training.pairs import crowd
from p2p_bench.world.training.readings import LOOKS

# Lightning's own use of deprecated torch functions, and its advice for longer trainings.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
]

PIPELINES = ("pipeline", "pipeline_flow")


@pytest.fixture(scope="module")
def smoke() -> dict[str, Any]:
    return yaml.safe_load(resource_path("conf", "world", "smoke.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def world(smoke: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    return train_world(**{**smoke, "work_dir": folder / "work", "weights_dir": folder / "weights"})


def test_the_pipeline_is_complete(world: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(world / "pipeline", use_safetensors=True).to(
        torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline("a red circle on grass", num_inference_steps=2, output_type="pt").images
    assert images.shape[:2] == (1, 3)
    assert bool(torch.isfinite(images).all())
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.vae.config.scaling_factor != 0.18215
    assert not list(world.rglob("*.bin"))
    assert not list(world.rglob("*.pt"))


def test_the_flow_pipeline_is_complete(world: Path) -> None:
    without_t5 = {"text_encoder_3": None, "tokenizer_3": None}
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        world / "pipeline_flow", use_safetensors=True, **without_t5
    ).to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        "a red circle on grass", num_inference_steps=2, max_sequence_length=1, output_type="pt"
    ).images
    assert images.shape[:2] == (1, 3)
    assert bool(torch.isfinite(images).all())
    assert pipeline.text_encoder_3 is None
    assert pipeline.vae.config.shift_factor == 0
    first, flow = (
        world / name / "vae" / "diffusion_pytorch_model.safetensors" for name in ("pipeline", "pipeline_flow")
    )
    assert first.read_bytes() == flow.read_bytes()


def test_the_flow_is_trained_alone_beside_finished_weights(
    smoke: dict[str, Any], world: Path, tmp_path: Path
) -> None:
    """It is a function of seed and step; what the manifest says of other stages stays."""
    shutil.copytree(world, tmp_path / "weights")
    shutil.rmtree(tmp_path / "weights" / "pipeline_flow")
    where = {"work_dir": tmp_path, "weights_dir": tmp_path / "weights"}
    changed = {**smoke["unet"], "steps": 7}
    train_world(**{**smoke, **where, "unet": changed, "stages": ["flow", "export"]})
    assert verify_manifest(tmp_path / "weights") == []
    before, after = (read_manifest(folder) for folder in (world, tmp_path / "weights"))
    assert before is not None
    assert after is not None
    assert after["steps_done"] == before["steps_done"]
    assert after["recipe"] == before["recipe"]
    assert after["files"] == before["files"]


def test_written_out_joint_attention_is_the_networks_own() -> None:
    """Training uses a processor of its own, sampling diffusers'."""
    torch.manual_seed(0)
    recipe = FlowRecipe(width=64, depth=2, text_width=32)
    network = build_transformer(recipe).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    inputs = {
        "hidden_states": torch.randn(2, 4, 16, 16, dtype=torch.float64),
        "timestep": torch.tensor([900.0, 20.0]),
        "encoder_hidden_states": torch.randn(2, 7, 64, dtype=torch.float64),
        "pooled_projections": torch.randn(2, 64, dtype=torch.float64),
    }
    expected = network(**inputs).sample
    maps: list[torch.Tensor] = []
    network.set_attn_processor(KeepingJointProcessor())
    found = network(**inputs, joint_attention_kwargs={"maps": maps}).sample
    assert float(expected.detach().std()) > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)  # the maps are softmaxed in float32
    assert [tuple(one.shape) for one in maps] == [(2, 64, 7)] * 2


def test_noise_levels_of_a_flow_are_strata_of_their_distribution() -> None:
    recipe = FlowRecipe(level_mean=0.6, level_spread=1.0, level_uniform=0.25)
    levels = recipe.draw_levels(4000, torch.Generator().manual_seed(0)).double()
    assert 0 < float(levels.min()) < 1e-3
    assert 1 - 1e-3 < float(levels.max()) < 1
    for level in (0.2, 0.5, 0.9):
        logit = math.log(level / (1 - level))
        normal = 0.5 * (1 + math.erf((logit - 0.6) / 2**0.5))
        assert float((levels < level).double().mean()) == pytest.approx(
            0.25 * level + 0.75 * normal, abs=1e-3
        )


def test_judges_and_clip_load(world: Path) -> None:
    images = render([sample_scene(seed) for seed in range(3)]).images
    readings = load_oracle(world / "oracle_a").read(images)
    assert len(readings) == 3
    assert readings[0].values["shape"]
    assert load_oracle(world / "oracle_b").config != load_oracle(world / "oracle_a").config
    trunk = load_trunk(world / "lpips")
    distance = perceptual_distance(trunk, images, images.flip(0))
    assert distance[0] > 0
    assert distance[1] == 0
    torch.testing.assert_close(distance[0], distance[2])
    name = f"local-dir:{world / 'clip'}"
    model, _, _ = open_clip.create_model_and_transforms(name, require_pretrained=True)
    tokens = open_clip.get_tokenizer(name)(["a red circle on grass"])
    assert tokens.shape == (1, 24)
    assert model.encode_text(tokens).shape == model.eval().encode_image(images[:1]).shape


def test_the_pair_reader_is_trained_alone(smoke: dict[str, Any], world: Path, tmp_path: Path) -> None:
    judge, other = load_oracle(world / "oracle_b"), load_oracle(world / "oracle_a")
    assert judge.pair_reader is not None
    assert other.pair_reader is None
    moved = judge.pair_reader.levels.state_dict()
    assert any(not torch.equal(moved[name], kept) for name, kept in judge.levels.state_dict().items())
    shutil.copytree(world, tmp_path / "weights")
    where = {"work_dir": tmp_path, "weights_dir": tmp_path / "weights"}
    train_world(**{**smoke, **where, "stages": ["pairs_b"]})
    again = load_oracle(tmp_path / "weights" / "oracle_b").state_dict()
    assert all(torch.equal(again[name], kept) for name, kept in judge.state_dict().items())


def test_the_readers_errors_are_measured_and_kept(world: Path) -> None:
    for name in ("oracle_a", "oracle_b"):
        errors = reading_errors(world / name)
        assert list(errors) == list(LOOKS)
        assert all(set(shares) == {*LABELS, "pairs"} for shares in errors.values())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9999), st.integers(0, 9999))
def test_crowded_scenes_keep_their_objects_in_sight(seed: int, draw: int) -> None:
    scene = sample_scene(seed, two_objects=0.7)
    crowded = crowd(scene, np.random.default_rng(draw))
    kinds = [(item.shape, item.colour, item.pattern) for item in scene.objects]
    assert [(item.shape, item.colour, item.pattern) for item in crowded.objects] == kinds
    for before, after in zip(scene.objects, crowded.objects, strict=True):
        assert 0.7 * before.size <= after.size <= before.size
        edge = after.size / 2 - 0.02
        assert all(edge <= place <= 1 - edge for place in (after.x, after.y))
    if len(kinds) == 2:
        first, second = crowded.objects
        distance = math.hypot(second.x - first.x, second.y - first.y)
        apart = math.hypot(*(getattr(scene.objects[1], k) - getattr(scene.objects[0], k) for k in "xy"))
        assert distance <= apart + 1e-9
        assert distance >= min(apart, 0.84 * (first.size + second.size) / 2) - 1e-9


def test_the_manifest_notices_a_changed_file(world: Path) -> None:
    assert verify_manifest(world) == []
    manifest = json.loads((world / "MANIFEST.json").read_text(encoding="utf-8"))
    assert manifest["label"] == "world"
    assert manifest["recipe"]["vae"]["steps"] == 2
    assert manifest["steps_done"]["vae"] == 2
    path = world / "lpips" / "config.json"
    kept = path.read_bytes()
    path.write_bytes(kept + b" ")
    assert verify_manifest(world) == ["lpips/config.json"]
    path.write_bytes(kept)


def test_a_stopped_training_goes_on_and_a_finished_one_is_kept(smoke: dict[str, Any], tmp_path: Path) -> None:
    settings = {**smoke, "stages": ["oracle_a"], "weights_dir": tmp_path / "weights"}
    checkpoint = tmp_path / "oracle_a" / "last.ckpt"

    def train(steps: int) -> tuple[int, int]:
        train_world(**{**settings, "work_dir": tmp_path, "oracle_a": {**smoke["oracle_a"], "steps": steps}})
        saved = torch.load(checkpoint, weights_only=True)
        batches_seen = int(saved["state_dict"]["network.levels.0.first.1.num_batches_tracked"])
        return saved["global_step"], batches_seen

    assert train(2) == (2, 2)
    assert train(2) == (2, 2)
    assert train(3) == (3, 3)
    assert (tmp_path / "weights" / "oracle_a" / "model.safetensors").is_file()


def test_faults_of_the_recipe_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown stage 'vea'.*'vae'"):
        train_world(tmp_path, tmp_path, stages=["vea"])
    with pytest.raises(ConfigError, match=r"unet: unknown setting 'step'.*'steps'"):
        train_world(tmp_path, tmp_path, stages=[], unet={"step": 3})
    with pytest.raises(ConfigError, match="unknown stage 'unett'"):
        train_world(tmp_path, tmp_path, stages=[], unett={"steps": 3})


def test_orthogonalise_flattens_the_singular_values() -> None:
    matrix = torch.randn(24, 40, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrix))
    assert values.min() > 0.5
    assert values.max() < 1.4
    torch.testing.assert_close(orthogonalise(matrix.T), orthogonalise(matrix).T, rtol=0, atol=0.05)


def test_the_optimiser_descends() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
    x, y = torch.randn(64, 6), torch.randn(64, 2)
    optimizer = MuonAdamW(muon_groups([network]), lr=0.02)

    def loss() -> torch.Tensor:
        return (network(x) - y).square().mean()

    first = loss().item()
    for _ in range(60):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.7 * first


def test_timesteps_cover_the_schedule_with_the_share_in_focus() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([draw_timesteps(20, (0.4, 0.9), 0.7, generator) for _ in range(50)])
    assert drawn.min() >= 0
    assert drawn.max() <= 999
    assert ((drawn >= 400) & (drawn < 900)).float().mean() == pytest.approx(0.7, abs=0.01)
    assert (drawn < 400).float().mean() == pytest.approx(0.3 * 0.8, abs=0.01)
