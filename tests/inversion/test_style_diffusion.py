"""StyleDiffusion equals the released script, in training and in the edit, and every constant of it counts."""

import dataclasses
import logging
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.inversion.base import Sources, not_found, read_sources, unserved
from p2p_bench.inversion.ddim import StartReplay
from p2p_bench.inversion.mapping import MappingNetwork
from p2p_bench.inversion.recall import pack, replay_key, unpack
from tests.inversion.released_style import M, ReleasedStyle
from tests.inversion.runs import SOURCE, STEPS, TARGET, distance, edited, images
from tests.models.small_sd3 import small_sd3_model
from tests.models.tiny import tiny_checkpoint, tiny_model
from tests.models.tiny_clip import tiny_clip

PROMPTS = (SOURCE, "a cat in fog", "a dog in water")
UPDATES = 5
CLOSE = 1e-6
"""Adam divides gradients by their size, so that rounding grows where they are next to nothing."""
SEEN = 1e-4


def method(**said: Any) -> p2p.StyleDiffusionInversion:
    usual = {"encoder_weights": tiny_clip(), "network_seed": 1234, "inner_steps": UPDATES, "guidance": 7.5}
    return p2p.StyleDiffusionInversion(**{**usual, **said})


def sources(*places: int, model: Any = None) -> Sources:
    read = read_sources(model or tiny_model(), images(3), PROMPTS, (7, 8, 9))
    return read.part(places or (0,))


def replays(*places: int, **said: Any) -> list[Any]:
    return list(method(**said).invert(tiny_model(), sources(*places), STEPS))


def tokens(place: int = 0) -> Tensor:
    return method().tokens(images(3)[place : place + 1], tiny_model().device).double()


@cache
def released(prediction: str = "epsilon", **said: Any) -> Mapping[str, Any]:
    model = tiny_model(prediction_type=prediction)
    loop = ReleasedStyle(model, STEPS)
    return loop.trained(sources(model=model).latents, SOURCE, tokens(), inner_steps=UPDATES, **said)


def mapped(trained: Mapping[str, Any], step: int, text: Tensor) -> Tensor:
    """What the script's values are made of."""
    network = trained["network"]
    network.load_state_dict(trained["states"][step])
    with torch.no_grad():
        made: Tensor = network(text, tokens())
    return made


def difference(replay: Any, trained: Mapping[str, Any]) -> float:
    """Between what values are made of, the most over all steps."""
    text = tiny_model().encode([tiny_model().tokenize(SOURCE)])["text"]
    return max(
        distance(replay.values(step, "source", text[0]), mapped(trained, step, text)[0])
        for step in range(STEPS)
    )


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_training_equals_the_released_script(prediction: str) -> None:
    model = tiny_model(prediction_type=prediction)
    (replay,) = method().invert(model, sources(model=model), STEPS)
    wanted = released(prediction)
    assert distance(replay.start[0], wanted["path"][-1][0]) <= 1e-10
    for step in range(STEPS):
        taken = replay.losses[step][~replay.losses[step].isnan()]
        expected = torch.tensor(wanted["losses"][step], dtype=torch.float64)
        torch.testing.assert_close(taken, expected, rtol=1e-6, atol=1e-9)
    assert difference(replay, wanted) <= CLOSE
    end = float((wanted["end"] - wanted["path"][0]).square().mean())
    assert abs(replay.distance - end) <= CLOSE


@pytest.mark.parametrize("tau_v", [0.5, 0.3, 1.0])
def test_an_edit_equals_the_released_script(tau_v: float) -> None:
    controller = p2p.Replace(0.6, 0.6)
    result = edited(method(tau_v=tau_v, guidance=None), controller=controller)
    loop, prompts = ReleasedStyle(tiny_model(), STEPS), (SOURCE, TARGET)
    expected = loop.edited(released(), tokens(), prompts, tau_v=tau_v)
    assert distance(result.latents, expected) <= 1e-5
    for other in ({"tau_v": 0.0}, {"uncond": True}, {"cross": 0.2}, {"guidance": 7.4}):
        wrong = loop.edited(released(), tokens(), prompts, **{"tau_v": tau_v, **other})
        assert distance(wrong[1], expected[1]) > SEEN


