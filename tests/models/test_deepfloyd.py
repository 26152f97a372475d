"""DeepFloyd IF: equal to its diffusers pipeline, and all that every family has to pass."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, IFPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.controllers import EditContext
from p2p_bench.errors import ConfigError, MissingWeightsError, PromptError
from p2p_bench.models import DeepFloydCheckpoint, LocalCheckpoint, UNetCheckpoint
from p2p_bench.models.conditioning import TEXT
from p2p_bench.models.deepfloyd_if import DeepFloydIF
from p2p_bench.models.layouts import DEEPFLOYD
from p2p_bench.models.level import Denoised, Level, Thresholding
from p2p_bench.models.pixels import pixel_schedule, thresholding_from_config
from p2p_bench.prompts.alignment import refinement_map, replacement_map
from p2p_bench.sampling import initial_noise
from tests.examples import SOURCE, TARGET
from tests.models.border import STEPS, Border, distance
from tests.models.small_if import SIDE, small_if, small_if_model, small_t5_tokenizer


@pytest.fixture(scope="module")
def model() -> DeepFloydIF:
    return small_if_model()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkpoint that a test may damage."""
    return Path(shutil.copytree(small_if().path, tmp_path / "checkpoint"))


def change_json(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


class TestDeepFloyd(Border):
    """The family passes what every family has to."""


def pipeline_image(prompt: str, noise: Tensor, guidance: float, steps: int) -> Tensor:
    """What diffusers makes of a noise, in [-1, 1], in the number format of the noise."""
    pipeline = IFPipeline.from_pretrained(small_if().path, safety_checker=None, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    scheduler = pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    # Or the pipeline hands the variance on, which DDIM does not take.
    scheduler.register_to_config(variance_type="fixed_small")
    assert scheduler.config.thresholding
    for part in (pipeline.unet, pipeline.text_encoder):
        part.to(noise.dtype)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.to(noise.dtype)
    pipeline.prepare_intermediate_images = lambda *args: noise[None]
    call: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": guidance, "clean_caption": False}
    return pipeline(prompt, output_type="pt", **call).images[0]


@pytest.mark.parametrize("prompt", [SOURCE, "  A small CAT, on the Grass "])
@pytest.mark.parametrize(
    ("dtype", "guidance", "steps", "allowed"),
    [
        (torch.float32, 1.0, 8, 1e-5),
        # Guidance multiplies rounding errors, which is what is left: double precision takes them away.
        (torch.float32, 7.0, 4, 5e-5),
        (torch.float64, 7.0, 8, 1e-9),
        (torch.float64, 1.0, 20, 1e-9),
    ],
)
def test_equal_to_the_diffusers_pipeline(
    prompt: str, dtype: torch.dtype, guidance: float, steps: int, allowed: float
) -> None:
    model = small_if_model(dtype)
    noise = initial_noise(3, (3, SIDE, SIDE)).to(dtype)
    expected = pipeline_image(prompt, noise, guidance, steps)
    result = p2p.edit(model, prompt, TARGET, seed=3, steps=steps, guidance=guidance, record=False)
    assert distance(result.latents[0], expected) <= allowed
    assert distance(result.images[0], (expected / 2 + 0.5).clamp(0, 1)) <= max(allowed, 1e-6)


def test_thresholding_is_needed_for_that(model: DeepFloydIF) -> None:
    """Images leave [-1, 1] on the way, so that the comparison above judges thresholding."""
    noise = initial_noise(3, (3, SIDE, SIDE)).double()
    expected = pipeline_image(SOURCE, noise, 7.0, 8)
    without = type(model)(**{**vars(model), "thresholding": None})
    result = p2p.edit(without, SOURCE, TARGET, seed=3, steps=8, guidance=7.0, record=False)
    assert distance(result.latents[0], expected) > 1e-2


def test_the_noise_is_kept_when_the_image_is_thresholded() -> None:
    generator = torch.Generator().manual_seed(0)
    x_t, epsilon = (3 * torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    scheduler = DDIMScheduler.from_config(
        {"beta_schedule": "squaredcos_cap_v2", "thresholding": True, "dynamic_thresholding_ratio": 0.95,
         "sample_max_value": 1.5}
    )  # fmt: skip
    scheduler.set_timesteps(10)
    level = Level(
        500.0, float(scheduler.alphas_cumprod[500]) ** 0.5, float(1 - scheduler.alphas_cumprod[500]) ** 0.5
    )
    predicted = Denoised(x_t, level, epsilon, thresholding=Thresholding(0.95, 1.5))
    expected = scheduler.step(epsilon, 500, x_t)
    torch.testing.assert_close(predicted.x_0, expected.pred_original_sample, rtol=0, atol=1e-6)
    assert float(predicted.x_0.abs().max()) == 1.0
    assert torch.equal(predicted.epsilon, epsilon)
    # Back to the noise, what is in the latents counts.
    assert predicted.held(x_t, level).thresholding is None


def test_levels_are_those_of_diffusers() -> None:
    config = json.loads((Path(small_if().path) / "scheduler/scheduler_config.json").read_text())
    schedule, scheduler = pixel_schedule(config), DDIMScheduler.from_config(config)
    assert torch.equal(schedule.alphas_cumprod, scheduler.alphas_cumprod.double())
    for steps in (4, 50, 100):
        scheduler.set_timesteps(steps)
        assert schedule.timesteps(steps) == tuple(scheduler.timesteps.tolist())
    assert schedule.final_alpha_cumprod == float(scheduler.final_alpha_cumprod) == 1.0
    assert pixel_schedule({**config, "steps_offset": 1}).steps_offset == 1


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"thresholding": True}, Thresholding(0.995, 1.0)),
        ({}, Thresholding(1.0, 1.0)),
        ({"clip_sample": False}, None),
    ],
)
def test_what_is_done_to_predicted_images(config: dict[str, Any], expected: Thresholding | None) -> None:
    found = thresholding_from_config(config)
    assert found == expected
    x_0 = 2 * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    scheduler = DDIMScheduler.from_config(config)
    scheduler.set_timesteps(10)
    alpha = float(scheduler.alphas_cumprod[500]) ** 0.5
    ours = x_0 if found is None else found(x_0)
    theirs = scheduler.step(torch.zeros_like(x_0), 500, alpha * x_0).pred_original_sample
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_spec_is_read_from_the_files(model: DeepFloydIF) -> None:
    spec = small_if().spec()
    assert (spec.name, spec.family, spec.prediction_type) == ("small_if", "if", "epsilon")
    assert (spec.latent_channels, spec.latent_size, spec.image_size) == (3, (SIDE, SIDE), (SIDE, SIDE))
    assert (spec.max_tokens, spec.guidance, spec.timesteps.offset) == (77, 7.0, 0)
    assert model.thresholding == Thresholding(0.95, 1.5)
    assert all(site.joint for site in model.sites)
    assert {site.fraction for site in model.sites} == {0.5, 0.25}


