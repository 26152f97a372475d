import pytest
import torch

import p2p_bench as p2p
from p2p_bench.errors import ConfigError
from p2p_bench.inversion import NoisingInversion
from p2p_bench.inversion.base import read_sources
from p2p_bench.sampling import Replay, initial_noise, step_noise
from tests.inversion.runs import assert_batches_change_nothing, distance, edited, encoded, images
from tests.models.tiny import tiny_model

SHAPE = (4, 8, 8)


def replay(strength: float, steps: int = 50, seed: int = 3) -> Replay:
    return NoisingInversion(strength).invert(
        tiny_model(), read_sources(tiny_model(), images(1), ["a cat"], [seed]), steps
    )[0]


def test_full_strength_starts_from_nearly_pure_noise() -> None:
    made = replay(1.0)
    assert made.first_step == 0
    noise = initial_noise(3, SHAPE).double()
    assert torch.corrcoef(torch.stack([made.start[0].flatten(), noise.flatten()]))[0, 1] > 0.99
    assert distance(replay(1.0, seed=4).start[0], made.start[0]) > 1


def test_no_strength_leaves_the_image_which_is_no_edit() -> None:
    made = replay(0.0, steps=4)
    assert made.first_step == 4
    assert distance(made.start[0], encoded()) == 0
    with pytest.raises(ConfigError, match="takes none of the 4 steps"):
        p2p.edit(tiny_model(), "a cat", "a dog", image=images(1)[0], inversion=NoisingInversion(0.0), steps=4)


def test_the_start_has_the_noise_level_of_its_step() -> None:
    made = replay(0.3, steps=10)
    assert made.first_step == 7
    alpha_bar = tiny_model().schedule.alphas_cumprod[201]
    noise = initial_noise(3, SHAPE).double()
    expected = alpha_bar.sqrt() * encoded() + (1 - alpha_bar).sqrt() * noise
    assert distance(made.start[0], expected) <= 1e-10


@pytest.mark.parametrize(("strength", "steps", "taken"), [(0.29, 100, 29), (0.28, 25, 7), (0.5, 5, 2)])
def test_strength_is_a_part_of_the_steps(strength: float, steps: int, taken: int) -> None:
    assert replay(strength, steps).first_step == steps - taken


def test_more_strength_changes_more() -> None:
    changes = [
        distance(edited(NoisingInversion(strength), steps=10, guidance=1.0).latents[0], encoded())
        for strength in (0.1, 0.4, 1.0)
    ]
    assert changes[0] < changes[1] < changes[2]


def test_rows_are_those_of_the_steps_taken() -> None:
    result = edited(NoisingInversion(0.5))
    assert (result.inversion_rows, result.source_rows, result.target_rows) == (0, 4, (4,))


def test_a_stochastic_run_has_the_noise_of_the_seed() -> None:
    assert torch.equal(replay(0.5).noise(4), step_noise(3, 4, SHAPE))


def test_batches_change_nothing() -> None:
    assert_batches_change_nothing(lambda: NoisingInversion(0.75))


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_bad_strength(strength: float) -> None:
    with pytest.raises(ConfigError, match=r"inversion\.strength: .* in \[0, 1\]"):
        NoisingInversion(strength)
