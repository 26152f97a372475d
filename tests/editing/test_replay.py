"""The loop does what a replay says: each hook against sampling that is written out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.editing.run import run_edits
from p2p_bench.inversion import Inversion
from p2p_bench.sampling import DDIM, NoiseReplay, Replay, RowState, StepContext, Stepper, initial_noise
from tests.editing.naive import naive_sampling
from tests.models.tiny import tiny_model

SHAPE, STEPS = (4, 8, 8), 4
PROMPTS = ["a red circle on grass", "a blue circle on grass"]
NOISE = initial_noise(9, SHAPE)


@dataclass(frozen=True)
class Toy(Inversion):
    """Gives every image one ready replay."""

    replay: Replay

    def invert(self, model: Any, images: Tensor, *rest: Any, **options: Any) -> Sequence[Replay]:
        return [self.replay] * len(images)


class Plain(Replay):
    """A replay with no hook but its start."""

    @property
    def start(self) -> tuple[Tensor, ...]:
        return (NOISE,)


def replayed(replay: Replay, **options: Any) -> p2p.EditResult:
    """The toy's result, in a batch with two neighbours that must not feel it."""
    model = tiny_model()
    targets = (p2p.Target(PROMPTS[1]),)
    request = p2p.EditRequest("toy", PROMPTS[0], targets, image=torch.zeros(3, 16, 16), inversion=Toy(replay))
    plain = p2p.EditRequest(
        "plain", PROMPTS[0], targets, image=torch.ones(3, 16, 16), inversion=request.inversion
    )
    neighbour = p2p.EditRequest("other", PROMPTS[1], targets, seed=4)
    first, second, other = run_edits(model, [request, plain, neighbour], steps=STEPS, **options)
    assert first.error is None
    assert torch.equal(first.latents, second.latents) or torch.allclose(
        first.latents, second.latents, atol=1e-10
    )
    assert torch.allclose(
        other.latents, run_edits(model, [neighbour], steps=STEPS, **options)[0].latents, atol=1e-10
    )
    return first


def expected(**options: Any) -> Tensor:
    return naive_sampling(tiny_model(), PROMPTS, NOISE, STEPS, **options)


def assert_equal(result: p2p.EditResult, latents: Tensor) -> None:
    assert float((result.latents - latents).abs().max()) <= 1e-10


def test_no_hook_is_plain_sampling() -> None:
    assert_equal(replayed(Plain(), guidance=7.5), expected())


def test_unconditional_embedding_per_step_and_role() -> None:
    embeddings = tiny_model().encode_prompts(
        ["a cat", "a dog", "fog", "sand", "a star", "water", "soft", "small"]
    )

    class Replayed(Plain):
        def unconditional(self, step: int, role: str) -> Tensor:
            return embeddings[2 * step + (role == "target")]

    got = replayed(Replayed(), guidance=7.5)
    assert_equal(got, expected(empty=lambda step: embeddings[2 * step : 2 * step + 2]))
    assert float((got.latents - expected()).abs().max()) > 1e-3


def test_guidance_per_step_and_role() -> None:
    scales = torch.tensor([[1.0, 9.0], [1.0, 1.0], [3.0, 1.0], [0.0, 5.0]], dtype=torch.float64)

    class Replayed(Plain):
        def guidance(self, step: int, role: str, default: float) -> float:
            assert default == 2.0
            return float(scales[step, int(role == "target")])

    def combine(step: int, u: Tensor, c: Tensor) -> Tensor:
        return u + scales[step][:, None, None, None] * (c - u)

    got = replayed(Replayed(), guidance=2.0)
    assert_equal(got, expected(combine=combine))
    # No unconditional pass at guidance 1, and only there.
    assert (got.source_rows, got.target_rows) == (4 + 2, (4 + 2,))


def test_an_unconditional_pass_may_be_asked_for_or_refused() -> None:
    class Replayed(Plain):
        def needs_unconditional(self, step: int, role: str, guidance: float) -> bool:
            assert guidance == 1.0
            return role == "source" and step > 0

    got = replayed(Replayed(), guidance=1.0)
    assert (got.source_rows, got.target_rows) == (4 + 3, (4,))
    assert_equal(got, expected(combine=1.0))