def test_a_folder_is_enough() -> None:
    checkpoint = LocalCheckpoint(small_if().path, guidance=3.0)
    spec = checkpoint.spec()
    assert (spec.family, spec.guidance, spec.steps) == ("if", 3.0, DEEPFLOYD.steps)
    assert checkpoint.reader().tokenize(SOURCE).front == 0
    assert isinstance(checkpoint.load(), DeepFloydIF)
    with pytest.raises(ConfigError, match="DeepFloyd IF leaves no choice of unprompted"):
        LocalCheckpoint(small_if().path, unprompted="zeros").spec()
    with pytest.raises(ConfigError, match="of DeepFloyd IF, expected a latent U-Net; model=local"):
        UNetCheckpoint(small_if().path).spec()


def test_words_have_their_columns(model: DeepFloydIF) -> None:
    """T5 puts nothing in front of the prompt, and one token behind it."""
    prompt = model.tokenize(" A small cat, on Grass ")
    assert (prompt.front, prompt.num_tokens, prompt.end, prompt.width) == (0, 6, 6, 77)
    assert prompt.ids[prompt.end] == 1
    assert set(prompt.ids[prompt.end + 1 :]) == {0}
    tokens = model.tokenizer.convert_ids_to_tokens(prompt.ids[: prompt.end])
    assert tokens == ["▁a", "▁small", "▁cat", ",", "▁on", "▁grass"]
    assert [word.columns for word in prompt.words] == [(0,), (1,), (2,), (4,), (5,)]
    assert prompt.words[2].span == (2, 3)
    with pytest.raises(PromptError, match="1 token too long: it has 77, the model takes 76"):
        model.tokenize("cat " * 77)
    cut = model.tokenize("cat " * 77, truncate=True)
    assert (cut.truncated, cut.num_tokens, len(cut.words), cut.ids[76]) == (True, 76, 76, 1)


def test_a_word_that_shares_a_token_with_its_brackets_has_its_columns(model: DeepFloydIF) -> None:
    """What T5 does not know is one token as far as it goes."""
    source = model.tokenize("a cat \u300c\u732b\u300d on sand")
    assert [word.columns for word in source.words] == [(0,), (1,), (2, 3), (4,), (5,)]
    assert source.unread == ("\u732b",)
    matrix = refinement_map(source, model.tokenize("a dog \u300c\u732b\u300d on sand"))[0]
    assert matrix[2:4, 2:4].equal(torch.eye(2, dtype=torch.float64))
    swap = replacement_map(source, model.tokenize("a cat dog on sand"))
    assert swap[2:4, 2].tolist() == [1.0, 1.0]
    assert swap[4, 3] == swap[5, 4] == 1


def test_tokens_are_those_of_the_librarys_own_class(model: DeepFloydIF) -> None:
    for text in (SOURCE, TARGET, "", "a dog's soft fog!"):
        expected = small_t5_tokenizer()(text, padding="max_length", max_length=77, truncation=True).input_ids
        assert list(model.tokenize(text, allow_empty=True).ids) == expected


