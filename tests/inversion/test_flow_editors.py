"""Editors of flow models with a step of their own: FlowEdit's averages and plain steps, and Uni-Edit."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.errors import ConfigError
from p2p_bench.inversion import FlowEdit, Inversion, UniEdit, UniInvInversion
from p2p_bench.inversion.base import read_sources
from p2p_bench.inversion.flowedit import FlowEditStepper
from p2p_bench.inversion.uni_edit import UniEditStepper
from p2p_bench.sampling import DDIM, step_noise
from tests.examples import SOURCE, TARGET
from tests.inversion.gaussian_flow import PROMPTS, gaussian_flow, sampled, velocity
from tests.inversion.runs import distance
from tests.models.small_flux import small_flux_model
from tests.stubs.flow_family import FlowCheckpoint

SHAPE = (3, 16, 16)
STEPS = 4


def image(seed: int = 2) -> Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed))


def edit(method: Inversion, targets: list[str], **options: Any) -> p2p.EditResult:
    picture = options.pop("image", image())
    return p2p.edit(
        FlowCheckpoint().load(), SOURCE, targets, image=picture, inversion=method, steps=STEPS, **options
    )


def test_an_average_of_noises_is_that_of_their_differences() -> None:
    """The flow is affine, so the way with three noises a step is the mean of three ways with one each."""
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    x = torch.stack([x[0], x[0] + 0.3 * x[1]])
    noises = [step_noise(5, 0, SHAPE, draw).double() for draw in range(3)]
    assert distance(noises[0], step_noise(5, 0, SHAPE).double()) == 0
    assert min(distance(a, b) for a, b in pairwise(noises)) > 1

    def taken(stepper: FlowEditStepper, noise: Tensor) -> tuple[Tensor, int]:
        both = noise.expand(2, -1, -1, -1)
        return sampled(stepper, (x,), 2, [SOURCE, ""], sources=[0, 0], noises=[both, both])

    average, passes = taken(FlowEditStepper(n_avg=3), torch.cat(noises))
    assert passes == 6
    alone = [taken(FlowEditStepper(), noise)[0] for noise in noises]
    assert distance(average[1], torch.stack(alone).mean(0)[1]) <= 1e-12
    assert distance(average[1], alone[0][1]) > 1e-3
    assert distance(average[0], x[0]) == 0


def test_plain_steps_are_those_of_sampling() -> None:
    """Written out for the last three of six steps, between flows of different spreads."""
    steps, n_min = 6, 3
    x = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0)).double().expand(2, -1, -1, -1)
    noises = [step_noise(5, min(step, steps - n_min), SHAPE).double() for step in range(steps)]
    rows = [noise.expand(2, -1, -1, -1) for noise in noises]
    end, passes = sampled(FlowEditStepper(n_min=n_min), (x,), steps, [SOURCE, ""], [0, 0], noises=rows)
    assert passes == steps
    assert distance(end[0], x[0]) <= 1e-12
    ladder, z = gaussian_flow().ladder(steps), x[0]
    for step, (here, there) in enumerate(pairwise(ladder)):
        h, z_src = there.sigma - here.sigma, here.noised(x[0], noises[step])
        if step < steps - n_min:
            z_tar = z + z_src - x[0]
            z = z + h * (
                velocity(z_tar, here.sigma, *PROMPTS[""]) - velocity(z_src, here.sigma, *PROMPTS[SOURCE])
            )
            continue
        z = z + z_src - x[0] if step == steps - n_min else z
        z = z + h * velocity(z, here.sigma, *PROMPTS[""])
    assert distance(end[1], z) <= 1e-12


METHODS = {
    "n_avg": FlowEdit(strength=0.75, guidance=5.0, n_avg=2),
    "n_min": FlowEdit(strength=1.0, guidance=5.0, n_min=2),
    "uni_edit": UniEdit(strength=0.75, omega=2.0),
}


@pytest.mark.parametrize("name", METHODS)
def test_batches_and_other_targets_change_nothing(name: str) -> None:
    """Two images at once with two targets each, against one of each alone; seeds and controllers count."""
    model, method = FlowCheckpoint().load(), METHODS[name]
    requests = [
        p2p.EditRequest(
            str(seed), SOURCE, (p2p.Target(TARGET), p2p.Target("a cat in fog")), seed=seed,
            image=image(seed), inversion=method,
        )
        for seed in (0, 1)
    ]  # fmt: skip
    together = p2p.run_edits(model, requests, steps=STEPS)
    for seed, result in enumerate(together):
        assert result.error is None
        alone = edit(method, [TARGET], seed=seed, image=image(seed))
        assert distance(result.latents[:2], alone.latents) <= 1e-10
        assert (result.source_rows, result.target_rows[0]) == (alone.source_rows, alone.target_rows[0])
        assert distance(alone.latents[1], alone.latents[0]) > 1e-2
        held = edit(method, [TARGET], seed=seed, image=image(seed), controller=p2p.Replace(1.0, 0.5))
        assert distance(held.latents[1], alone.latents[1]) > 1e-3
    reseeded = edit(method, [TARGET], seed=7, image=image(1))
    assert (distance(reseeded.latents[1], together[1].latents[1]) > 1e-3) == method.draws_noise


@pytest.mark.parametrize(("name", "per_step"), [("n_avg", (4, 4)), ("n_min", (2, 2)), ("uni_edit", (1, 2))])
def test_rows_are_counted(name: str, per_step: tuple[int, int]) -> None:
    method = METHODS[name]
    done = edit(method, [TARGET])
    taken = method.steps_taken(STEPS)
    assert (done.source_rows, done.target_rows[0]) == tuple(taken * rows for rows in per_step)
    assert done.inversion_rows == (taken + 1 if name == "uni_edit" else 0)


def test_no_step_of_its_own_is_refused() -> None:
    for n_min in (2, 3):
        with pytest.raises(
            ConfigError, match=rf"takes 2 of the 4 steps, and with n_min={n_min} none of them"
        ):
            edit(FlowEdit(strength=0.5, n_min=n_min), [TARGET])
    with pytest.raises(ConfigError, match="n_avg"):
        FlowEdit(n_avg=0)
    with pytest.raises(ConfigError, match="omega"):
        UniEdit(omega=-1.0)


def test_uni_inv_is_euler_backward_at_a_guess() -> None:
    """Written out; the way back by the velocities that led there would be exact."""
    model, steps = gaussian_flow(), 5
    sources = read_sources(model, image()[None].double(), [SOURCE], [0])
    (replay,) = UniInvInversion().invert(model, sources, steps)
    levels = list(reversed(model.ladder(steps)))
    mean, spread = PROMPTS[SOURCE]
    x = sources.latents
    v = velocity(x, 0.0, mean, spread)
    for here, there in pairwise(levels):
        h = there.sigma - here.sigma
        v = velocity(x + h * v, there.sigma, mean, spread)
        x = x + h * v
    assert distance(replay.start[0], x[0]) <= 1e-12
    assert replay.unet_rows == steps + 1


def test_uni_edit_is_the_published_step() -> None:
    """Written out with per-pixel means, so that the mask is no constant; the source is Euler's replay."""
    steps, omega = 4, 5.0
    x = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0)).double().expand(2, -1, -1, -1)
    end, passes = sampled(UniEditStepper(omega), (x,), steps, [SOURCE, ""], [0, 0], first=1)
    assert passes == 2 * (steps - 1)
    plain, _ = sampled(DDIM(), (x[:1],), steps, [SOURCE], first=1)
    assert distance(end[0], plain[0]) <= 1e-12
    z = x[0]
    # At pure noise velocities differ by a constant, and there is no mask.
    for here, there in list(pairwise(gaussian_flow().ladder(steps)))[1:]:
        v_t, v_s = (velocity(z, here.sigma, *PROMPTS[prompt]) for prompt in ("", SOURCE))
        mean = (v_t - v_s).mean(0)
        m = (mean - mean.min()) / (mean.max() - mean.min() + 1e-7)
        assert m.max() > 0.99
        h = there.sigma - here.sigma
        z = z + omega * h * (1 + m) * (v_t - v_s) + h * (m * v_t + (1 - m) * v_s)
    assert distance(end[1], z) <= 1e-12


def test_uni_edit_of_a_prompt_into_itself_is_the_reconstruction() -> None:
    done = edit(UniEdit(strength=0.75), [SOURCE, TARGET])
    assert distance(done.latents[1], done.latents[0]) <= 1e-10
    # Guidance besides takes passes without the prompt, both of them.
    guided = edit(UniEdit(strength=0.75, guidance=3.0), [TARGET])
    assert (guided.source_rows, guided.target_rows[0]) == (6, 12)
    assert distance(guided.latents[1], done.latents[2]) > 1e-3


def test_uni_edit_on_a_model_that_is_told_its_guidance() -> None:
    """One row a pass whatever the scale, which is told to both passes."""
    model = small_flux_model()
    picture = torch.rand(3, *model.spec.image_size, generator=torch.Generator().manual_seed(1))
    ends = []
    for scale in (1.0, 2.0):
        done = p2p.edit(
            model, SOURCE, TARGET, image=picture, inversion=UniEdit(strength=1.0, guidance=scale), steps=3
        )
        assert (done.inversion_rows, done.source_rows, done.target_rows[0]) == (4, 3, 6)
        ends.append(done.latents[1])
    assert distance(*ends) > 1e-4
