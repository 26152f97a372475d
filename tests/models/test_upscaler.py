"""Stage II of DeepFloyd IF: equal to its diffusers pipeline, for every row of an edit alike."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, IFSuperResolutionPipeline
from diffusers.pipelines.deepfloyd_if import pipeline_if_superresolution as their_pipeline
from diffusers.schedulers import scheduling_ddpm as their_scheduler
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import p2p_bench as p2p
from p2p_bench.editing import EditRequest, Target, finishing, run_edits
from p2p_bench.editing.finishing import enlarged
from p2p_bench.editing.repair import Repair
from p2p_bench.errors import ConfigError
from p2p_bench.hashing import noise_seed
from p2p_bench.models import LocalCheckpoint
from p2p_bench.models.calls import Calling
from p2p_bench.models.conditioning import TEXT
from p2p_bench.models.deepfloyd_if import DeepFloydIF
from p2p_bench.models.level import Denoised, Level, Thresholding
from p2p_bench.models.offload import PartsInTurn
from p2p_bench.models.schedule import Variance, variance_from_config
from p2p_bench.models.upscaler import Upscaler
from p2p_bench.sampling import initial_noise
from p2p_bench.sampling.ddpm import ddpm_step
from tests.examples import SOURCE, TARGET
from tests.models.border import distance
from tests.models.small import small_checkpoint
from tests.models.small_if import SIDE, small_if, small_if_model
from tests.models.small_if_upscaler import (
    LARGE,
    STEPS,
    cascade,
    small_cascade,
    small_cascade_model,
    small_upscaler,
)

SEED = 3
ROUNDING = 1e-6
"""Images are float32, whatever the model."""


@pytest.fixture(scope="module")
def model() -> DeepFloydIF:
    return small_cascade_model()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """An upscaler that a test may damage."""
    return Path(shutil.copytree(small_upscaler(), tmp_path / "upscaler"))


def change_json(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def upscaler_of(model: DeepFloydIF) -> Upscaler:
    assert model.upscaler is not None
    return model.upscaler


def edit(model: DeepFloydIF, *targets: str, **options: Any) -> p2p.EditResult:
    options = {"seed": SEED, "steps": 4, "record": False, **options}
    return p2p.edit(model, SOURCE, list(targets), p2p.Replace(0.8, 0.5), **options)


def noises(dtype: torch.dtype) -> Iterator[Tensor]:
    """Those of the sample, in the order in which diffusers draws them."""
    for name in ("start", "image", *(f"step {step}" for step in range(STEPS))):
        yield initial_noise(noise_seed(SEED, f"upscaler {name}"), (3, LARGE, LARGE))[None].to(dtype)


def pipeline_image(
    model: DeepFloydIF, small: Tensor, prompt: str, monkeypatch: pytest.MonkeyPatch, **call: Any
) -> Tensor:
    """What diffusers makes of an image in [-1, 1] with the noise of the sample, in [0, 1]."""
    pipeline = IFSuperResolutionPipeline.from_pretrained(
        small_upscaler(),
        text_encoder=None,
        tokenizer=None,
        safety_checker=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.unet.to(small.dtype)
    drawn = noises(small.dtype)
    for module in (their_pipeline, their_scheduler):
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: next(drawn))
    for scheduler in (pipeline.scheduler, pipeline.image_noising_scheduler):
        scheduler.alphas_cumprod = scheduler.alphas_cumprod.to(small.dtype)
    image = pipeline(
        image=small[None],
        prompt_embeds=model.encode([model.tokenize(prompt)])[TEXT],
        negative_prompt_embeds=model.unconditional()[TEXT],
        output_type="pt",
        **{"num_inference_steps": STEPS, **call},
    ).images[0]
    return (image / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize(
    ("dtype", "settings", "allowed"),
    [
        (torch.float32, {}, 1e-5),
        (torch.float64, {}, 1e-7),
        (torch.float64, {"upscaler_guidance": 1.0, "upscaler_noise_level": 0}, 1e-7),
    ],
)
def test_equal_to_the_diffusers_pipeline(
    dtype: torch.dtype, settings: dict[str, Any], allowed: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Source and edit, each by its own prompt; 4 and 250 are what the pipeline takes where nobody says it."""
    model = cascade(small_upscaler(), **settings).load(dtype=dtype)
    call = {
        {"upscaler_guidance": "guidance_scale", "upscaler_noise_level": "noise_level"}[key]: value
        for key, value in settings.items()
    }
    result = edit(model, TARGET)
    assert (result.images.shape, result.latents.shape) == ((2, 3, LARGE, LARGE), (2, 3, SIDE, SIDE))
    for small, image, prompt, other in zip(
        result.latents, result.images, (SOURCE, TARGET), (TARGET, SOURCE), strict=True
    ):
        assert distance(image, pipeline_image(model, small, prompt, monkeypatch, **call)) <= allowed
        assert distance(image, pipeline_image(model, small, other, monkeypatch, **call)) > 100 * allowed


