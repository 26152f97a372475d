import copy
import dataclasses
import logging
from collections.abc import Callable

import pytest
import torch

import p2p_bench as p2p
from p2p_bench.data import WorldReal
from p2p_bench.errors import ConfigError, P2PError
from p2p_bench.inversion import DDIMInversion, NullTextInversion
from p2p_bench.inversion.base import read_sources
from p2p_bench.inversion.direct import noise_trajectory
from p2p_bench.inversion.null_text import NullTextReplay
from p2p_bench.inversion.recall import replay_key
from p2p_bench.models import world_checkpoint
from tests.inversion.naive_null_text import naive_null_text
from tests.inversion.runs import (
    SOURCE,
    STEPS,
    assert_batches_change_nothing,
    distance,
    edited,
    encoded,
    images,
)
from tests.models.tiny import tiny_model

PROMPTS = [SOURCE, "a cat in fog", "a dog in water"]
FAST = {"learning_rate": 0.05, "inner_steps": 6}
"""The tiny model's embeddings need larger steps than the published ones to get anywhere."""

GENTLE = {"learning_rate": 0.01, "inner_steps": 4, "tolerance": 0.06}
"""Images stop after different numbers of updates. Adam divides by the gradient's size, down to its epsilon of
1e-8, so rounding moves components of the embedding that hardly matter; after small steps no latent shows."""


def replays(method: NullTextInversion, count: int = 1, guidance: float = 7.5) -> list[NullTextReplay]:
    inverted = method.for_guidance(guidance).invert(
        tiny_model(), read_sources(tiny_model(), images(count), PROMPTS[:count]), STEPS
    )
    return [replay for replay in inverted if isinstance(replay, NullTextReplay)]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_equals_the_released_algorithm(prediction: str) -> None:
    model = tiny_model(prediction_type=prediction)
    expected = naive_null_text(model, model.encode_images(images(1)), SOURCE, STEPS, 7.5, tolerance=1e-4)
    method = NullTextInversion(guidance=7.5, tolerance=1e-4)
    (replay,) = method.invert(model, read_sources(model, images(1), [SOURCE]), STEPS)
    assert isinstance(replay, NullTextReplay)
    assert replay.embeddings is not None
    assert distance(replay.start[0], expected.start[0]) <= 1e-10
    for step in range(STEPS):
        taken = replay.losses[step][~replay.losses[step].isnan()]
        wanted = torch.tensor(expected.losses[step], dtype=torch.float64)
        torch.testing.assert_close(taken, wanted, rtol=1e-6, atol=1e-10)
        assert distance(replay.embeddings[step], expected.embeddings[step][0]) <= 1e-6


def test_without_updates_it_is_ddim_at_that_guidance() -> None:
    untouched, ddim = edited(NullTextInversion(inner_steps=0)), edited(DDIMInversion())
    assert distance(untouched.latents, ddim.latents) <= 1e-10
    assert untouched.inversion_rows_backward == 0


def test_at_guidance_1_there_is_nothing_to_optimise() -> None:
    result = edited(NullTextInversion(), guidance=1.0)
    assert result.inversion_rows_backward == 0
    assert distance(result.latents, edited(DDIMInversion(), guidance=1.0).latents) <= 1e-10


def test_it_leads_back_to_the_image_where_ddim_does_not() -> None:
    found = distance(edited(NullTextInversion(**FAST), steps=8).latents[0], encoded())
    assert found < 0.5 * distance(edited(DDIMInversion(), steps=8).latents[0], encoded())


def test_losses_fall_and_the_distance_is_that_of_the_source_row() -> None:
    (replay,) = replays(NullTextInversion(tolerance=0.0, **FAST))
    assert bool((replay.losses[:, -1] < replay.losses[:, 0]).all())
    source = edited(NullTextInversion(tolerance=0.0, **FAST)).latents[0]
    assert abs(float((source - encoded()).square().mean()) - replay.distance) <= 1e-10


