"""Inversions and editors of flow models, on flows whose paths are known: goals, orders, costs."""

import dataclasses
from itertools import pairwise
from math import log2
from typing import Any

import pytest
import torch
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.errors import ConfigError
from p2p_bench.inversion import (
    DDIMInversion,
    EDICTInversion,
    FireFlowInversion,
    FlowEdit,
    FlowODEInversion,
    Inversion,
    RFInversion,
    RFSolverInversion,
    UniEdit,
    UniInvInversion,
)
from p2p_bench.inversion.base import Sources, read_sources, unserved
from p2p_bench.inversion.fireflow import fireflow_step
from p2p_bench.inversion.flow_ode import euler
from p2p_bench.inversion.flowedit import FlowEditStepper
from p2p_bench.inversion.rf_solver import midpoint
from p2p_bench.models.level import Denoised, Level
from p2p_bench.sampling import DDIM, initial_noise
from tests.examples import SOURCE, TARGET
from tests.inversion.gaussian_flow import PROMPTS, GaussianFlow, gaussian_flow, path, sampled
from tests.inversion.runs import distance
from tests.models.tiny import tiny_model
from tests.stubs.flow_family import FlowCheckpoint

METHODS = {
    "ddim": DDIMInversion(),
    "ode": FlowODEInversion(),
    "rf_solver": RFSolverInversion(),
    "fireflow": FireFlowInversion(),
    "uni_inv": UniInvInversion(),
}
ORDERS = {"ddim": 1, "ode": 1, "rf_solver": 3, "fireflow": 2, "uni_inv": 1}
"""At the noise; between Gaussians the midpoint rule's errors of second order cancel."""
ROUND_TRIPS = {"ddim": 1, "ode": 1, "rf_solver": 3, "fireflow": 3, "uni_inv": 2}


def images(count: int = 1) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(2)).double()


def sources(count: int = 1) -> Sources:
    return read_sources(gaussian_flow(), images(count), [SOURCE] * count, range(count))


def order(errors: list[float]) -> float:
    """By halving the step: the last of them, where it has settled."""
    return log2(errors[-2] / errors[-1])


def there_and_back(method: Inversion, steps: int) -> tuple[float, float]:
    """Errors at the noise and, after sampling, at the image."""
    model = gaussian_flow()
    (replay,) = method.invert(model, sources(), steps)
    x_0 = sources().latents
    exact = path(x_0, 0.0, 1.0, *PROMPTS[SOURCE])
    state = tuple(part[None] for part in replay.start)
    back, _ = sampled(replay.stepper() or DDIM(), state, steps, [SOURCE])
    return distance(replay.start[0], exact[0]), distance(back, x_0)


@pytest.mark.parametrize("name", METHODS)
def test_orders_are_those_of_the_papers(name: str) -> None:
    errors = [there_and_back(METHODS[name], steps) for steps in (20, 40, 80, 160, 320)]
    there, back = ([error[side] for error in errors] for side in (0, 1))
    assert order(there) == pytest.approx(ORDERS[name], abs=0.15)
    assert order(back) == pytest.approx(ROUND_TRIPS[name], abs=0.2)


def test_on_another_flow_the_midpoint_rules_are_of_second_order() -> None:
    """dx / dsigma = -x^2, which leads from x to x / (1 + x sigma)."""
    x_0, end = torch.linspace(0.5, 2.0, 8).double()[:, None, None, None], 1.0
    exact = x_0 / (1 + x_0 * end)

    def velocity(x: Tensor, level: Level) -> Tensor:
        return -(x**2)

    errors: dict[str, list[float]] = {"euler": [], "rf_solver": [], "fireflow": []}
    for steps in (40, 80, 160):
        ladder = reversed(gaussian_flow().ladder(steps))
        found = dict.fromkeys(errors, x_0)
        v_hat = velocity(x_0, Level(0.0, 1.0, 0.0))
        for here, there in pairwise(ladder):
            found["euler"] = euler(found["euler"], here, there, velocity)
            found["rf_solver"] = midpoint(found["rf_solver"], here, there, velocity)
            found["fireflow"], v_hat = fireflow_step(found["fireflow"], v_hat, here, there, velocity)
        for name, x in found.items():
            errors[name].append(distance(x, exact))
    assert order(errors["euler"]) == pytest.approx(1, abs=0.1)
    assert order(errors["rf_solver"]) == pytest.approx(2, abs=0.1)
    assert order(errors["fireflow"]) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("name", METHODS)
def test_passes_are_counted(name: str) -> None:
    method, steps = METHODS[name], 5
    asked: list[int] = []
    model = gaussian_flow()

    class Counting(GaussianFlow):
        def predict(self, latents: Tensor, *rest: Any) -> Denoised:  # type: ignore[override]  # handed on
            asked.append(len(latents))
            return super().predict(latents, *rest)

    counting = Counting(**{field.name: getattr(model, field.name) for field in dataclasses.fields(model)})
    (replay,) = method.invert(counting, sources(), steps)
    assert replay.unet_rows == sum(asked)
    state = tuple(part[None] for part in replay.start)
    _, passes = sampled(replay.stepper() or DDIM(), state, steps, [SOURCE])
    assert passes == {"rf_solver": 2 * steps, "fireflow": steps + 1}.get(name, steps)