def test_steps_end_at_the_clean_image_whatever_the_file_says(copy: Path) -> None:
    """The scheduler of stage II, DDPM's, knows no `set_alpha_to_one`."""
    change_json(copy / "scheduler/scheduler_config.json", set_alpha_to_one=False)
    assert upscaler_of(cascade(copy).load()).ladder()[-1].alpha == 1


def test_stage_one_is_what_it_is_without(model: DeepFloydIF) -> None:
    alone = edit(small_if_model(), TARGET)
    together = edit(model, TARGET)
    assert torch.equal(together.latents, alone.latents)
    assert alone.images.shape[-1] == SIDE


def test_equal_images_stay_equal_and_the_noise_is_the_samples(model: DeepFloydIF) -> None:
    edits = [p2p.Refine(1.0, 0.5), p2p.NoControl()]
    result = p2p.edit(model, SOURCE, [SOURCE, TARGET], edits, seed=SEED, steps=4)
    assert distance(result.images[0], result.images[1]) <= ROUNDING
    assert distance(result.images[0], result.images[2]) > 1e-3
    alone = p2p.generate(model, SOURCE, seed=SEED, steps=4)
    assert distance(result.images[0], alone.images[0]) <= ROUNDING
    assert alone.unet_rows == result.source_rows
    small, prompts = torch.stack([result.latents[0]] * 3), [model.tokenize(SOURCE)] * 3
    one, same, other = enlarged(model, upscaler_of(model), small, prompts, [SEED, SEED, 4], 8)
    assert distance(one, result.images[0]) <= ROUNDING
    assert distance(one, same) <= ROUNDING
    assert distance(one, other) > 1e-2


