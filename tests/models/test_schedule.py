import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from p2p_bench.errors import ConfigError
from p2p_bench.models.level import Denoised
from p2p_bench.models.schedule import NoiseSchedule, schedule_from_config
from tests.models.tiny import tiny_checkpoint

GRID = [
    (betas, spacing, to_one, prediction)
    for betas in ("linear", "scaled_linear")
    for spacing in ("leading", "trailing", "linspace")
    for to_one in (False, True)
    for prediction in ("epsilon", "v_prediction")
]


def reference(betas: str, spacing: str, to_one: bool, prediction: str) -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule=betas,
        timestep_spacing=spacing,
        set_alpha_to_one=to_one,
        prediction_type=prediction,
        steps_offset=1,
        clip_sample=False,
    )


@pytest.mark.parametrize(("betas", "spacing", "to_one", "prediction"), GRID)
def test_equals_diffusers(betas: str, spacing: str, to_one: bool, prediction: str) -> None:
    scheduler = reference(betas, spacing, to_one, prediction)
    schedule = schedule_from_config({"_class_name": "DDIMScheduler", **scheduler.config})
    assert torch.equal(schedule.alphas_cumprod.float(), scheduler.alphas_cumprod)
    assert schedule.final_alpha_cumprod == pytest.approx(float(scheduler.final_alpha_cumprod), abs=0)
    for steps in (1, 7, 25, 50):
        scheduler.set_timesteps(steps)
        assert schedule.timesteps(steps) == tuple(scheduler.timesteps.tolist())


def test_released_settings_without_an_offset_have_that_of_the_pipeline() -> None:
    """The code of Prompt-to-Prompt, MasaCtrl and PIE-Bench hands its pipeline a scheduler without one."""
    released = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False,
    )  # fmt: skip
    assert released.config.steps_offset == 0
    none = {"safety_checker": None, "local_files_only": True}
    with pytest.warns(FutureWarning, match="steps_offset"):
        StableDiffusionPipeline.from_pretrained(tiny_checkpoint().path, scheduler=released, **none)
    released.set_timesteps(50)
    schedule = schedule_from_config({**released.config, "_class_name": "DDIMScheduler", "steps_offset": 0})
    assert schedule.timesteps(50) == tuple(released.timesteps.tolist())
    assert schedule.timesteps(50)[-1] == 1


def test_raw_output_becomes_noise_and_clean_latents() -> None:
    generator = torch.Generator().manual_seed(0)
    x_0, noise = torch.randn(2, 1, 4, 8, 8, generator=generator, dtype=torch.float64)
    table = torch.linspace(0.99, 0.01, 10, dtype=torch.float64)
    alpha_bar = float(table[6])
    x_t = alpha_bar**0.5 * x_0 + (1 - alpha_bar) ** 0.5 * noise
    velocity = alpha_bar**0.5 * noise - (1 - alpha_bar) ** 0.5 * x_0
    for prediction, raw in (("epsilon", noise), ("v_prediction", velocity)):
        schedule = NoiseSchedule(table, 1.0, prediction)
        level = schedule.level(6)
        predicted = Denoised(x_t, level, schedule.to_epsilon(raw, x_t, level))
        assert torch.allclose(predicted.epsilon, noise, atol=1e-12)
        assert torch.allclose(predicted.x_0, x_0, atol=1e-12)


def test_schedulers_of_other_classes_use_the_last_alpha_as_published() -> None:
    config = {"_class_name": "PNDMScheduler", "beta_schedule": "scaled_linear", "skip_prk_steps": True}
    schedule = schedule_from_config(config)
    assert schedule.final_alpha_cumprod == float(schedule.alphas_cumprod[0])
    assert schedule.steps_offset == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"beta_schedule": "scaled-linear"}, "Did you mean 'scaled_linear'"),
        ({"prediction_type": "sample"}, "prediction_type is 'sample'"),
        ({"timestep_spacing": "karras"}, "timestep_spacing"),
        ({"rescale_betas_zero_snr": True}, "without signal"),
    ],
)
def test_unknown_schedules_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        schedule_from_config(change)


@pytest.mark.parametrize("steps", [0, -3, 1001, 1000])
def test_steps_out_of_range_are_refused(steps: int) -> None:
    with pytest.raises(ConfigError, match="steps"):
        schedule_from_config({}).timesteps(steps)
