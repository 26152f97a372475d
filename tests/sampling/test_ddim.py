from itertools import pairwise

import pytest
import torch
from diffusers import DDIMInverseScheduler, FlowMatchEulerDiscreteScheduler

from p2p_bench.errors import ConfigError
from p2p_bench.models.level import Denoised, Level
from p2p_bench.models.schedule import schedule_from_config
from p2p_bench.sampling import DDIMSampler, ddim_inverse_step, ddim_step, initial_noise, step_noise
from p2p_bench.sampling.ddim import ddim_sigma
from tests.models.test_schedule import GRID, reference

HERE = Level(501.0, 0.3**0.5, 0.7**0.5)


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
        here, there = schedule.level(timestep), schedule.level(previous)
        predicted = Denoised(x_t, here, schedule.to_epsilon(raw, x_t, here))
        for eta in (0.0, 1.0) if previous >= 0 else (0.0,):
            expected = scheduler.step(raw, timestep, x_t, eta=eta, variance_noise=noise if eta else None)
            got = ddim_step(predicted, here, there, eta=eta, noise=noise)
            assert torch.allclose(got, expected.prev_sample, atol=1e-5), (timestep, eta)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_inverse_step_equals_diffusers(prediction: str) -> None:
    config = reference("scaled_linear", "leading", False, prediction).config
    scheduler = DDIMInverseScheduler.from_config(config)
    scheduler.set_timesteps(5)
    schedule = schedule_from_config({"_class_name": "DDIMScheduler", **config})
    x, raw = latents(3), latents(4)
    for there, here in pairwise(reversed(schedule.ladder(5))):
        # diffusers reads a velocity at the level the latents are at, before the step.
        epsilon = raw if prediction == "epsilon" else there.alpha * raw + there.sigma * x
        got = ddim_inverse_step(x, Denoised(x, here, epsilon), here, there)
        assert torch.allclose(got, scheduler.step(raw, int(here.timestep), x).prev_sample, atol=1e-5)


def test_inverse_step_undoes_a_step_with_the_same_noise() -> None:
    x_t, output = latents(5).double(), latents(6).double()
    diffusion = HERE, Level(251.0, 0.6**0.5, 0.4**0.5)
    flow, start = (Level(0.7, 0.3, 0.7), Level(0.4, 0.6, 0.4)), (Level(1.0, 0.0, 1.0), Level(0.4, 0.6, 0.4))
    for kind, (here, there) in (("epsilon", diffusion), ("flow", flow), ("flow", start)):
        predicted = Denoised(x_t, here, output, kind)
        back = ddim_inverse_step(ddim_step(predicted, here, there), predicted, here, there)
        assert torch.allclose(back, x_t, atol=1e-12)


@pytest.mark.parametrize(("sigma", "after"), [(1.0, 0.8), (0.8, 0.3), (0.3, 0.0)])
def test_a_step_along_a_rectified_flow_is_an_euler_step(sigma: float, after: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[sigma, after] if after else [sigma])
    x_t, velocity = latents(5), latents(6)
    here, there = Level(1000 * sigma, 1 - sigma, sigma), Level(1000 * after, 1 - after, after)
    predicted = Denoised(x_t, here, velocity, "flow")
    euler = scheduler.step(velocity, scheduler.timesteps[0], x_t).prev_sample
    assert torch.allclose(ddim_step(predicted, here, there), euler, atol=1e-5)
    assert torch.allclose(here.noised(predicted.x_0, predicted.epsilon), x_t, atol=1e-6)
    assert torch.allclose(predicted.epsilon - predicted.x_0, velocity, atol=1e-6)


def test_the_noise_of_a_step_is_that_of_ddpm() -> None:
    """The general formula, on levels of diffusion, against eq. 16."""
    for a_t, a_prev in ((0.01, 0.02), (0.3, 0.6), (0.98, 0.99), (0.5, 1.0)):
        here, there = Level(2.0, a_t**0.5, (1 - a_t) ** 0.5), Level(1.0, a_prev**0.5, (1 - a_prev) ** 0.5)
        expected = ((1 - a_prev) / (1 - a_t) * (1 - a_t / a_prev)) ** 0.5
        assert ddim_sigma(here, there) == pytest.approx(expected, rel=1e-10, abs=1e-15)


def test_a_stochastic_step_needs_noise() -> None:
    with pytest.raises(ValueError, match="noise"):
        ddim_step(Denoised(latents(0), HERE, latents(1)), HERE, Level(251.0, 0.6**0.5, 0.4**0.5), eta=0.5)


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
