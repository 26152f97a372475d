"""Stable Diffusion 2.1 as published: v-prediction, heads by level, linear projections, padding with "!"."""

import pytest
from diffusers import StableDiffusionPipeline

import p2p_bench as p2p
from p2p_bench.models import DiffusionModel
from p2p_bench.sampling import initial_noise
from tests.models.border import Border
from tests.models.small import small_checkpoint, small_model

PROMPTS = ("a red circle on grass!", "a blue circle on grass!")


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    return small_model("sd2")


class TestStableDiffusion2(Border):
    """The family passes what every family has to."""


def test_without_control_equals_its_pipeline() -> None:
    checkpoint = small_checkpoint("sd2")
    pipeline = StableDiffusionPipeline.from_pretrained(
        checkpoint.path, local_files_only=True, safety_checker=None
    )
    pipeline.set_progress_bar_config(disable=True)
    noise = initial_noise(3, (4, 8, 8)).float()
    options = {"num_inference_steps": 5, "guidance_scale": 6.0, "latents": noise.repeat(2, 1, 1, 1)}
    wanted = pipeline(list(PROMPTS), output_type="pt", **options).images
    result = p2p.edit(checkpoint.load(), PROMPTS[0], PROMPTS[1], noise=noise, steps=5, guidance=6.0)
    assert float((result.images - wanted).abs().max()) <= 1e-5
    assert float((result.images[0] - result.images[1]).abs().max()) >= 1e-2


def test_what_is_read_before_weights() -> None:
    spec = small_checkpoint("sd2").spec()
    assert (spec.family, spec.prediction_type, spec.timesteps.offset) == ("sd", "v_prediction", 1)


def test_the_padding_may_be_a_word_too() -> None:
    prompt = small_checkpoint("sd2").reader().tokenize("a cat!")
    assert prompt.num_tokens == 3
    assert prompt.ids[3] == prompt.ids[-1] == 0