def test_p2plus_equals_the_released_script() -> None:
    controller = p2p.P2Plus(p2p.Replace(0.6, 0.8), 0.5)
    result = edited(method(guidance=None), controller=controller)
    loop, prompts = ReleasedStyle(tiny_model(), STEPS), (SOURCE, TARGET)
    expected = loop.edited(released(), tokens(), prompts, self_attn=0.8, tau_u=0.5)
    assert distance(result.latents, expected) <= 1e-5
    for tau_u in (0.25, 0.75):
        wrong = loop.edited(released(), tokens(), prompts, self_attn=0.8, tau_u=tau_u)
        assert distance(wrong[1], expected[1]) > SEEN


@pytest.mark.parametrize(
    "other",
    [
        {"guidance": 7.4}, {"inner_steps": 6}, {"learning_rate": 1.01e-2}, {"tolerance": 0.2},
        {"attention_weight": 1.1}, {"attention_weight": 0.0}, {"network_seed": 1235},
    ],
    ids=str,
)  # fmt: skip
def test_each_constant_counts(other: Mapping[str, Any]) -> None:
    (replay,) = replays(**other)
    assert difference(replay, released()) > SEEN


@pytest.mark.parametrize(
    "other",
    [{"slope": 0.02}, {"decay": 0.2}, {"annealed": 50.0}, {"middle": True}, {"keys": True}],
    ids=str,
)
def test_a_script_that_is_wrong_in_one_thing_is_told_from_it(other: Mapping[str, Any]) -> None:
    (replay,) = replays()
    assert difference(replay, released(**other)) > SEEN


def test_images_stop_one_by_one_whatever_the_batch() -> None:
    said = {"tolerance": 0.155, "inner_steps": 4, "network_seed": None}
    together = replays(0, 1, 2, **said)
    taken = [int((~replay.losses[0].isnan()).sum()) for replay in together]
    assert len(set(taken)) > 1, "the images should stop at different updates for this test to say anything"
    for place, one in enumerate(together):
        for other in (*replays(place, **said), replays(0, 1, 2, batch_size=2, **said)[place]):
            assert distance(one.losses.nan_to_num(-1), other.losses.nan_to_num(-1)) <= CLOSE
            assert distance(one.factors, other.factors) <= CLOSE
            assert (one.rows, one.rows_backward) == (other.rows, other.rows_backward)


def test_rows_are_counted_forward_and_backward() -> None:
    updates = UPDATES + 2 + 1 + 1  # of places 0, 12.5, 25 and 37.5 of 50
    (replay,) = replays(tolerance=0.0)
    assert (replay.unet_rows, replay.unet_rows_backward) == (3 * STEPS + updates, updates)
    (plain,) = replays(tolerance=0.0, guidance=1.0)
    assert (plain.unet_rows, plain.unet_rows_backward) == (2 * STEPS + updates, updates)
    result = edited(method(tolerance=0.0))
    assert (result.inversion_rows, result.source_rows) == (3 * STEPS + updates, 2 * STEPS)


def test_losses_fall_and_what_did_not_converge_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        (replay,) = replays(tolerance=0.0, inner_steps=12)
    first = replay.losses[0]
    assert first[-1] < 0.8 * first[0]
    assert "did not converge on the image of 'a red circle on grass'" in caplog.text
    source = edited(method(tolerance=0.0, inner_steps=12)).latents[0]
    found = float((source - sources().latents[0]).square().mean())
    assert abs(found - replay.distance) <= CLOSE


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_gradients_reach_no_weight_and_no_mode_stops_them(mode: Any) -> None:
    (expected,) = replays(inner_steps=2)
    with mode():
        (replay,) = replays(inner_steps=2)
    assert torch.equal(replay.factors, expected.factors)
    assert not replay.factors.requires_grad
    network: Any = tiny_model().network
    assert all(weight.grad is None and not weight.requires_grad for weight in network.parameters())


