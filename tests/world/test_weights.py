"""The shipped weights: whole, small, and as good as the experiment page says, on a small sample."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from torch.utils.flop_counter import FlopCounterMode

from p2p_bench.metrics.oracle import LABELS, load_oracle, reading_errors
from p2p_bench.metrics.perceptual_trunk import load_trunk, perceptual_distance
from p2p_bench.metrics.world import MAX_READER_ERROR
from p2p_bench.resources import resource_path
from p2p_bench.world.scenes import STYLES, WEATHERS, Scene, caption, render, sample_scene
from p2p_bench.world.training import verify_manifest
from p2p_bench.world.training.images import VALIDATION_SEEDS
from p2p_bench.world.training.pairs import through_vae
from p2p_bench.world.training.readings import look_scenes, shares_misread
from p2p_bench.world.training.sheets import sample


@pytest.fixture(scope="module")
def weights() -> Path:
    return resource_path("p2p_bench", "world", "weights")


@pytest.fixture(scope="module")
def pipeline(weights: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(weights / "pipeline", use_safetensors=True).to(
        torch.float32
    )


@pytest.fixture(scope="module")
def flow(weights: Path) -> StableDiffusion3Pipeline:
    absent = {"text_encoder_3": None, "tokenizer_3": None}
    return StableDiffusion3Pipeline.from_pretrained(
        weights / "pipeline_flow", use_safetensors=True, **absent
    ).to(torch.float32)


def unseen_scenes(count: int, **shares: float) -> list[Scene]:
    return [sample_scene(VALIDATION_SEEDS + i, **shares) for i in range(count)]


def test_files_are_those_of_the_manifest(weights: Path) -> None:
    assert verify_manifest(weights) == []
    manifest = json.loads((weights / "MANIFEST.json").read_text(encoding="utf-8"))
    assert manifest["label"] == "world"
    assert {"recipe", "seed", "data_version"} <= set(manifest)
    shipped = [path for path in weights.rglob("*") if path.is_file()]
    assert {path.relative_to(weights).as_posix() for path in shipped} == {*manifest["files"], "MANIFEST.json"}
    assert sum(path.stat().st_size for path in shipped) <= 55e6
    flow = [path for path in shipped if path.is_relative_to(weights / "pipeline_flow")]
    assert 0 < sum(path.stat().st_size for path in flow) <= 22e6
    assert {path.suffix for path in shipped} <= {".json", ".txt", ".safetensors"}


def test_the_unet_stays_within_its_budget(pipeline: StableDiffusionPipeline) -> None:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        pipeline.unet(torch.zeros(1, 4, 16, 16), 500, torch.zeros(1, 24, 128))
    assert 0 < counter.get_total_flops() <= 1e9


def test_the_flow_transformer_stays_within_its_budget(flow: StableDiffusion3Pipeline) -> None:
    columns, pooled = torch.zeros(1, 25, 192), torch.zeros(1, 192)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        flow.transformer(torch.zeros(1, 4, 16, 16), columns, pooled, torch.tensor([500.0]))
    assert 0 < counter.get_total_flops() <= 1.5e9


def test_both_models_share_autoencoder_and_words(weights: Path) -> None:
    shared = (
        ("vae/diffusion_pytorch_model.safetensors",) * 2,
        ("tokenizer/tokenizer.json",) * 2,
        ("tokenizer/tokenizer.json", "tokenizer_2/tokenizer.json"),
        ("caption_words.json",) * 2,
    )
    for first, flow in shared:
        assert (weights / "pipeline" / first).read_bytes() == (weights / "pipeline_flow" / flow).read_bytes()


@pytest.mark.parametrize("name", ["oracle_a", "oracle_b"])
def test_oracles_read_unseen_renders(weights: Path, name: str) -> None:
    scenes = unseen_scenes(300, two_objects=0.0, styled=0.25, weathered=0.25)
    readings = load_oracle(weights / name).read(render(scenes).images)
    for attribute in LABELS:
        asked = [getattr(s, attribute, None) or getattr(s.objects[0], attribute) for s in scenes]
        right = [reading.values[attribute] == value for reading, value in zip(readings, asked, strict=True)]
        assert sum(right) / len(right) >= 0.95, attribute


def test_the_judge_finds_two_objects_as_the_model_draws_them(
    weights: Path, pipeline: StableDiffusionPipeline
) -> None:
    scenes = look_scenes("photo", 96, objects=2)
    images = through_vae(pipeline.vae, render(scenes).images)
    shares = shares_misread(load_oracle(weights / "oracle_b").read(images), scenes)
    assert shares["pairs"] <= 0.1


@pytest.mark.parametrize("name", ["oracle_a", "oracle_b"])
def test_the_oracles_bring_their_own_errors(weights: Path, name: str) -> None:
    errors = reading_errors(weights / name)
    assert list(errors) == [*STYLES, *WEATHERS[1:]]
    for shares in errors.values():
        assert list(shares) == [*LABELS, "pairs"]
        assert all(0 <= share < 1 for share in shares.values())
    assert max(errors["photo"][attribute] for attribute in LABELS) < 0.05
    assert errors["sketch"]["pattern"] > MAX_READER_ERROR, "a sketch hides the pattern"


def test_the_autoencoder_keeps_unseen_renders(pipeline: StableDiffusionPipeline) -> None:
    images = render(unseen_scenes(24)).images
    with torch.no_grad():
        latents = pipeline.vae.encode(images * 2 - 1).latent_dist.mean
        decoded = (pipeline.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    psnr = -10 * (images - decoded).square().mean((1, 2, 3)).log10()
    assert psnr.mean() >= 28
    scaled = latents * pipeline.vae.config.scaling_factor
    assert 0.8 < scaled.std() < 1.2
    assert scaled.mean().abs() < 0.2


@pytest.mark.parametrize("model", ["pipeline", "flow"])
def test_samples_show_what_the_captions_ask_for(
    weights: Path, model: str, request: pytest.FixtureRequest
) -> None:
    scenes = unseen_scenes(12, two_objects=0.0, styled=0.0, weathered=0.0)
    drawn = request.getfixturevalue(model)
    images = sample(drawn, [caption(scene) for scene in scenes], range(12), steps=20)
    readings = load_oracle(weights / "oracle_b").read(images)

    def hits(name: str) -> int:
        asked = [getattr(s, name, None) or getattr(s.objects[0], name) for s in scenes]
        return sum(reading.values[name] == value for reading, value in zip(readings, asked, strict=True))

    assert hits("background") >= 11
    assert hits("colour") >= 10
    assert hits("shape") >= 9


def test_clip_prefers_the_right_caption(weights: Path) -> None:
    name = f"local-dir:{weights / 'clip'}"
    model, _, _ = open_clip.create_model_and_transforms(name, require_pretrained=True)
    scenes = unseen_scenes(32)
    with torch.no_grad():
        image = model.eval().encode_image(render(scenes).images * 2 - 1, normalize=True)
        text = model.encode_text(open_clip.get_tokenizer(name)([caption(s) for s in scenes]), normalize=True)
    assert (image @ text.T).argmax(1).eq(torch.arange(32)).float().mean() >= 0.8


def test_perceptual_distance_grows_with_what_changes(weights: Path) -> None:
    scene = sample_scene(VALIDATION_SEEDS + 7, two_objects=0.0, styled=0.0, weathered=0.0)
    shifted = scene.with_attribute("angle", scene.objects[0].angle + 0.05)
    other = sample_scene(VALIDATION_SEEDS + 8, two_objects=0.0, styled=0.0, weathered=0.0)
    images = render([scene, shifted, other]).images
    distances = perceptual_distance(load_trunk(weights / "lpips"), images[:1].expand(3, -1, -1, -1), images)
    assert distances[0] == 0
    assert distances[0] < distances[1] < distances[2]
