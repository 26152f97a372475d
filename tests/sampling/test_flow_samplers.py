"""Heun's rule and the midpoint rule along rectified flows: equal to diffusers', of second order, in trees."""

from math import log2

import pytest
import torch
from diffusers import FlowMatchHeunDiscreteScheduler
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.editing import EditRequest, Target, run_edits
from p2p_bench.errors import ConfigError
from p2p_bench.models.flow_levels import flow_layout
from p2p_bench.models.level import Denoised, Level, Prediction
from p2p_bench.sampling import FlowSampler, StepContext
from tests.examples import SOURCE, TARGET
from tests.inversion.gaussian_flow import PROMPTS, path, sampled
from tests.inversion.runs import distance
from tests.models.small_flux import small_flux_model
from tests.models.tiny import tiny_model
from tests.stubs.flow_family import FlowCheckpoint

SHAPE = (2, 4, 8, 8)
RULES = ("heun", "midpoint")


def velocity(x: Tensor, sigma: float) -> Tensor:
    """No model's, but not linear."""
    return (x * (1 - sigma) + sigma).sin()


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_heun_is_that_of_diffusers(steps: int) -> None:
    scheduler = FlowMatchHeunDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(steps)
    start = torch.randn(SHAPE, generator=torch.Generator().manual_seed(2))
    x, calls = start, 0
    for timestep in scheduler.timesteps:
        x = scheduler.step(velocity(x, float(timestep) / 1000), timestep, x, return_dict=False)[0]
        calls += 1
    config = {"shift": 3.0, "num_train_timesteps": 1000}
    sigmas = [*flow_layout(config, tokens=16).sigmas(steps), 0.0]
    levels = [Level(1000 * sigma, 1 - sigma, sigma) for sigma in sigmas]
    asked = 0

    def predict(x: Tensor, level: Level) -> Prediction:
        nonlocal asked
        asked += 1
        found = Denoised(x, level, velocity(x, level.sigma), "flow")
        return Prediction(found, found, found)

    state: tuple[Tensor, ...] = (start,)
    for step in range(steps):
        context = StepContext(step, steps, torch.arange(2), predict, None)
        state = FlowSampler().stepper().step(state, levels[step], levels[step + 1], context)
    assert distance(state[0], x) <= 1e-5
    assert asked == calls == 2 * steps - 1


@pytest.mark.parametrize(("rule", "order"), [("heun", 2), ("midpoint", 3)])
def test_orders(rule: str, order: int) -> None:
    """The midpoint rule's errors of second order cancel between Gaussians (`tests/inversion/test_flow.py`).

    From the noise to the image, against the closed form; one Euler step at the end counts little."""
    noise = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    exact = path(noise, 1.0, 0.0, *PROMPTS[""])
    stepper = FlowSampler(rule=rule).stepper()
    errors = []
    for steps in (40, 80, 160):
        end, asked = sampled(stepper, (noise,), steps, [""])
        assert asked == 2 * steps - (rule == "heun")
        errors.append(distance(end, exact))
    assert log2(errors[1] / errors[2]) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("rule", RULES)
def test_trees_and_batches_change_nothing_and_rows_are_counted(rule: str) -> None:
    model, stepper, steps = FlowCheckpoint().load(), FlowSampler(rule=rule).stepper(), 4
    edits = {"all": p2p.Replace(1.0, 0.5), "some": p2p.Replace(0.5, 0.5), "none": p2p.NoControl()}
    targets = {name: Target(TARGET, one) for name, one in edits.items()}
    requests = [
        EditRequest("one", SOURCE, tuple(targets.values()), seed=3),
        EditRequest("two", TARGET, (targets["none"],), seed=4),
    ]
    together, _ = run_edits(model, requests, steps=steps, stepper=stepper, guidance=3.0)
    assert together.error is None
    passes = 2 * steps - (rule == "heun")
    assert together.source_rows == 2 * passes
    assert set(together.target_rows) == {2 * passes}
    assert sum(together.target_rows_spent) < sum(together.target_rows)
    for place, name in enumerate(edits):
        request = EditRequest("one", SOURCE, (targets[name],), seed=3)
        (alone,) = run_edits(model, [request], steps=steps, stepper=stepper, guidance=3.0)
        assert distance(alone.latents[1], together.latents[1 + place]) <= 1e-10, name
    euler = p2p.edit(model, SOURCE, TARGET, seed=3, steps=steps, guidance=3.0)
    assert distance(euler.latents[0], together.latents[0]) > 1e-4


def test_by_name_on_a_transformer_from_an_image_under_noise() -> None:
    model = small_flux_model()
    picture = torch.rand(3, *model.spec.image_size, generator=torch.Generator().manual_seed(1))
    for rule in RULES:
        done = p2p.edit(
            model, SOURCE, TARGET, p2p.Replace(0.8), image=picture, inversion="noising", sampler=rule,
            steps=4, seed=2,
        )  # fmt: skip
        assert done.source_rows == 2 * 3 - (rule == "heun")
        assert done.latents.isfinite().all()


def test_what_they_do_not_go_with_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no rectified flow, along which alone .* sampler=dpmpp_2m"):
        p2p.edit(tiny_model(), SOURCE, TARGET, sampler="heun", steps=3)
    model, picture = FlowCheckpoint().load(), torch.rand(3, 16, 16)
    with pytest.raises(ConfigError, match=r"FlowODEInversion walks DDIM's steps .* Heun\(\) takes others"):
        p2p.edit(model, SOURCE, TARGET, image=picture, inversion="ode", sampler="heun", steps=3)
