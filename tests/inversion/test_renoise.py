from itertools import pairwise
from typing import Any

import pytest
import torch

import p2p_bench as p2p
from p2p_bench.data.world import WorldReal
from p2p_bench.errors import ConfigError
from p2p_bench.inversion import DDIMInversion, ReNoiseInversion
from p2p_bench.inversion.base import read_sources
from p2p_bench.inversion.renoise import ReNoiseReplay
from p2p_bench.models.conditioning import TEXT
from p2p_bench.sampling import ddim_inverse_step
from tests.inversion.runs import SOURCE, distance, edited, encoded, images
from tests.models.tiny import tiny_model


def inverted(method: ReNoiseInversion, steps: int = 20) -> ReNoiseReplay:
    (replay,) = method.invert(tiny_model(), read_sources(tiny_model(), images(1), [SOURCE]), steps)
    assert isinstance(replay, ReNoiseReplay)
    return replay


def test_without_refinement_it_is_ddim() -> None:
    assert distance(edited(ReNoiseInversion(iterations=0)).latents, edited(DDIMInversion()).latents) <= 1e-10
    hard = edited(ReNoiseInversion(iterations=0, guidance=3.0))
    assert distance(hard.latents, edited(DDIMInversion(guidance=3.0)).latents) <= 1e-10
    assert hard.inversion_rows == 8


def test_the_fixed_point_leads_back_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    invert, kept = ReNoiseInversion.invert, []

    def keeping(*arguments: Any, **named: Any) -> list[Any]:
        kept.extend(invert(*arguments, **named))
        return kept

    monkeypatch.setattr(ReNoiseInversion, "invert", keeping)
    result = edited(ReNoiseInversion(tolerance=1e-12, iterations=60), steps=40, guidance=1.0)
    (replay,) = kept
    assert len(replay.residuals) == 40
    assert float((replay.residuals <= 1e-6).double().mean()) >= 0.95
    assert distance(result.latents[0], encoded()) <= 1e-9
    assert distance(edited(DDIMInversion(), steps=40, guidance=1.0).latents[0], encoded()) > 1e-3


@pytest.mark.parametrize("count", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_on_rendered_images(count: int) -> None:
    model = p2p.load_model("world", dtype=torch.float64)
    data = WorldReal(count, seed=77)
    loaded = [data.load(pair, model.spec.image_size).image for pair in data.pairs()]
    pictures = torch.stack([image for image in loaded if image is not None]).double()
    prompts = [pair.source_prompt for pair in data.pairs()]
    replays = ReNoiseInversion().invert(model, read_sources(model, pictures, prompts), 25)
    residuals = torch.stack([replay.residuals for replay in replays if isinstance(replay, ReNoiseReplay)])
    missed = (residuals > 1e-6).nonzero()
    assert 1 - len(missed) / residuals.numel() >= 0.95
    assert set(missed[:, 1].tolist()) <= {23}  # of 25, noisiest first
    assert float(residuals.max()) < 1e-3


def test_residuals_are_those_of_the_equation() -> None:
    model, steps = tiny_model(), 3
    method = ReNoiseInversion(iterations=2, tolerance=0.0)
    replay = inverted(method, steps)
    x_prev, text = model.encode_images(images(1)), {TEXT: model.encode_prompts([SOURCE])}
    residuals = []
    for there, here in pairwise(reversed(model.ladder(steps))):
        x_k = x_prev
        for _ in range(3):
            with torch.no_grad():
                predicted = model.predict(x_k, here, text)
            x_k, before = ddim_inverse_step(x_prev, predicted, here, there), x_k
        residuals.append(float((x_k - before).square().mean().sqrt()))
        x_prev = x_k
    torch.testing.assert_close(replay.residuals.tolist(), residuals[::-1], rtol=0, atol=1e-12)
    assert distance(replay.start[0], x_prev[0]) <= 1e-10
    assert replay.iterations.tolist() == [2] * steps
    assert replay.unet_rows == 3 * steps


def test_images_that_have_converged_cost_no_more() -> None:
    replay = inverted(ReNoiseInversion(tolerance=1e-3))
    assert int(replay.iterations.max()) < 30
    assert bool((replay.residuals <= 1e-3).all())
    assert replay.unet_rows == 20 + int(replay.iterations.sum())


def test_the_average_is_that_of_the_predictions() -> None:
    steps = 1
    estimates = [inverted(ReNoiseInversion(iterations=k, tolerance=0.0), steps).start[0] for k in range(5)]
    averaged = inverted(ReNoiseInversion(iterations=4, average=(2, 5)), steps)
    assert distance(averaged.start[0], torch.stack(estimates[2:]).mean(0)) <= 1e-10
    assert averaged.unet_rows == 5


def test_batches_change_nothing() -> None:
    # In 40 steps the iteration contracts; fewer would amplify rounding on this model of random weights.
    method, prompts = ReNoiseInversion(tolerance=1e-3), [SOURCE, "a cat in fog", "a dog in water"]
    together = method.invert(tiny_model(), read_sources(tiny_model(), images(3), prompts), 40)
    for index, replay in enumerate(together):
        (alone,) = method.invert(
            tiny_model(), read_sources(tiny_model(), images(3)[index : index + 1], [prompts[index]]), 40
        )
        assert distance(replay.start[0], alone.start[0]) <= 1e-10
        assert replay.unet_rows == alone.unet_rows
    assert len({replay.unet_rows for replay in together}) > 1


def test_progress_counts_the_steps_of_the_run() -> None:
    ticks: list[None] = []
    ReNoiseInversion().invert(
        tiny_model(), read_sources(tiny_model(), images(1), [SOURCE]), 5, tick=lambda: ticks.append(None)
    )
    assert len(ticks) == 5


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"iterations": -1}, "iterations"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"guidance": float("inf")}, "guidance"),
        ({"average": (3, 3)}, "average"),
        ({"iterations": 4, "average": (2, 6)}, "iterations \\+ 1 = 5"),
    ],
)
def test_bad_settings_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ReNoiseInversion(**values)
