"""Latent Diffusion: its own pipeline's pictures, BERT's word pieces, and the border."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import LDMTextToImagePipeline

import p2p_bench as p2p
from p2p_bench.errors import MissingWeightsError
from p2p_bench.models import DiffusionModel, UNetCheckpoint
from p2p_bench.prompts.words import columns_of
from p2p_bench.sampling import initial_noise
from tests.models.border import Border
from tests.models.small import small_checkpoint, small_model

PROMPTS = ("a red circle on grass", "a blue circle on grass")


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    return small_model("ldm")


class TestLatentDiffusion(Border):
    """The family passes what every family has to."""


def test_without_control_equals_its_pipeline() -> None:
    checkpoint = small_checkpoint("ldm")
    pipeline = LDMTextToImagePipeline.from_pretrained(checkpoint.path, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    # The pipeline divides pixels by 8 whatever the VAE, so it is given a side that makes the latents' own.
    noise = initial_noise(3, (4, 8, 8)).float()
    wanted = pipeline(
        list(PROMPTS),
        latents=noise.expand(2, -1, -1, -1).clone(),
        num_inference_steps=5,
        guidance_scale=6.0,
        height=64,
        width=64,
        output_type="np",
    ).images
    wanted = torch.from_numpy(wanted).movedim(-1, 1)
    result = p2p.edit(checkpoint.load(), PROMPTS[0], PROMPTS[1], noise=noise, steps=5, guidance=6.0)
    assert float((result.images - wanted).abs().max()) <= 1e-5
    assert float((result.images[0] - result.images[1]).abs().max()) >= 1e-2


def test_what_is_read_before_weights() -> None:
    spec = small_checkpoint("ldm").spec()
    assert (spec.family, spec.image_size, spec.max_tokens) == ("ldm", (16, 16), 77)
    assert (spec.vae_scaling, spec.unprompted, spec.timesteps.offset) == (0.18215, "encoded", 0)


def test_words_in_pieces_have_all_their_columns() -> None:
    reader = small_checkpoint("ldm").reader()
    prompt = reader.tokenize("A red fox, on grass")
    assert prompt.num_tokens == 8  # a, red, f ##o ##x, the comma, on, grass
    assert columns_of(prompt, "fox") == (3, 4, 5)
    assert columns_of(prompt, "grass") == (8,)


def test_a_schedule_that_would_clip_latents_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(small_checkpoint("ldm").path, folder)
    file = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(file.read_text())
    del config["clip_sample"]
    file.write_text(json.dumps(config))
    with pytest.raises(MissingWeightsError, match="clip_sample"):
        UNetCheckpoint(folder).spec()


def test_pickles_are_refused_with_the_remedy(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(small_checkpoint("ldm").path, folder)
    torch.save({}, folder / "bert" / "pytorch_model.bin")
    (folder / "bert" / "model.safetensors").unlink()
    with pytest.raises(MissingWeightsError, match="pickle"):
        UNetCheckpoint(folder).spec()