def test_batches_change_nothing() -> None:
    assert_batches_change_nothing(lambda: NullTextInversion(**GENTLE))


@pytest.mark.parametrize("batch_size", [1, 2])
def test_images_stop_one_by_one_whatever_the_batch(batch_size: int) -> None:
    together = replays(NullTextInversion(**GENTLE), 3)
    taken = [int((~replay.losses[0].isnan()).sum()) for replay in together]
    assert taken == [2, 3, 4], "the images should stop at different updates for this test to say anything"
    apart = replays(NullTextInversion(batch_size=batch_size, **GENTLE), 3)
    for one, other in zip(together, apart, strict=True):
        assert distance(one.losses.nan_to_num(-1), other.losses.nan_to_num(-1)) <= 1e-10
        assert abs(one.distance - other.distance) <= 1e-10
        assert (one.rows, one.rows_backward) == (other.rows, other.rows_backward)


def test_rows_are_counted_forward_and_backward() -> None:
    (replay,) = replays(NullTextInversion(inner_steps=3, tolerance=0.0, inversion_guidance=2.0))
    assert (replay.unet_rows, replay.unet_rows_backward) == (2 * STEPS + 2 * STEPS + 3 * STEPS, 3 * STEPS)
    result = edited(NullTextInversion(inner_steps=3, tolerance=0.0))
    assert (result.inversion_rows, result.inversion_rows_backward) == (6 * STEPS, 3 * STEPS)
    assert result.source_rows == 2 * STEPS


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_gradients_reach_no_weight_and_no_mode_stops_them(context: Callable) -> None:
    (expected,) = replays(NullTextInversion(**FAST))
    with context():
        (replay,) = replays(NullTextInversion(**FAST))
        result = edited(NullTextInversion(**FAST))
    assert replay.embeddings is not None
    assert expected.embeddings is not None
    assert torch.equal(replay.embeddings, expected.embeddings)
    assert not replay.embeddings.requires_grad
    assert result.latents.isfinite().all()
    assert all(weight.grad is None and not weight.requires_grad for weight in tiny_model().unet.parameters())


def test_weights_of_inference_mode_are_refused() -> None:
    from tests.models.tiny import tiny_checkpoint

    with torch.inference_mode():
        model = tiny_checkpoint().load(dtype=torch.float64)  # which does not let that mode in
        foreign = dataclasses.replace(model, unet=copy.deepcopy(model.unet))
    assert not any(parameter.is_inference() for parameter in model.unet.parameters())
    with pytest.raises(P2PError, match="load the model outside"):
        NullTextInversion().invert(foreign, read_sources(foreign, images(1), [SOURCE]), STEPS)


def test_on_the_source_alone() -> None:
    full, alone = edited(NullTextInversion(**FAST)), edited(NullTextInversion(serves="source", **FAST))
    assert distance(full.latents[0], alone.latents[0]) <= 1e-10
    assert distance(alone.latents[1], edited(DDIMInversion()).latents[1]) <= 1e-10
    assert distance(full.latents[1], alone.latents[1]) > 1e-4


def test_as_an_offset_of_the_latents() -> None:
    full, offset = edited(NullTextInversion(**FAST)), edited(NullTextInversion(serves="latent", **FAST))
    assert distance(full.latents[0], offset.latents[0]) <= 1e-10
    assert distance(full.latents[1], offset.latents[1]) > 1e-4
    assert distance(offset.latents[1], edited(DDIMInversion()).latents[1]) > 1e-4
    assert offset.inversion_rows == full.inversion_rows + STEPS


def test_pivot_of_noise() -> None:
    method = NullTextInversion(guidance=7.5, pivot="noise", **FAST)
    sources = read_sources(tiny_model(), images(1), [SOURCE], [5])
    (replay,) = method.invert(tiny_model(), sources, STEPS)
    end = noise_trajectory(tiny_model(), sources, STEPS)[-1]
    assert torch.equal(replay.start[0], end[0])
    assert method.draws_noise
    assert not NullTextInversion().draws_noise
    assert replay.unet_rows == replay.unet_rows_backward + 2 * STEPS


