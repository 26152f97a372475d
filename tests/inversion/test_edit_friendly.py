import dataclasses

import pytest
import torch

import p2p_bench as p2p
from p2p_bench.editing.run import run_edits
from p2p_bench.errors import ConfigError
from p2p_bench.inversion import EditFriendlyInversion
from p2p_bench.inversion.base import read_sources
from p2p_bench.models import DiffusionModel
from p2p_bench.sampling import DDIM, step_noise
from tests.editing.naive import naive_sampling
from tests.inversion.runs import (
    SOURCE,
    STEPS,
    TARGET,
    assert_batches_change_nothing,
    distance,
    edited,
    encoded,
    images,
)
from tests.models.tiny import tiny_model

SHAPE = (4, 8, 8)


@pytest.mark.parametrize("source_guidance", [1.0, 3.5])
@pytest.mark.parametrize("skip", [0.0, 0.25, 0.75])
def test_the_source_is_the_image(source_guidance: float, skip: float) -> None:
    result = edited(EditFriendlyInversion(skip, source_guidance), controller=p2p.Replace(0.9, 0.5))
    assert distance(result.latents[0], encoded()) <= 1e-10
    assert distance(result.latents[1], encoded()) > 1e-3
    passes = 1 if source_guidance == 1 else 2
    taken = STEPS - int(skip * STEPS)
    costs = (result.inversion_rows, result.source_rows, result.target_rows)
    assert costs == (passes * taken, passes * taken, (2 * taken,))


def test_the_noise_takes_independent_forward_samples_to_one_another() -> None:
    model = tiny_model()
    (replay,) = EditFriendlyInversion(0.0, 3.5).invert(
        model, read_sources(model, images(1), [SOURCE], [3]), STEPS
    )
    alphas, x_0 = model.schedule.alphas_cumprod, encoded()
    text, empty = model.encode_prompts([SOURCE]), model.encode_prompts([""])

    def noised(step: int) -> torch.Tensor:
        a = alphas[1 + 250 * (3 - step)]
        return a.sqrt() * x_0 + (1 - a).sqrt() * step_noise(3, step, SHAPE).double()

    assert distance(replay.start[0], noised(0)) <= 1e-10
    with torch.no_grad():
        for step in range(STEPS):
            t = 1 + 250 * (3 - step)
            a_t, a_prev = alphas[t], alphas[t - 250] if t > 250 else alphas[0]
            x_t, x_prev = noised(step), x_0 if step == 3 else noised(step + 1)
            u, c = (model.unet(x_t[None], t, embedding).sample[0] for embedding in (empty, text))
            eps = u + 3.5 * (c - u)
            variance = (1 - a_prev) / (1 - a_t) * (1 - a_t / a_prev)
            mean = a_prev.sqrt() * (x_t - (1 - a_t).sqrt() * eps) / a_t.sqrt()
            mean = mean + (1 - a_prev - variance).sqrt() * eps
            assert distance(replay.noise(step), (x_prev - mean) / variance.sqrt()) <= 1e-8


def test_targets_share_the_noise_and_have_a_guidance_of_their_own() -> None:
    method = EditFriendlyInversion(0.0, 2.0, 5.0)
    (replay,) = method.invert(tiny_model(), read_sources(tiny_model(), images(1), [SOURCE], [3]), STEPS)
    scales = torch.tensor([2.0, 5.0], dtype=torch.float64)[:, None, None, None]
    expected = naive_sampling(
        tiny_model(), [SOURCE, TARGET], replay.start[0], STEPS, lambda step, u, c: u + scales * (c - u),
        eta_noise=replay.noise,
    )  # fmt: skip
    assert distance(edited(method).latents, expected) <= 1e-10
    of_the_run = edited(dataclasses.replace(method, target_guidance=None), guidance=5.0)
    assert distance(of_the_run.latents, expected) <= 1e-10


def test_the_steps_are_its_own_and_another_noise_is_refused() -> None:
    method = EditFriendlyInversion()
    assert torch.equal(edited(method, stepper=DDIM(1.0)).latents, edited(method).latents)
    request = p2p.EditRequest("x", SOURCE, (p2p.Target(TARGET),), image=images(1)[0], inversion=method)
    (refused,) = run_edits(tiny_model(), [request], steps=4, stepper=DDIM(0.3))
    assert "sampler.eta=0.3" in str(refused.error)


def test_equal_prompts_and_guidance_leave_the_image() -> None:
    result = edited(EditFriendlyInversion(0.0, 5.0), (SOURCE,), guidance=5.0)
    assert distance(result.latents[1], encoded()) <= 1e-10


def test_other_seeds_give_other_noise_and_the_same_source() -> None:
    first, second = (edited(EditFriendlyInversion(), seed=seed).latents for seed in (3, 4))
    assert distance(first[0], second[0]) <= 1e-10
    assert distance(first[1], second[1]) > 1e-3


def ends_clean(model: DiffusionModel) -> DiffusionModel:
    return dataclasses.replace(model, schedule=dataclasses.replace(model.schedule, final_alpha_cumprod=1.0))


def test_a_last_step_without_noise_still_ends_at_the_image() -> None:
    request = p2p.EditRequest(
        "x", SOURCE, (p2p.Target(SOURCE), p2p.Target(TARGET)), image=images(1)[0],
        inversion=EditFriendlyInversion(0.25),
    )  # fmt: skip
    (result,) = run_edits(ends_clean(tiny_model()), [request], steps=STEPS, guidance=1.0)
    assert distance(result.latents[0], encoded()) <= 1e-10
    assert distance(result.latents[1], encoded()) <= 1e-10
    assert distance(result.latents[2], encoded()) > 1e-3


def test_skipping_everything_leaves_the_image_which_is_no_edit() -> None:
    nothing = EditFriendlyInversion(1.0)
    (made,) = nothing.invert(tiny_model(), read_sources(tiny_model(), images(1), ["a cat"], [0]), 4)
    assert made.first_step == 4
    assert distance(made.start[0], encoded()) == 0
    with pytest.raises(ConfigError, match="takes none of the 4 steps"):
        p2p.edit(
            tiny_model(), "a cat", "a dog", image=images(1)[0], inversion=EditFriendlyInversion(1.0), steps=4
        )


def test_batches_change_nothing() -> None:
    assert_batches_change_nothing(EditFriendlyInversion)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"skip": 1.5}, "skip"),
        ({"source_guidance": -1.0}, "source_guidance"),
        ({"target_guidance": -2.0}, "target_guidance"),
    ],
)
def test_bad_settings(settings: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"inversion\.{said}"):
        EditFriendlyInversion(**settings)
