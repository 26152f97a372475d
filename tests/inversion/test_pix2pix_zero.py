"""The inversion of pix2pix-zero equals the released script's, image by image."""

from collections.abc import Callable, Mapping
from functools import cache
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.errors import ConfigError
from p2p_bench.inversion.base import Sources, read_sources, unserved
from p2p_bench.inversion.noise_losses import auto_correlation, drawn_shifts, kl_divergence
from p2p_bench.inversion.pix2pix_zero import _released_path
from p2p_bench.inversion.recall import pack, unpack
from tests.controllers.released_zero import SAID, ReleasedZero
from tests.models.small_sd3 import small_sd3_model
from tests.models.tiny import tiny_model
from tests.stubs.flow_family import FlowCheckpoint

PROMPTS = ("a red circle on grass", "a cat in fog", "a red circle on grass")
STEPS = 5
EXACT = 1e-10
SEEN = 1e-6


def sources(*places: int) -> Sources:
    pictures = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    return read_sources(tiny_model(), pictures, PROMPTS, (7, 8, 9)).part(places)


@cache
def released(place: int = 0) -> list[Tensor]:
    loop = ReleasedZero(tiny_model(), STEPS)
    return loop.zero_inverted(sources(place).latents, PROMPTS[place])


def inverted(*places: int, **said: Any) -> list[Any]:
    method = p2p.Pix2PixZeroInversion(**{"direct": True, **SAID, **said})
    return list(method.invert(tiny_model(), sources(*places), STEPS))


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def test_a_batch_is_the_released_path_of_each_image() -> None:
    for place, replay in enumerate(inverted(0, 1, 2)):
        assert distance(replay.pivot, torch.cat(released(place))) <= EXACT
        assert distance(replay.start[0], released(place)[-1][0]) <= EXACT
        assert (replay.unet_rows, replay.unet_rows_backward) == (STEPS, 0)
    (plain,) = inverted(0, direct=False)
    assert plain.pivot is None
    assert distance(plain.start[0], released()[-1][0]) <= EXACT


@pytest.mark.parametrize(
    "other",
    [
        {"lambda_ac": 20.2}, {"lambda_kl": 20.2}, {"num_reg_steps": 4}, {"num_ac_rolls": 4},
        {"shift_seed": 1235}, {"as_released": False}, {"guidance": 1.01},
    ],
    ids=str,
)  # fmt: skip
def test_each_constant_counts(other: Mapping[str, Any]) -> None:
    (replay,) = inverted(0, **other)
    assert distance(replay.start[0], released()[-1][0]) > SEEN


def test_shifts_are_a_samples_own_unless_they_are_told() -> None:
    own = p2p.Pix2PixZeroInversion()
    first, _, third = inverted(0, 1, 2, shift_seed=None)
    (again,) = inverted(2, shift_seed=None)
    assert distance(third.pivot, again.pivot) <= EXACT
    assert distance(first.pivot, torch.cat(released())) > SEEN
    assert own.draws_noise
    assert not p2p.Pix2PixZeroInversion(shift_seed=1).draws_noise
    assert not p2p.Pix2PixZeroInversion(lambda_ac=0.0).draws_noise


def test_a_path_can_be_kept() -> None:
    method = p2p.Pix2PixZeroInversion(direct=True)
    (replay,) = method.invert(tiny_model(), sources(0), STEPS)
    kept = pack(replay)
    assert pack(unpack(kept, method, tiny_model().device)) == kept


def test_without_regularisation_it_is_ddim_inversion() -> None:
    plain = p2p.DDIMInversion().invert(tiny_model(), sources(0), STEPS)
    (bare,) = inverted(0, lambda_ac=0.0, lambda_kl=0.0, as_released=False)
    assert distance(bare.start[0], plain[0].start[0]) <= EXACT


def test_losses_of_images_do_not_mix_and_are_small_for_white_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(1, 4, 64, 64, generator=generator, dtype=torch.float64)
    smooth = white.cumsum(3) / 8
    both = torch.cat([white, smooth])
    shifts = drawn_shifts([Random(1), Random(1)], 4, 64)
    assert shifts.shape == (2, 4, 4)
    assert bool((shifts < torch.tensor([32, 16, 8, 4])).all())
    shifts = shifts.clamp(1)
    losses: tuple[Callable[[Tensor, Tensor], Tensor], ...]
    losses = auto_correlation, lambda noise, _: kl_divergence(noise)
    for loss in losses:
        together = loss(both, shifts)
        for row in range(2):
            alone = loss(both[row : row + 1], shifts[row : row + 1])
            torch.testing.assert_close(together[row : row + 1], alone, atol=1e-12, rtol=0)
        assert together[0] < 0.05
        assert together[1] > 20 * together[0]


def test_it_works_where_gradients_are_off() -> None:
    with torch.inference_mode():
        (inside,) = inverted(0)
    assert distance(inside.pivot, torch.cat(released())) <= EXACT


@pytest.mark.parametrize("spec", [small_sd3_model().spec, FlowCheckpoint().spec()], ids=["sd3", "flow"])
def test_flows_are_refused(spec: p2p.ModelSpec) -> None:
    refused = unserved(p2p.Pix2PixZeroInversion(), spec)
    assert "Pix2PixZeroInversion needs a prediction of noise" in str(refused)


def test_values_out_of_range_are_refused() -> None:
    make: Any = p2p.Pix2PixZeroInversion
    for name, value in {"lambda_ac": -1.0, "lambda_kl": -1.0, "guidance": -1.0, "num_ac_rolls": 0}.items():
        with pytest.raises(p2p.ConfigError, match=name):
            make(**{name: value})
    with pytest.raises(p2p.ConfigError, match="guidance_amount"):
        p2p.Pix2PixZero(0.0)


def test_the_released_way_takes_whole_timesteps() -> None:
    model = tiny_model()
    assert len(_released_path(model.laid_out("euler", "leading"), 7)) == 7
    with pytest.raises(ConfigError, match=r"as_released: .* lie between them; set sampler=ddim"):
        _released_path(model.laid_out("euler", "linspace"), 7)