def test_decay_holds_the_embeddings_near_the_empty_prompt() -> None:
    empty = tiny_model().encode_prompts([""])[0]

    def went(decay: float) -> tuple[float, NullTextReplay]:
        (replay,) = replays(NullTextInversion(decay=decay, tolerance=0.0, **FAST))
        assert replay.embeddings is not None
        return float((replay.embeddings - empty).square().mean()), replay

    (far, free), (near, held), (stuck, _) = went(0.0), went(0.1), went(1e6)
    assert near < 0.7 * far
    assert stuck < 0.1 * far
    assert held.distance < 0.9 * replays(NullTextInversion(inner_steps=0))[0].distance
    # At the first update the embedding is the empty prompt's, and there is nothing to hold.
    assert distance(held.losses[0, 0], free.losses[0, 0]) <= 1e-10
    together = replays(NullTextInversion(decay=0.1, **GENTLE), 3)
    alone = replays(NullTextInversion(decay=0.1, batch_size=1, **GENTLE), 3)
    for one, other in zip(together, alone, strict=True):
        assert distance(one.losses.nan_to_num(-1), other.losses.nan_to_num(-1)) <= 1e-10


def test_one_embedding_for_all_steps() -> None:
    (replay,) = replays(NullTextInversion(per_step=False, tolerance=0.0, **FAST))
    assert replay.embeddings is not None
    assert torch.equal(replay.embeddings, replay.embeddings[:1].expand_as(replay.embeddings))
    assert float(replay.losses[:, -1].sum()) < float(replay.losses[:, 0].sum())
    assert replay.unet_rows_backward == STEPS * FAST["inner_steps"]
    together = replays(NullTextInversion(per_step=False, **GENTLE), 3)
    alone = replays(NullTextInversion(per_step=False, batch_size=1, **GENTLE), 3)
    for one, other in zip(together, alone, strict=True):
        assert abs(one.distance - other.distance) <= 1e-10
        assert one.unet_rows_backward == other.unet_rows_backward


def test_the_guidance_of_the_request_is_taken_unless_the_method_has_one() -> None:
    assert distance(edited(NullTextInversion(**FAST), guidance=3.0).latents[0], encoded()) < distance(
        edited(NullTextInversion(guidance=7.5, **FAST), guidance=3.0).latents[0], encoded()
    )
    inverted_hard = edited(NullTextInversion(inversion_guidance=5.0, **FAST))
    assert distance(inverted_hard.latents, edited(NullTextInversion(**FAST)).latents) > 1e-3


def test_checkpointing_saves_memory_and_changes_nothing() -> None:
    def run(checkpointing: bool) -> tuple[NullTextReplay, int]:
        saved = 0

        def note(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal saved
            saved += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            (replay,) = replays(NullTextInversion(checkpointing=checkpointing, inner_steps=1))
        return replay, saved

    (plain, most), (lean, least) = run(False), run(True)
    assert plain.embeddings is not None
    assert lean.embeddings is not None
    assert distance(plain.embeddings, lean.embeddings) <= 1e-10
    assert least < 0.8 * most
    assert not tiny_model().unet.is_gradient_checkpointing


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_keeps_the_embedding_in_float32(dtype: torch.dtype) -> None:
    model = tiny_model(dtype)
    method = NullTextInversion(guidance=7.5, autocast=dtype == torch.float32, **FAST)
    (replay,) = method.invert(model, read_sources(model, images(1), [SOURCE]), STEPS)
    untouched = NullTextInversion(guidance=7.5, inner_steps=0)
    (start,) = untouched.invert(model, read_sources(model, images(1), [SOURCE]), STEPS)
    assert isinstance(replay, NullTextReplay)
    assert isinstance(start, NullTextReplay)
    assert replay.embeddings is not None
    assert replay.embeddings.dtype == torch.float32
    assert not torch.equal(replay.embeddings, replay.embeddings.bfloat16().float())
    assert replay.distance < 0.6 * start.distance


def test_an_image_that_does_not_converge_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        (lost,) = replays(NullTextInversion(inner_steps=1))
    assert not lost.converged
    assert f"did not converge on the image of {SOURCE!r}" in caplog.text
    caplog.clear()
    (found,) = replays(NullTextInversion(gate=1e3))
    assert found.converged
    assert not caplog.text


def test_progress_counts_the_steps_of_the_run() -> None:
    ticks: list[None] = []
    sources = read_sources(tiny_model(), images(3), PROMPTS)
    NullTextInversion(batch_size=2, inner_steps=1).invert(
        tiny_model(), sources, STEPS, tick=lambda: ticks.append(None)
    )
    assert len(ticks) == STEPS


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"inner_steps": -1}, "inner_steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": float("nan")}, "learning_rate"),
    ],
)
def test_bad_settings_are_refused(values: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=f"(?i){said}"):
        NullTextInversion(**values)


