"""A replay and a step function that somebody else writes, with a slip in them: no number comes of it."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

import p2p_bench as p2p
from p2p_bench.editing.run import run_edits
from p2p_bench.inversion import Inversion
from p2p_bench.inversion.base import Sources
from p2p_bench.models.conditioning import TEXT
from p2p_bench.sampling import DDIM, NoiseReplay, RowState, Stepper, initial_noise
from tests.models.tiny import tiny_model
from tests.unchecked import unchecked

SHAPE, STEPS = (4, 8, 8), 3
NOISE = initial_noise(9, SHAPE)


@dataclass(frozen=True)
class Mine(Inversion):
    """Gives what a function makes of the sources."""

    make: Any

    sampling = "any"  # type: ignore[misc]  # a class attribute, as the base has it

    def invert(self, model: Any, sources: Sources, *rest: Any, **options: Any) -> Any:
        return self.make(sources)


def edited(make: Any, eta: float = 0.0) -> p2p.EditResult:
    request = p2p.EditRequest(
        "x", "a red circle on grass", (p2p.Target("a blue circle on grass"),), image=torch.rand(3, 16, 16),
        inversion=Mine(make),
    )  # fmt: skip
    return run_edits(tiny_model(), [request], steps=STEPS, stepper=DDIM(eta))[0]


def answering(hook: str, answer: Any) -> Any:
    """Replays with another answer to one hook; a function is asked with the hook's arguments."""

    def hooked(self: Any, *arguments: Any, **options: Any) -> Any:
        return answer(*arguments, **options) if callable(answer) else answer

    kind = property(hooked) if hook in ("start", "first_step") else hooked
    mine = type("Mine", (NoiseReplay,), {hook: kind})
    return lambda sources: [mine(NOISE, 0)] * len(sources)


def test_what_fits_is_sampled() -> None:
    assert edited(lambda sources: [NoiseReplay(NOISE, 0)]).error is None
    assert edited(answering("noise", NOISE), eta=1.0).error is None
    assert edited(answering("guidance", torch.tensor(3.0))).error is None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda sources: None, "Mine.invert gave a NoneType; expected a list of `Replay`"),
        (lambda sources: list(sources.latents), "gave a Tensor"),
        (lambda sources: [NoiseReplay(NOISE, 0)] * 2, "gave 2 replays for 1 images"),
        (answering("start", NOISE), "`start` is a Tensor; expected a tuple of tensors"),
        (answering("start", (NOISE[None],)), r"`start` has the shape \(1, 4, 8, 8\)"),
        (answering("start", (NOISE[:, :, :4],)), r"`start` has the shape \(4, 8, 4\)"),
        (answering("start", (NOISE.long(),)), "`start` holds torch.int64"),
        (answering("first_step", STEPS + 1), "`first_step` is 4; expected an index from 0 to 3"),
        (answering("first_step", -1), "`first_step` is -1"),
        (answering("first_step", 1.0), r"`first_step` is 1\.0"),
    ],
)
def test_a_replay_that_cannot_be_started_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        edited(make)


def test_sources_are_not_to_be_changed() -> None:
    def spoil(sources: Sources) -> Any:
        sources.latents.mul_(0.5)
        return [NoiseReplay(NOISE, 0)]

    with pytest.raises(ValueError, match="invert changed its sources"):
        edited(spoil)


def one_row(step: int, roles: Any, unconditional: Any, conditional: Any, guidance: Any) -> Any:
    return unchecked(conditional, output=conditional.output[:1])


def one_channel(step: int, roles: Any, unconditional: Any, conditional: Any, guidance: Any) -> Any:
    return unchecked(conditional, output=conditional.output.mean(1, keepdim=True))


@pytest.mark.parametrize(
    ("hook", "answer", "words"),
    [
        ("noise", NOISE[:, :1, :1], r"noise at step 0: .*\(4, 8, 8\), got a tensor of the shape \(4, 1, 1\)"),
        ("noise", NOISE[None], r"noise at step 0: .* got a tensor of the shape \(1, 4, 8, 8\)"),
        ("combine", one_row, r"combine at step 0: .*\(2, 4, 8, 8\), got one of \(1, 4, 8, 8\)"),
        ("combine", one_channel, r"combine at step 0: .* got one of \(2, 1, 8, 8\)"),
        ("combine", lambda *asked: asked[3].output, "combine at step 0: expected a Denoised"),
        ("correct", lambda step, roles, latents, prediction: latents[:1], "correct at step 0"),
        ("correct", None, "correct at step 0: .* got None"),
        ("unconditional", {"txt": NOISE}, r"unconditional at step 0: .*among \['text'\], got \['txt'\]"),
        ("unconditional", {TEXT: torch.zeros(1, 3, 3)}, "unconditional at step 0: .* as 'text'"),
        ("unconditional", NOISE, "unconditional at step 0: expected None or a mapping"),
        ("values", torch.zeros(16, 3), r"values at step 0: .*\(16, 16\), got .*\(16, 3\)"),
        ("values", "text", "values at step 0: expected None or a tensor"),
        ("guidance", None, "guidance at step 0: expected a number, got None"),
    ],
)
def test_an_answer_of_another_shape_is_refused(hook: str, answer: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        edited(answering(hook, answer), eta=1.0)


@dataclass(frozen=True)
class Odd(Stepper):
    """Steps to whatever it is told to."""

    make: Any
    asks: bool = True

    def init(self, start: RowState) -> RowState:
        return start

    def step(self, state: RowState, here: Any, there: Any, context: Any) -> Any:
        if self.asks:
            context.predict(state[0], here)
        return self.make(state)


@pytest.mark.parametrize(
    ("stepper", "words"),
    [
        (Odd(lambda state: state[0]), "Odd.step at step 0: .*got a Tensor"),
        (Odd(lambda state: (state[0][:1],)), "Odd.step at step 0: .*\\(1, 4, 8, 8\\)"),
        (Odd(lambda state: (*state, state[0])), "Odd.step at step 0"),
        (Odd(lambda state: state, asks=False), "expected `context.predict` to be called"),
    ],
)
def test_a_step_leaves_what_it_was_given(stepper: Stepper, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        edited(answering("stepper", lambda: stepper))


def test_a_model_that_answers_for_fewer_channels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = type(tiny_model())
    whole = model.predict

    def narrow(*arguments: Any, **options: Any) -> Any:
        made = whole(*arguments, **options)
        return unchecked(made, output=made.output[:, :1])

    monkeypatch.setattr(model, "predict", narrow)
    with pytest.raises(ValueError, match=r"predict: .*\(4, 4, 8, 8\) of the latents, got \(4, 1, 8, 8\)"):
        edited(lambda sources: [NoiseReplay(NOISE, 0)])
