import pytest
import torch
from diffusers import DDIMInverseScheduler

from p2p_bench.errors import ConfigError
from p2p_bench.models.schedule import schedule_from_config
from p2p_bench.sampling import DDIMSampler, ddim_inverse_step, ddim_step, initial_noise, step_noise
from tests.models.test_schedule import GRID, reference


def latents(seed: int) -> torch.Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("betas", "spacing", "to_one", "prediction"), GRID)
def test_step_equals_diffusers(betas: str, spacing: str, to_one: bool, prediction: str) -> None:
    scheduler = reference(betas, spacing, to_one, prediction)
    scheduler.set_timesteps(7)
    schedule = schedule_from_config({"_class_name": "DDIMScheduler", **scheduler.config})
    x_t, raw, noise = latents(0), latents(1), latents(2)
    for timestep in (int(scheduler.timesteps[2]), int(scheduler.timesteps[-1])):
        # diffusers steps by a whole stride, which between timesteps that lie otherwise leads beside the next.
        previous = timestep - 1000 // 7
        levels = schedule.alpha_bar(timestep), schedule.alpha_bar(previous)
        epsilon = schedule.to_epsilon(raw, x_t, timestep)
        for eta in (0.0, 1.0) if previous >= 0 else (0.0,):
            expected = scheduler.step(raw, timestep, x_t, eta=eta, variance_noise=noise if eta else None)
            got = ddim_step(x_t, epsilon, *levels, eta=eta, noise=noise)
            assert torch.allclose(got, expected.prev_sample, atol=1e-5), (timestep, eta)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_inverse_step_equals_diffusers(prediction: str) -> None:
    config = reference("scaled_linear", "leading", False, prediction).config
    scheduler = DDIMInverseScheduler.from_config(config)
    scheduler.set_timesteps(5)
    schedule = schedule_from_config({"_class_name": "DDIMScheduler", **config})
    x, raw = latents(3), latents(4)
    for timestep in reversed(schedule.timesteps(5)):
        alpha_bar_prev = schedule.alpha_bar(schedule.previous(timestep, 5))
        # diffusers reads a velocity at the level the latents are at, before the step.
        epsilon = (
            raw if prediction == "epsilon" else alpha_bar_prev**0.5 * raw + (1 - alpha_bar_prev) ** 0.5 * x
        )
        got = ddim_inverse_step(x, epsilon, schedule.alpha_bar(timestep), alpha_bar_prev)
        assert torch.allclose(got, scheduler.step(raw, timestep, x).prev_sample, atol=1e-5)


def test_inverse_step_undoes_a_step_with_the_same_noise() -> None:
    x_t, epsilon = latents(5).double(), latents(6).double()
    back = ddim_inverse_step(ddim_step(x_t, epsilon, 0.3, 0.6), epsilon, 0.3, 0.6)
    assert torch.allclose(back, x_t, atol=1e-12)


def test_a_stochastic_step_needs_noise() -> None:
    with pytest.raises(ValueError, match="noise"):
        ddim_step(latents(0), latents(1), 0.3, 0.6, eta=0.5)


def test_initial_noise_is_what_diffusers_draws() -> None:
    expected = torch.randn((1, 4, 8, 8), generator=torch.Generator("cpu").manual_seed(11))
    assert torch.equal(initial_noise(11, (4, 8, 8)), expected[0])


def test_step_noise_depends_on_seed_and_step_alone() -> None:
    shape = (4, 8, 8)
    torch.manual_seed(1)
    first = step_noise(3, 2, shape)
    torch.manual_seed(2)
    assert torch.equal(first, step_noise(3, 2, shape))
    assert not torch.equal(first, step_noise(3, 1, shape))
    assert not torch.equal(first, step_noise(4, 2, shape))
    assert abs(float(step_noise(0, 0, (4, 64, 64)).std()) - 1) < 0.02


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"steps": 0}, "steps"),
        ({"guidance": -1.0}, "guidance"),
        ({"eta": 2.0}, "eta"),
        ({"max_rows": 0}, "max_rows"),
    ],
)
def test_bad_settings_are_refused(values: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DDIMSampler(**values)