def test_an_edit_into_itself_changes_nothing(model: DeepFloydIF) -> None:
    result = p2p.edit(model, SOURCE, SOURCE, p2p.Refine(1.0, 0.5), seed=3, steps=STEPS)
    assert distance(result.latents[0], result.latents[1]) <= 1e-10


def test_column_0_is_a_word(model: DeepFloydIF) -> None:
    """No begin column is assumed: the first word can be new or swapped; end and padding keep their places."""
    source, target = (model.tokenize(text) for text in ("red circle on grass", "blue circle on grass"))
    matrix, aligned = refinement_map(source, target)
    assert aligned.tolist() == [0.0, *[1.0] * 76]
    assert torch.equal(matrix, torch.diag(aligned))
    longer = model.tokenize("small red circle on grass")
    matrix, aligned = refinement_map(source, longer)
    assert aligned[:6].tolist() == [0, 1, 1, 1, 1, 1]
    assert matrix[:5, :6].nonzero().tolist() == [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5]]
    plain, swapped = (
        p2p.edit(model, source.text, target.text, control, seed=3, steps=STEPS)
        for control in (p2p.NoControl(), p2p.Replace(1.0, 0.0))
    )
    assert distance(plain.latents[1], swapped.latents[1]) > 1e-3
    assert "<begin>" not in str(p2p.Replace(1.0, 0.0).bind(EditContext(source, target, STEPS, 0.5)))


@pytest.mark.parametrize(
    "file",
    [
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "text_encoder/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer.json",
        "model_index.json",
    ],
)
def test_a_missing_file_is_named(copy: Path, file: str) -> None:
    (copy / file).unlink()
    with pytest.raises(MissingWeightsError, match=file.replace(".", r"\.")) as caught:
        DeepFloydCheckpoint(copy).spec()
    assert caught.value.exit_code == 3


def test_a_sentencepiece_file_alone_comes_with_the_remedy(copy: Path) -> None:
    (copy / "tokenizer/tokenizer.json").rename(copy / "tokenizer/spiece.model")
    for call in (DeepFloydCheckpoint(copy).spec, DeepFloydCheckpoint(copy).reader):
        with pytest.raises(MissingWeightsError, match=r"T5TokenizerFast\.from_pretrained") as caught:
            call()
        assert caught.value.exit_code == 3


def test_pickled_weights_are_refused(copy: Path) -> None:
    weights = copy / "text_encoder/model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(MissingWeightsError, match=r"text_encoder/model\.bin.*p2p-bench convert"):
        DeepFloydCheckpoint(copy).spec()


@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model", "text_encoder/model"])
def test_damaged_weights_are_named(copy: Path, part: str) -> None:
    file = copy / f"{part}.safetensors"
    tensors = load_file(file)
    key = next(key for key, tensor in tensors.items() if tensor.ndim == 2)
    save_file({**tensors, key: torch.full_like(tensors[key], float("nan"))}, file, {"format": "pt"})
    with pytest.raises(MissingWeightsError, match="not finite"):
        DeepFloydCheckpoint(copy).load()
    save_file({other: tensor for other, tensor in tensors.items() if other != key}, file, {"format": "pt"})
    with pytest.raises(MissingWeightsError, match=key.replace(".", r"\.")):
        DeepFloydCheckpoint(copy).load()
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(MissingWeightsError):
        DeepFloydCheckpoint(copy).spec()


@pytest.mark.parametrize(
    ("file", "values", "error", "message"),
    [
        ("model_index.json", {"_class_name": "IFSuperResolutionPipeline"}, ConfigError, "stage II or III"),
        (
            "model_index.json",
            {"_class_name": "StableDiffusionPipeline"},
            ConfigError,
            "expected DeepFloyd IF",
        ),
        ("unet/config.json", {"in_channels": 6}, ConfigError, "6 channels, expected the 3 of pixels"),
        ("unet/config.json", {"class_embed_type": "timestep"}, ConfigError, "class_embed_type=timestep"),
        ("text_encoder/config.json", {"d_model": 17}, MissingWeightsError, "d_model is 17"),
        ("scheduler/scheduler_config.json", {"sample_max_value": 0}, MissingWeightsError, "sample_max_value"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "x"}, MissingWeightsError, "beta_schedule"),
    ],
)
def test_other_layouts_are_refused(
    copy: Path, file: str, values: dict[str, Any], error: type[Exception], message: str
) -> None:
    change_json(copy / file, **values)
    with pytest.raises(error, match=message):
        DeepFloydCheckpoint(copy).spec()


def test_half_precision_keeps_what_would_overflow(copy: Path) -> None:
    model = DeepFloydCheckpoint(copy, dtype="float16").load()
    kinds = {name: weight.dtype for name, weight in model.text_encoder.named_parameters()}
    assert {kind for name, kind in kinds.items() if ".wo." in name} == {torch.float32}
    assert {kind for name, kind in kinds.items() if ".wo." not in name} == {torch.float16}
    encoded = model.encode([model.tokenize(SOURCE)])[TEXT]
    assert encoded.dtype == torch.float16
    assert bool(encoded.isfinite().all())