def test_combination_sees_the_rows_of_its_request() -> None:
    class Replayed(Plain):
        def combine(
            self, step: int, roles: tuple, unconditional: Tensor, conditional: Tensor, guidance: Tensor
        ) -> Tensor:
            assert roles == ("source", "target")
            assert guidance.flatten().tolist() == [3.0, 3.0]
            return unconditional + (step + 1) * (conditional - unconditional).clamp(-0.1, 0.1).mean(
                0, keepdim=True
            )

    def combine(step: int, u: Tensor, c: Tensor) -> Tensor:
        return u + (step + 1) * (c - u).clamp(-0.1, 0.1).mean(0, keepdim=True)

    assert_equal(replayed(Replayed(), guidance=3.0), expected(combine=combine))


def test_noise_of_stochastic_steps() -> None:
    class Replayed(Plain):
        def stepper(self) -> Stepper:
            return DDIM(eta=1.0)

        def noise(self, step: int) -> Tensor:
            return initial_noise(100 + step, SHAPE)

    noise = lambda step: initial_noise(100 + step, SHAPE).double()  # noqa: E731  # a formula
    assert_equal(replayed(Replayed(), guidance=7.5), expected(eta_noise=noise))


def test_noise_replay_brings_noise_for_a_stochastic_run() -> None:
    replay = NoiseReplay(NOISE, seed=9)
    got = replayed(replay, guidance=7.5, stepper=DDIM(eta=1.0))
    assert_equal(got, expected(eta_noise=lambda step: replay.noise(step).double()))


def test_rows_are_corrected_after_each_step() -> None:
    class Replayed(Plain):
        def correct(self, step: int, roles: tuple, latents: Tensor) -> Tensor:
            wanted = torch.tensor([role == "source" for role in roles])[:, None, None, None]
            return torch.where(wanted, latents + 0.1 * step, latents)

    def after(step: int, x: Tensor) -> Tensor:
        return torch.cat([x[:1] + 0.1 * step, x[1:]])

    got = replayed(Replayed(), guidance=7.5)
    assert_equal(got, expected(after=after))
    assert float((got.latents - expected()).abs().max()) > 0.1


@dataclass(frozen=True)
class Momentum(Stepper):
    """A step function with state of its own, which asks the network twice."""

    weight: float

    @property
    def stochastic(self) -> bool:
        return False

    def step(self, state: RowState, context: StepContext) -> RowState:
        x, velocity = state
        assert context.noise is None
        assert context.steps == STEPS
        velocity = self.weight * velocity - 0.1 * context.epsilon(x)
        return x + velocity - 0.05 * context.epsilon(x + velocity), velocity


class Coupled(Replay):
    """Starts and steps with two tensors."""

    @property
    def start(self) -> tuple[Tensor, ...]:
        return NOISE, 0.5 * NOISE

    @property
    def unet_rows(self) -> int:
        return 17

    def stepper(self) -> Stepper:
        return Momentum(0.9)


@torch.no_grad()
def test_own_step_function_with_own_row_state() -> None:
    model = tiny_model()
    text, empty = model.encode_prompts(PROMPTS), model.encode_prompts([""] * 2)
    x = NOISE.double().expand(2, -1, -1, -1)
    velocity = 0.5 * x
    for timestep in model.schedule.timesteps(STEPS):

        def epsilon(at: Tensor, timestep: int = timestep) -> Tensor:
            u, c = model.predict(torch.cat([at, at]), timestep, torch.cat([empty, text])).chunk(2)
            return u + 7.5 * (c - u)

        velocity = 0.9 * velocity - 0.1 * epsilon(x)
        x = x + velocity - 0.05 * epsilon(x + velocity)
    got = replayed(Coupled(), guidance=7.5)
    assert_equal(got, x)
    assert (got.inversion_rows, got.source_rows, got.target_rows) == (17, 4 * STEPS, (4 * STEPS,))


def test_a_replay_without_noise_refuses_a_stochastic_run() -> None:
    request = p2p.EditRequest(
        "toy", PROMPTS[0], (p2p.Target(PROMPTS[1]),), image=torch.zeros(3, 16, 16), inversion=Toy(Plain())
    )
    with pytest.raises(p2p.P2PError, match=r"'toy'.*sampler\.eta=0"):
        run_edits(tiny_model(), [request], steps=STEPS, stepper=DDIM(eta=0.5))
