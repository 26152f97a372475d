from itertools import pairwise
from typing import Any

import pytest
import torch

import p2p_bench as p2p
from p2p_bench.errors import ConfigError
from p2p_bench.inversion import EDICTInversion
from p2p_bench.inversion.base import read_sources
from p2p_bench.inversion.edict import EDICTReplay, edict_inverse_step, edict_step, factors
from p2p_bench.models.conditioning import TEXT
from p2p_bench.models.level import Denoised
from p2p_bench.sampling import ddim_step
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


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    both = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return both[0], both[1]


def test_a_step_and_back() -> None:
    x, y = edict_inverse_step(edict_step(pair(), torch.sin, 1.1, -0.2, 0.9), torch.sin, 1.1, -0.2, 0.9)
    assert distance(x, pair()[0]) <= 1e-12
    assert distance(y, pair()[1]) <= 1e-12


def test_factors_are_those_of_ddim() -> None:
    (x, noise), schedule = pair(), tiny_model().schedule
    here, there = schedule.level(501), schedule.level(251)
    a, b = factors(here, there)
    expected = ddim_step(Denoised(x, here, noise), here, there)
    assert distance(a * x + b * noise, expected) <= 1e-12


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_the_source_is_the_image(guidance: float, strength: float) -> None:
    method = EDICTInversion(guidance=guidance, strength=strength)
    # The guidance of the request does not disturb it.
    result = edited(method, steps=10, guidance=7.5)
    assert distance(result.latents[0], encoded()) <= 1e-8
    assert distance(result.latents[1], encoded()) > 1e-3
    taken = int(10 * strength) * 2 * (1 if guidance == 1 else 2)
    assert (result.inversion_rows, result.source_rows, result.target_rows) == (taken, taken, (taken,))


def test_both_sequences_come_back_as_written_out() -> None:
    """Against the released code: which sequence moves first alternates, mixing is not symmetric."""
    model, p = tiny_model(), 0.93
    method = EDICTInversion(p=p, strength=1.0)
    (replay,) = method.invert(model, read_sources(model, images(1), [SOURCE]), STEPS)
    assert isinstance(replay, EDICTReplay)
    assert distance(*replay.start) > 1e-3
    both = [part[None] for part in replay.start]
    text, empty = model.encode_prompts([SOURCE]), model.encode_prompts([""])
    with torch.no_grad():
        for step, (here, there) in enumerate(pairwise(model.ladder(STEPS))):
            for turn in (0, 1):
                moved = (turn + step) % 2
                x = both[1 - moved]
                prompts = {TEXT: torch.cat([empty, text])}
                u, c = model.predict(torch.cat([x, x]), here, prompts).epsilon.chunk(2)
                both[moved] = ddim_step(Denoised(both[moved], here, u + 3.0 * (c - u)), here, there)
            first, second = (0, 1) if step % 2 == 0 else (1, 0)
            both[first] = p * both[first] + (1 - p) * both[second]
            both[second] = (1 - p) * both[first] + p * both[second]
    assert distance(both[0][0], encoded()) <= 1e-8
    assert distance(both[1][0], encoded()) <= 1e-8


@pytest.mark.parametrize("controller", [p2p.NoControl(), p2p.Replace(0.8, 0.5), p2p.Reweight({"red": 3.0})])
def test_every_controller_edits_both_sub_steps(controller: p2p.Controller) -> None:
    target = SOURCE if isinstance(controller, p2p.Reweight) else TARGET
    result = edited(EDICTInversion(), (target,), controller=controller)
    assert distance(result.latents[0], encoded()) <= 1e-8
    assert distance(result.latents[1], encoded()) > 1e-3
    if isinstance(controller, p2p.Replace):
        assert distance(result.latents[1], edited(EDICTInversion(), (target,)).latents[1]) > 1e-3
        # Full control of one prompt is the source again.
        same = edited(EDICTInversion(), (SOURCE,), controller=p2p.Replace(1.0, 1.0))
        assert distance(same.latents[1], same.latents[0]) <= 1e-8


def test_batches_change_nothing() -> None:
    assert_batches_change_nothing(EDICTInversion)


def test_the_guidance_of_the_request_where_the_method_has_none() -> None:
    own, given = EDICTInversion(guidance=None), EDICTInversion(guidance=5.0)
    assert distance(edited(own, guidance=5.0).latents, edited(given, guidance=2.0).latents) <= 1e-10
    assert distance(edited(own, guidance=5.0).latents[0], encoded()) <= 1e-8


def test_progress_counts_the_steps_of_the_run() -> None:
    ticks: list[None] = []
    EDICTInversion().invert(
        tiny_model(), read_sources(tiny_model(), images(1), [SOURCE]), 10, tick=lambda: ticks.append(None)
    )
    assert len(ticks) == 10


@pytest.mark.parametrize("values", [{"p": 0.0}, {"strength": 1.5}, {"guidance": -1.0}])
def test_bad_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        EDICTInversion(**values)