def test_it_can_be_kept_and_an_encoder_of_other_weights_is_another_method(tmp_path: Path) -> None:
    (replay,) = replays(inner_steps=1)
    kept = pack(replay)
    assert pack(unpack(kept, method(), tiny_model().device)) == kept
    folder = shutil.copytree(tiny_clip(), tmp_path / "clip")
    shutil.copy(Path(tiny_clip(24)) / "open_clip_model.safetensors", folder / "open_clip_model.safetensors")
    one = method(encoder_weights=str(folder))
    key = replay_key(one, tiny_model(), sources(), 0, STEPS)
    shutil.copy(Path(tiny_clip()) / "open_clip_model.safetensors", folder / "open_clip_model.safetensors")
    assert replay_key(one, tiny_model(), sources(), 0, STEPS) != key


def test_networks_start_as_torch_makes_them() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        script = M(5, 16, 0.01).double()
    network = MappingNetwork(5, 16)
    theta = network.start([torch.Generator().manual_seed(5)]).double()
    assert theta.shape == (1, sum(weight.numel() for weight in script.parameters()))
    text = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    factors, summands = network(theta, tokens())
    assert distance(text * factors + summands, script(text, tokens()).detach()) <= 1e-12


def test_what_a_model_or_an_encoder_lacks_is_refused_beforehand(tmp_path: Path) -> None:
    spec = tiny_checkpoint().spec()
    assert unserved(method(), spec, STEPS) is None
    assert "needs cross-attention to the text alone" in str(unserved(method(), small_sd3_model().spec))
    sequential = dataclasses.replace(tiny_checkpoint(), offload="sequential").spec()
    assert "needs differentiable passes" in str(unserved(method(), sequential))
    wide = unserved(method(encoder_weights=tiny_clip(24)), spec, STEPS)
    assert "which are 16 wide, and those of the encoder are 24 wide" in str(wide)
    absent = method(encoder_weights=str(tmp_path))
    assert isinstance(not_found(absent), p2p.MissingWeightsError)
    assert unserved(absent, spec, STEPS) is None, "said once"
    assert not_found(method()) is None
    tagged = method(encoder="ViT-B-16-quickgelu", encoder_weights="openai")
    assert str(not_found(tagged)).startswith("inversion: CLIP weights 'openai' of ViT-B-16-quickgelu: ")
    request = p2p.EditRequest(
        "x", SOURCE, (p2p.Target(TARGET, p2p.NoControl()),), image=images(1)[0], inversion=absent, seed=0
    )
    (result,) = p2p.run_edits(tiny_model(), [request], steps=STEPS)
    assert isinstance(result.error, p2p.MissingWeightsError)
    coarse = dataclasses.replace(tiny_checkpoint(), record_fraction=0.25).load(dtype=torch.float64)
    with pytest.raises(p2p.ConfigError, match=r"no cross-attention maps at 0\.25"):
        method().invert(coarse, sources(), STEPS)


@dataclasses.dataclass(frozen=True, eq=False)
class Scaled(StartReplay):
    """The text, times a number."""

    factor: float

    def values(self, step: int, role: Any, text: Tensor) -> Tensor:
        return self.factor * text if step else text


@dataclasses.dataclass(frozen=True)
class Scaling(p2p.Inversion):
    factor: float

    def invert(self, model: Any, sources: Sources, steps: int, tick: Any = lambda: None) -> Any:
        return [Scaled(replay.start[0], replay.unet_rows, self.factor) for replay in (
            p2p.DDIMInversion().invert(model, sources, steps, tick)
        )]  # fmt: skip


@pytest.mark.parametrize(
    "controller", [p2p.NoControl(), p2p.Replace(), p2p.Pix2PixZero(0.05), p2p.PlugAndPlay()], ids=repr
)
def test_values_of_the_text_itself_change_nothing_and_others_are_seen(controller: p2p.Controller) -> None:
    plain = edited(p2p.DDIMInversion(), controller=controller)
    same = edited(Scaling(1.0), controller=controller)
    assert distance(plain.latents, same.latents) <= 1e-10
    assert (same.source_rows, same.target_rows) == (plain.source_rows, plain.target_rows)
    other = edited(Scaling(1.1), controller=controller)
    assert min(distance(a, b) for a, b in zip(plain.latents, other.latents, strict=True)) > SEEN


def test_values_out_of_range_are_refused() -> None:
    wrong = {"tau_v": 1.1, "inner_steps": 0, "attention_weight": -1.0, "learning_rate": 0.0, "batch_size": 0}
    for name, value in wrong.items():
        with pytest.raises(p2p.ConfigError, match=name):
            method(**{name: value})
