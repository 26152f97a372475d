import pytest
import torch

import p2p_bench as p2p
from p2p_bench.errors import ConfigError
from p2p_bench.inversion import DDIMInversion, DirectInversion
from p2p_bench.inversion.base import read_sources
from p2p_bench.inversion.ddim import ddim_trajectory
from p2p_bench.sampling import initial_noise
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


def pivot() -> torch.Tensor:
    model = tiny_model()
    return torch.cat(ddim_trajectory(model, read_sources(model, images(1), [SOURCE]), STEPS))


@pytest.mark.parametrize("guidance", [1.0, 7.5])
@pytest.mark.parametrize("controller", [p2p.NoControl(), p2p.Replace(0.6, 0.5)])
def test_the_source_is_the_image_whatever_the_guidance(guidance: float, controller: p2p.Controller) -> None:
    result = edited(DirectInversion(), guidance=guidance, controller=controller)
    assert distance(result.latents[0], encoded()) <= 1e-10
    assert distance(result.latents[1], encoded()) > 1e-3


@pytest.mark.parametrize(("scale", "interval", "targets"), [(1.0, 1, True), (0.4, 1, False), (0.8, 2, True)])
def test_equals_the_written_out_correction(scale: float, interval: int, targets: bool) -> None:
    path = pivot()

    def after(step: int, x: torch.Tensor) -> torch.Tensor:
        if step % interval:
            return x
        correction = scale * (path[STEPS - 1 - step] - x[0])
        return torch.stack([x[0] + correction, x[1] + correction if targets else x[1]])

    expected = naive_sampling(tiny_model(), [SOURCE, TARGET], path[-1], STEPS, after=after)
    result = edited(DirectInversion(scale=scale, interval=interval, targets=targets))
    assert distance(result.latents, expected) <= 1e-10
    assert distance(expected[1], edited(DirectInversion()).latents[1]) > (1e-3 if targets else -1)


def test_without_correction_it_is_ddim() -> None:
    assert distance(edited(DirectInversion(scale=0.0)).latents, edited(DDIMInversion()).latents) <= 1e-10


def test_the_targets_run_free() -> None:
    # Without attention control nothing of the source reaches a target.
    assert distance(edited(DirectInversion()).latents[1], edited(DDIMInversion()).latents[1]) <= 1e-10


@pytest.mark.parametrize(
    ("method", "source_rows"),
    [
        (DirectInversion(), 4),
        (DirectInversion(scale=0.5), 8),
        (DirectInversion(interval=2), 2 * 1 + 2 * 2),
        (DirectInversion(targets=True), 8),
    ],
)
def test_a_source_that_is_put_back_needs_no_unconditional_pass(
    method: DirectInversion, source_rows: int
) -> None:
    result = edited(method)
    assert (result.inversion_rows, result.source_rows, result.target_rows) == (4, source_rows, (8,))


def test_guidance_of_the_backward_pass() -> None:
    result = edited(DirectInversion(guidance=3.0))
    assert result.inversion_rows == 8
    assert distance(result.latents[0], encoded()) <= 1e-10
    assert distance(result.latents[1], edited(DirectInversion()).latents[1]) > 1e-3


def test_a_pivot_of_noise_costs_nothing_and_still_ends_at_the_image() -> None:
    method = DirectInversion(pivot="noise")
    (replay,) = method.invert(tiny_model(), read_sources(tiny_model(), images(1), [SOURCE], [3]), STEPS)
    alpha_bar = tiny_model().schedule.alphas_cumprod[501]
    noise = initial_noise(3, (4, 8, 8)).double()
    expected = alpha_bar.sqrt() * encoded() + (1 - alpha_bar).sqrt() * noise
    assert distance(replay.pivot[3], expected) <= 1e-10
    result = edited(method)
    assert result.inversion_rows == 0
    assert distance(result.latents[0], encoded()) <= 1e-10
    assert distance(result.latents[1], edited(method, seed=4).latents[1]) > 1e-3
    assert method.draws_noise
    assert not DirectInversion().draws_noise


@pytest.mark.parametrize("pivot", ["ddim", "noise"])
def test_batches_change_nothing(pivot: str) -> None:
    assert_batches_change_nothing(lambda: DirectInversion(pivot=pivot))


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"guidance": -1.0}, "guidance"), ({"scale": 1.5}, "scale"), ({"interval": 0}, "interval")],
)
def test_bad_settings(settings: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"inversion\.{said}"):
        DirectInversion(**settings)