def test_rf_inversion_ends_at_its_goals() -> None:
    model, steps = gaussian_flow(), 6
    shape = (3, 16, 16)
    replays = RFInversion(gamma=1.0, eta=1.0, stop=1.0).invert(model, sources(2), steps)
    for seed, replay in enumerate(replays):
        assert distance(replay.start[0], initial_noise(seed, shape)) <= 1e-12
        state = tuple(part[None] for part in replay.start)
        for prompt in (SOURCE, TARGET):
            end, _ = sampled(replay.stepper(), state, steps, [prompt])
            assert distance(end[0], sources(2).latents[seed]) <= 1e-12


def test_rf_inversion_without_goals_is_the_ode() -> None:
    """With the empty prompt, as the paper inverts."""
    model, steps = gaussian_flow(), 6
    (replay,) = RFInversion(gamma=0.0, eta=0.0).invert(model, sources(), steps)
    empty = read_sources(model, images(), [""])
    (expected,) = FlowODEInversion().invert(model, empty, steps)
    assert distance(replay.start[0], expected.start[0]) <= 1e-12
    state = tuple(part[None] for part in replay.start)
    drawn, _ = sampled(replay.stepper(), state, steps, [TARGET])
    plain, _ = sampled(DDIM(), state[:1], steps, [TARGET])
    assert distance(drawn, plain) <= 1e-12
    assert not RFInversion(gamma=0.0).draws_noise


@pytest.mark.parametrize("gamma", [0.0, 0.25, 0.5])
def test_rf_inversion_is_of_first_order_unless_it_is_drawn_to_a_noise(gamma: float) -> None:
    """The pull grows without bound at the noise, so that the way there is of order gamma."""
    model = gaussian_flow()
    starts, ends = [], []
    for steps in (80, 160, 320):
        (replay,) = RFInversion(gamma, eta=0.6, stop=0.5).invert(model, sources(), steps)
        state = tuple(part[None] for part in replay.start)
        starts.append(state[0])
        ends.append(sampled(replay.stepper(), state, steps, [TARGET])[0])
    there, back = ([distance(a, b) for a, b in zip(one[1:], one, strict=False)] for one in (starts, ends))
    assert order(there) == pytest.approx(gamma or 1, abs=0.05)
    assert gamma or order(back) == pytest.approx(1, abs=0.05)


def test_rf_inversion_is_drawn_at_its_steps_alone() -> None:
    model = gaussian_flow()
    (replay,) = RFInversion(start=0.25, stop=0.5).invert(model, sources(), 8)
    stepper = replay.stepper()
    assert (stepper.start, stepper.stop) == (2, 4)
    with pytest.raises(ConfigError, match=r"start=0\.5 comes after stop=0\.25"):
        RFInversion(start=0.5)


def test_flowedit_between_gaussians_adds_the_difference_of_the_means() -> None:
    """Their spreads are equal, so that the velocities differ by the means alone, whatever the noise."""
    x, steps = sources().latents.expand(3, -1, -1, -1), 7
    noises = [initial_noise(step, (3, 16, 16)).double() for step in range(steps)]
    end, passes = sampled(
        FlowEditStepper(), (x,), steps, [SOURCE, TARGET, SOURCE], sources=[0, 0, 0],
        noises=[noise.expand(3, -1, -1, -1) for noise in noises],
    )  # fmt: skip
    assert passes == steps
    (old, _), (new, _) = PROMPTS[SOURCE], PROMPTS[TARGET]
    assert distance(end[0], x[0]) <= 1e-12
    assert distance(end[1], x[0] + new - old) <= 1e-12
    assert distance(end[2], x[0]) <= 1e-12


def test_flowedit_in_a_run() -> None:
    """The source is the image; batches and other targets change nothing; seeds do; controllers act."""
    model, picture = FlowCheckpoint().load(), images()[0].float()
    method, steps = FlowEdit(strength=0.75, guidance=5.0), 4

    def edit(targets: list[str], seed: int = 0, controller: p2p.Controller | None = None) -> Tensor:
        done = p2p.edit(
            model, SOURCE, targets, controller, image=picture, inversion=method, steps=steps, seed=seed
        )
        assert done.inversion_rows == 0
        assert done.source_rows == 2 * 3
        return done.latents

    both = edit([SOURCE, TARGET])
    image = model.encode_images(picture[None])[0]
    assert distance(both[0], image) <= 1e-12
    assert distance(both[2], image) > 1e-2
    assert distance(edit([TARGET])[1], both[2]) <= 1e-10
    assert distance(edit([TARGET], seed=1)[1], both[2]) > 1e-3
    assert distance(edit([TARGET], controller=p2p.Replace(1.0, 0.5))[1], both[2]) > 1e-3
    even = FlowEdit(strength=0.75, source_guidance=None, guidance=None)
    same = p2p.edit(model, SOURCE, SOURCE, image=picture, inversion=even, steps=steps)
    assert distance(same.latents[1], image) <= 1e-12


@pytest.mark.parametrize("method", [*list(METHODS.values())[1:], RFInversion(), FlowEdit(), UniEdit()])
def test_models_of_diffusion_are_refused(method: Inversion) -> None:
    fault = unserved(method, tiny_model().spec)
    assert fault is not None
    assert "needs velocities of a rectified flow, which model 'tiny' of family 'sd' does not have" in str(
        fault
    )
    with pytest.raises(ConfigError, match="velocities of a rectified flow"):
        p2p.edit(tiny_model(), SOURCE, TARGET, image=images()[0].float(), inversion=method, steps=3)


def test_edict_cannot_start_from_noise_alone() -> None:
    model, picture = FlowCheckpoint().load(), images()[0].float()
    with pytest.raises(ConfigError, match=r"starts from noise without any image; take inversion\.strength"):
        p2p.edit(model, SOURCE, TARGET, image=picture, inversion=EDICTInversion(strength=1.0), steps=3)