def test_unknown_options_are_answered_with_the_known_ones() -> None:
    method = NullTextInversion()
    object.__setattr__(method, "serves", "sources")  # a configuration may hold any text
    with pytest.raises(ConfigError, match=r"serves: expected one of 'all'.*Did you mean 'source'"):
        method.__post_init__()


def test_every_controller_is_served() -> None:
    for controller in (p2p.NoControl(), p2p.Replace(0.8, 0.5), p2p.Reweight({"red": 3.0})):
        target = SOURCE if isinstance(controller, p2p.Reweight) else "a blue circle on grass"
        result = edited(NullTextInversion(**FAST), (target,), controller=controller)
        assert distance(result.latents[0], edited(NullTextInversion(**FAST)).latents[0]) <= 1e-10
        assert distance(result.latents[1], result.latents[0]) > 1e-3


def test_the_learning_rate_is_the_models_own_unless_it_is_stated() -> None:
    tiny, world = tiny_model(), world_checkpoint().spec()
    assert (tiny.spec.null_text_learning_rate, world.null_text_learning_rate) == (0.01, 0.1)
    assert NullTextInversion().for_model(world).learning_rate == 0.1
    assert NullTextInversion(learning_rate=0.02).for_model(world).learning_rate == 0.02
    eager = dataclasses.replace(tiny, spec=dataclasses.replace(tiny.spec, null_text_learning_rate=0.05))

    def losses(model: p2p.DiffusionModel, method: NullTextInversion) -> torch.Tensor:
        (replay,) = method.for_guidance(7.5).invert(model, read_sources(model, images(1), PROMPTS[:1]), 2)
        assert isinstance(replay, NullTextReplay)
        return replay.losses

    def key(model: p2p.DiffusionModel, method: NullTextInversion) -> str:
        return replay_key(method, model, read_sources(model, images(1), [SOURCE]), 0, 2)

    open_, stated = NullTextInversion(inner_steps=3), NullTextInversion(inner_steps=3, learning_rate=0.05)
    assert losses(eager, open_).equal(losses(tiny, stated))
    assert not losses(eager, open_).equal(losses(tiny, open_))
    assert key(eager, open_) == key(tiny, stated)
    assert key(eager, open_) != key(tiny, open_)


@pytest.mark.slow
def test_it_converges_on_the_world_by_default(world: p2p.DiffusionModel) -> None:
    dataset = WorldReal(count=2, seed=5)
    pairs = dataset.pairs()
    shown = [dataset.load(pair, (64, 64)).image for pair in pairs]
    pixels = torch.stack([image for image in shown if image is not None])
    method = NullTextInversion().for_guidance(world.spec.guidance)
    found = method.invert(
        world, read_sources(world, pixels, [pair.source_prompt for pair in pairs]), world.spec.steps
    )
    assert [replay.converged for replay in found if isinstance(replay, NullTextReplay)] == [True, True]
