import dataclasses

import pytest
import torch
from torch import Tensor

from p2p_bench.errors import ConfigError
from p2p_bench.inversion import DDIMInversion, NegativePromptInversion, ProximalInversion
from p2p_bench.inversion.base import read_sources
from p2p_bench.inversion.ddim import ddim_trajectory
from p2p_bench.models.level import Denoised, Prediction
from tests.editing.naive import naive_sampling
from tests.inversion.runs import (
    OTHER,
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


@pytest.mark.parametrize("norm", ["l0", "l1"])
def test_no_threshold_is_negative_prompt_inversion(norm: str) -> None:
    result = edited(ProximalInversion(norm=norm, threshold=0.0), (TARGET, OTHER))
    plain = edited(NegativePromptInversion(), (TARGET, OTHER))
    assert distance(result.latents, plain.latents) <= 1e-10
    assert result.target_rows == plain.target_rows


@pytest.mark.parametrize("as_released", [False, True])
@pytest.mark.parametrize("norm", ["l0", "l1"])
def test_equals_the_written_out_step(norm: str, as_released: bool) -> None:
    model = tiny_model()

    def shrunk(c: Tensor, u: Tensor) -> Tensor:
        delta = c - u
        threshold = torch.cat([torch.zeros_like(delta), delta]).abs().quantile(0.6)
        if norm == "l0" and not as_released:
            return torch.where(delta.abs() > threshold, delta, 0)
        less = delta.sign() * (delta.abs() - threshold).clamp(min=0)
        return less - threshold * less.sign() if norm == "l1" and as_released else less

    def combine(step: int, u: Tensor, c: Tensor) -> Tensor:
        return torch.stack([c[0], *(u[row] + 7.5 * shrunk(c[row], u[row]) for row in (1, 2))])

    (replay,) = DDIMInversion().invert(model, read_sources(model, images(1), [SOURCE]), STEPS)
    empty = model.encode_prompts([SOURCE]).expand(3, -1, -1)
    expected = naive_sampling(
        model, [SOURCE, TARGET, OTHER], replay.start[0], STEPS, combine, lambda step: empty
    )
    method = ProximalInversion(norm=norm, quantile=0.6, as_released=as_released)
    result = edited(method, (TARGET, OTHER))
    assert distance(result.latents, expected) <= 1e-10
    assert distance(expected, edited(NegativePromptInversion(), (TARGET, OTHER)).latents) > 1e-3


def test_a_high_threshold_leaves_the_source() -> None:
    result = edited(ProximalInversion(threshold=1e6))
    # The target then samples with the source prompt's prediction alone.
    assert distance(result.latents[1], result.latents[0]) <= 1e-10


def test_inversion_guidance_draws_toward_the_pivot_where_nothing_is_edited() -> None:
    model = tiny_model()
    pivot = ddim_trajectory(model, read_sources(model, images(1), [SOURCE]), STEPS)
    method = ProximalInversion(inversion_guidance=True, recon_lr=0.3, recon_t=400, dilate=1)
    (replay,) = method.invert(model, read_sources(model, images(1), [SOURCE]), STEPS)
    roles = ("source", "target")
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64)
    difference = torch.zeros(2, 4, 8, 8, dtype=torch.float64)
    difference[1, 2, 4, 4] = 1.0
    without = Denoised(latents, model.ladder(STEPS)[0], torch.zeros_like(latents))
    prediction = Prediction(without, without.with_output(difference), without)
    # Timesteps of 4 steps: 751, 501, 251, 1.
    for step in (0, 1):
        assert torch.equal(replay.correct(step, roles, latents, prediction), latents)
    for step, wanted in ((2, pivot[1][0]), (3, pivot[0][0])):
        drawn = latents + 0.3 * (wanted - latents)
        drawn[1, 2, 3:6, 3:6] = latents[1, 2, 3:6, 3:6]
        assert distance(replay.correct(step, roles, latents, prediction), drawn) <= 1e-12
    off = dataclasses.replace(method, inversion_guidance=False)
    assert distance(edited(method).latents[1], encoded()) < distance(edited(off).latents[1], encoded())


def test_rows() -> None:
    result = edited(ProximalInversion())
    assert (result.inversion_rows, result.source_rows, result.target_rows) == (4, 4, (8,))


@pytest.mark.parametrize("inversion_guidance", [False, True])
def test_batches_change_nothing(inversion_guidance: bool) -> None:
    assert_batches_change_nothing(lambda: ProximalInversion(inversion_guidance=inversion_guidance))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"norm": "l2"}, "norm"),
        ({"quantile": 1.2}, "quantile"),
        ({"threshold": -1.0}, "threshold"),
        ({"recon_t": -1}, "recon_t"),
        ({"recon_lr": 1.5}, "recon_lr"),
        ({"dilate": -1}, "dilate"),
        ({"guidance": float("inf")}, "guidance"),
    ],
)
def test_bad_settings(settings: dict, said: str) -> None:
    if said == "norm":  # a configuration may hold any text
        method = ProximalInversion()
        object.__setattr__(method, "norm", "l2")
        with pytest.raises(ConfigError, match=r"inversion\.norm: expected one of 'l0', 'l1', got 'l2'"):
            method.__post_init__()
        return
    with pytest.raises(ConfigError, match=rf"inversion\.{said}"):
        ProximalInversion(**settings)