def test_batches_order_and_memory_change_nothing(model: DeepFloydIF, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows go through either stage at once, and where memory suffices for one alone."""
    edits = [p2p.Replace(cross, 0.25) for cross in (0.25, 1.0)]
    targets = (*(Target(TARGET, one) for one in edits), Target(TARGET, edits[0]))
    requests = [EditRequest(str(seed), SOURCE, targets, seed=seed) for seed in (1, 2)]
    whole = run_edits(model, requests, steps=4, max_rows=400)
    predict, passed = Upscaler.predict, []

    def little_memory(self: Upscaler, x_t: Tensor, *rest: Any) -> Any:
        if len(x_t) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        passed.append(self.settings.passes * len(x_t))
        return predict(self, x_t, *rest)

    ticks: list[tuple[int, int]] = []
    with monkeypatch.context() as patched:
        patched.setattr(Upscaler, "predict", little_memory)
        alone = run_edits(
            model, requests[::-1], steps=4, max_rows=400, progress=lambda *at: ticks.append(at)
        )[::-1]
    parts = run_edits(model, requests, steps=4, max_rows=4)
    for one, other, part in zip(whole, alone, parts, strict=True):
        assert distance(one.images, other.images) <= ROUNDING
        assert distance(one.images, part.images) <= ROUNDING
        assert one.target_rows == other.target_rows == part.target_rows
    assert ticks[-1] == (4 + STEPS, 4 + STEPS)
    # The source, and two different edits of three.
    per_image = 2 * STEPS
    assert sum(passed) == 2 * 3 * per_image
    plain = run_edits(small_if_model(), requests, steps=4)
    for one, without in zip(whole, plain, strict=True):
        assert one.source_rows == without.source_rows + per_image
        assert one.target_rows == tuple(rows + per_image for rows in without.target_rows)
        assert one.unet_rows == without.unet_rows + 3 * per_image
    assert parts[0].source_passes > 1


def test_a_real_image_is_read_at_the_larger_size(model: DeepFloydIF) -> None:
    """It is inverted at the size of stage I, and what is edited goes through stage II, not the image."""
    assert model.spec.image_size == (LARGE, LARGE)
    image = torch.rand(3, LARGE, LARGE, generator=torch.Generator().manual_seed(2))
    means = image.unflatten(2, (SIDE, 2)).unflatten(1, (SIDE, 2)).mean((2, 4))
    assert distance(model.encode_images(image[None])[0], 2 * means.double() - 1) <= 1e-6
    mask = torch.zeros(LARGE, LARGE)
    mask[:, : LARGE // 2] = 1
    result = edit(model, TARGET, image=image, inversion="direct", repair=Repair(mask=mask))
    # Direct inversion gives the small image back, so that what is left is what stage II makes of it.
    assert distance(result.latents[0], 2 * means.double() - 1) <= 1e-6
    prompts = [model.tokenize(SOURCE)]
    expected = enlarged(model, upscaler_of(model), result.latents[:1], prompts, [SEED], 1)
    assert distance(result.images[:1], expected) <= ROUNDING
    assert result.vae_reconstruction is None
    assert torch.equal(result.images[1, :, :, LARGE // 2 :], image[:, :, LARGE // 2 :])
    with pytest.raises(p2p.P2PError, match=f"{SIDE} x {SIDE} pixels"):
        edit(model, TARGET, image=image[:, :SIDE, :SIDE], inversion="direct")


def test_a_source_that_is_told_nothing_is_enlarged_by_its_prompt(model: DeepFloydIF) -> None:
    image = torch.rand(3, LARGE, LARGE, generator=torch.Generator().manual_seed(2))
    inversion = p2p.DDIMInversion(inverted_with="empty")
    options = {"image": image, "inversion": inversion, "seed": SEED, "steps": 4}
    result = p2p.edit(model, SOURCE, TARGET, p2p.MasaCtrl(1, 0.0), **options)
    prompts = [model.tokenize(SOURCE)]
    expected = enlarged(model, upscaler_of(model), result.latents[:1], prompts, [SEED], 1)
    assert distance(result.images[:1], expected) <= ROUNDING


def test_an_image_that_is_none_is_an_error_of_its_row(
    model: DeepFloydIF, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> Tensor:
        made = ddpm_step(*arguments)
        made[1] = torch.nan
        return made

    monkeypatch.setattr(finishing, "ddpm_step", broken)
    targets = (Target(TARGET), Target(TARGET, p2p.Replace(0.5)))
    (result,) = run_edits(model, [EditRequest("one", SOURCE, targets)], steps=4)
    assert [error is None for error in result.errors] == [True, False, True]
    assert "the upscaler of model 'small_cascade' made a non-finite image" in str(result.errors[1])


@pytest.mark.parametrize("name", ["fixed_small", "fixed_small_log", "fixed_large", "learned_range"])
def test_a_step_is_that_of_diffusers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    x_t, output, said, noise = (torch.randn(2, 3, 8, 8, generator=generator).double() for _ in range(4))
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type=name, thresholding=False)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.set_timesteps(10)
    monkeypatch.setattr(their_scheduler, "randn_tensor", lambda *_, **__: noise)
    variance: Variance = variance_from_config(dict(scheduler.config) | {"_class_name": "DDPMScheduler"})

    def level(timestep: int) -> Level:
        alpha_bar = float(scheduler.alphas_cumprod[timestep]) if timestep >= 0 else 1.0
        return Level(float(timestep), alpha_bar**0.5, (1 - alpha_bar) ** 0.5)

    for timestep in (900, 300, 0):
        returned = torch.cat([output, said], 1) if name == "learned_range" else output
        expected = scheduler.step(returned, timestep, x_t).prev_sample
        here, there = level(timestep), level(timestep - 100)
        predicted = Denoised(x_t, here, output, thresholding=Thresholding(1.0, 1.0))
        made = ddpm_step(predicted, here, there, noise if timestep else None, variance, said)
        assert distance(made, expected) <= 1e-10


def test_the_checksum_is_that_of_both(copy: Path) -> None:
    plain, together = small_if().spec(), small_cascade().spec()
    assert plain.checksum != together.checksum == cascade(copy).spec().checksum
    assert (plain.upscaler, plain.image_size) == (None, (SIDE, SIDE))
    assert together.upscaler is not None
    assert (together.upscaler.factor, together.upscaler.rows) == (2, 2 * STEPS)
    assert together.latent_size == (SIDE, SIDE)
    weights = copy / "unet/diffusion_pytorch_model.safetensors"
    tensors = {key: one.clone() for key, one in load_file(weights).items()}
    save_file({**tensors, "conv_in.bias": tensors["conv_in.bias"] + 1}, weights, {"format": "pt"})
    changed = cascade(copy).spec().checksum
    change_json(copy / "image_noising_scheduler/scheduler_config.json", beta_end=0.03)
    assert len({together.checksum, changed, cascade(copy).spec().checksum}) == 3


def test_a_folder_is_enough_with_it() -> None:
    checkpoint = LocalCheckpoint(small_if().path, upscaler=small_upscaler(), upscaler_guidance=1.0)
    upscaling = checkpoint.spec().upscaler
    assert upscaling is not None
    assert (upscaling.steps, upscaling.guidance, upscaling.noise_level) == (50, 1.0, 250)
    with pytest.raises(ConfigError, match="leaves no choice of upscaler"):
        LocalCheckpoint(small_checkpoint("sd2").path, upscaler=small_upscaler()).spec()


def test_a_kernel_of_attention_is_for_both() -> None:
    model = cascade(small_upscaler(), attention_backend="math").load(dtype=torch.float64)
    call = upscaler_of(model).call
    assert call is not None
    assert call.kernel == "math"
    assert distance(edit(model, TARGET).images, edit(small_cascade_model(), TARGET).images) <= 1e-5


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_its_weights_rest_elsewhere_as_the_others(offload: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, where it is refused, they come from where they are."""
    monkeypatch.setattr(Calling, "__post_init__", lambda self: None)
    model, taken = cascade(small_upscaler(), offload=offload).load(dtype=torch.float64), []
    take = PartsInTurn._take

    def noted(self: PartsInTurn, part: nn.Module) -> None:
        taken.append(part)
        take(self, part)

    monkeypatch.setattr(PartsInTurn, "_take", noted)
    weight = next(upscaler_of(model).unet.parameters())
    resting, seen = weight.data_ptr(), set()
    upscaler_of(model).unet.conv_in.register_forward_hook(
        lambda *_: seen.add(weight.data_ptr()), prepend=True
    )
    images = edit(model, TARGET).images
    assert distance(images, edit(small_cascade_model(), TARGET).images) <= ROUNDING
    assert seen
    assert resting not in seen
    if offload == "model":
        assert {id(one) for one in taken} == {
            id(one) for one in (model.unet, model.text_encoder, upscaler_of(model).unet)
        }


def test_half_precision_gives_images() -> None:
    result = edit(cascade(small_upscaler(), dtype="bfloat16").load(), TARGET)
    assert bool(result.images.isfinite().all())
    assert float((result.images - edit(small_cascade_model(), TARGET).images).abs().mean()) < 0.1
