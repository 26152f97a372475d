"""The loop does what a replay says: each hook against sampling that is written out."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.attention.plan import build_step_plan
from p2p_bench.editing.run import run_edits
from p2p_bench.inversion import Inversion
from p2p_bench.inversion.base import Sampling, Sources
from p2p_bench.models.conditioning import TEXT, Conditioning, row_of
from p2p_bench.models.level import Denoised, Level, Prediction
from p2p_bench.sampling import DDIM, NoiseReplay, Replay, RowState, StepContext, Stepper, initial_noise
from p2p_bench.sampling.ddim import ddim_step
from tests.editing.naive import naive_sampling
from tests.models.tiny import tiny_model

SHAPE, STEPS = (4, 8, 8), 4
PROMPTS = ["a red circle on grass", "a blue circle on grass"]
NOISE = initial_noise(9, SHAPE)


@dataclass(frozen=True)
class Toy(Inversion):
    """Gives every image one ready replay."""

    sampling: ClassVar[Sampling] = "any"
    replay: Replay

    def invert(self, model: Any, sources: Sources, *rest: Any, **options: Any) -> Sequence[Replay]:
        return [self.replay] * len(sources)


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
        def unconditional(self, step: int, role: str) -> Conditioning:
            return row_of({TEXT: embeddings}, 2 * step + (role == "target"))

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
            self, step: int, roles: tuple, unconditional: Denoised, conditional: Denoised, guidance: Tensor
        ) -> Denoised:
            assert roles == ("source", "target")
            assert guidance.flatten().tolist() == [3.0, 3.0]
            u, c = unconditional.output, conditional.output
            return conditional.with_output(u + (step + 1) * (c - u).clamp(-0.1, 0.1).mean(0, keepdim=True))

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
        def correct(self, step: int, roles: tuple, latents: Tensor, prediction: Prediction) -> Tensor:
            wanted = torch.tensor([role == "source" for role in roles])[:, None, None, None]
            return torch.where(wanted, latents + 0.1 * step, latents)

    def after(step: int, x: Tensor) -> Tensor:
        return torch.cat([x[:1] + 0.1 * step, x[1:]])

    got = replayed(Replayed(), guidance=7.5)
    assert_equal(got, expected(after=after))
    assert float((got.latents - expected()).abs().max()) > 0.1


def test_a_correction_may_look_at_the_guidance_difference() -> None:
    seen: list[Tensor] = []

    class Replayed(Plain):
        def correct(self, step: int, roles: tuple, latents: Tensor, prediction: Prediction) -> Tensor:
            return latents + 0.1 * step * prediction.difference

    def combine(step: int, u: Tensor, c: Tensor) -> Tensor:
        seen.append(c - u)
        return u + 7.5 * (c - u)

    def after(step: int, x: Tensor) -> Tensor:
        return x + 0.1 * step * seen[step]

    got = replayed(Replayed(), guidance=7.5)
    assert_equal(got, expected(combine=combine, after=after))
    assert float((got.latents - expected()).abs().max()) > 1e-3


@dataclass(frozen=True)
class Momentum(Stepper):
    """A step function with state of its own, which asks the network twice."""

    weight: float

    def init(self, start: RowState) -> RowState:
        (x,) = start
        return x, 0.5 * x

    def step(self, state: RowState, here: Level, there: Level, context: StepContext) -> RowState:
        x, velocity = state
        assert context.noise is None
        assert context.steps == STEPS
        assert context.sources.tolist() == [0, 0, 2, 2][: len(x)]
        velocity = self.weight * velocity - 0.1 * context.predict(x, here).epsilon
        return x + velocity - 0.05 * context.predict(x + velocity, here).epsilon, velocity


class Coupled(Replay):
    """Steps with two tensors, of which it starts with one."""

    @property
    def start(self) -> tuple[Tensor, ...]:
        return (NOISE,)

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
    for level in model.ladder(STEPS)[:-1]:

        def epsilon(at: Tensor, level: Level = level) -> Tensor:
            prompts = {TEXT: torch.cat([empty, text])}
            u, c = model.predict(torch.cat([at, at]), level, prompts).epsilon.chunk(2)
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


@pytest.mark.parametrize("first", [1, 3])
@torch.no_grad()
def test_a_later_first_step_leaves_the_steps_before_it_out(first: int) -> None:
    asked: list[int] = []

    class Late(Plain):
        @property
        def first_step(self) -> int:
            return first

        def correct(self, step: int, roles: tuple, latents: Tensor, prediction: Prediction) -> Tensor:
            asked.append(step)
            return latents

    model = tiny_model()
    got = replayed(Late(), guidance=7.5)
    assert sorted(set(asked)) == list(range(first, STEPS))
    assert (got.source_rows, got.target_rows) == (2 * (STEPS - first), (2 * (STEPS - first),))
    text, empty = model.encode_prompts(PROMPTS), model.encode_prompts([""] * 2)
    x = NOISE.double().expand(2, -1, -1, -1)
    for here, there in pairwise(model.ladder(STEPS)[first:]):
        u, c = model.predict(torch.cat([x, x]), here, {TEXT: torch.cat([empty, text])}).epsilon.chunk(2)
        x = ddim_step(Denoised(x, here, u + 7.5 * (c - u)), here, there)
    assert_equal(got, x)


def test_controllers_and_maps_keep_the_indices_of_the_whole_run() -> None:
    class Late(Plain):
        @property
        def first_step(self) -> int:
            return 2

    def edited(controller: p2p.Controller, **options: Any) -> p2p.EditResult:
        targets = (p2p.Target(PROMPTS[1], controller),)
        request = p2p.EditRequest(
            "x", PROMPTS[0], targets, image=torch.zeros(3, 16, 16), inversion=Toy(Late())
        )
        return run_edits(tiny_model(), [request], steps=STEPS, **options)[0]

    # int(0.4 * 5) = 2: the schedule ends where the sampling begins. int(0.6 * 5) = 3 leaves one step.
    over = edited(p2p.Replace(0.4, 0.0))
    assert torch.equal(over.latents, edited(p2p.NoControl()).latents)
    assert over.notes == (
        f"nothing is controlled: replace is over after step 2 of {STEPS}, and the edit begins with step 3",
    )
    for acting in (p2p.Replace(0.6, 0.0), p2p.Replace(0.0, 0.8), p2p.NoControl(), p2p.Replace(0.0, 0.0)):
        assert edited(acting).notes == ("",), acting
    assert not torch.allclose(
        edited(p2p.Replace(0.6, 0.0)).latents, edited(p2p.NoControl()).latents, atol=1e-6
    )
    seen: list[tuple[int, int]] = []
    maps = edited(p2p.NoControl(), record=True, progress=lambda *at: seen.append(at)).maps
    assert torch.allclose(maps[0].sum(0), torch.ones(4, 4), atol=1e-5)
    assert seen[-1][0] == STEPS


def test_no_step_at_all_gives_the_start() -> None:
    class Done(Plain):
        @property
        def first_step(self) -> int:
            return STEPS

    got = replayed(Done(), record=True)
    assert torch.equal(got.latents[0], NOISE.double())
    assert (got.source_rows, got.maps) == (0, {})


def test_rows_that_start_at_different_steps_do_not_share_a_batch() -> None:
    class At(Plain):
        def __init__(self, step: int) -> None:
            self.step = step

        @property
        def first_step(self) -> int:
            return self.step

    @dataclass(frozen=True)
    class Several(Inversion):
        def invert(self, model: Any, sources: Sources, *rest: Any, **options: Any) -> Sequence[Replay]:
            return [At(step) for step in range(len(sources))]

    inversion = Several()
    targets = (p2p.Target(PROMPTS[1]),)
    request = p2p.EditRequest("x", PROMPTS[0], targets, image=torch.zeros(3, 16, 16), inversion=inversion)
    results = run_edits(tiny_model(), [request] * 3, steps=STEPS)
    for step, result in enumerate(results):
        alone = dataclasses.replace(request, inversion=Toy(At(step)))
        assert torch.allclose(
            result.latents, run_edits(tiny_model(), [alone], steps=STEPS)[0].latents, atol=1e-10
        )
        assert result.source_rows == 2 * (STEPS - step)


@dataclass(frozen=True)
class GuidedHalf(Plain):
    """Guided in the first half of the steps, or in the second."""

    first: bool

    def guidance(self, step: int, role: str, default: float) -> float:
        return 7.5 if (step < STEPS // 2) == self.first else 1.0


@dataclass(frozen=True)
class BySeed(Inversion):
    sampling: ClassVar[Sampling] = "any"

    def invert(self, model: Any, sources: Sources, *rest: Any, **options: Any) -> Sequence[Replay]:
        return [GuidedHalf(seed == 0) for seed in sources.seeds]


def test_passes_without_the_prompt_of_one_request_are_not_edited_as_those_of_another() -> None:
    """As many rows take one in every step, in the same places of the batch, and of other requests."""
    controllers = p2p.MasaCtrl(0, 0.5, unprompted=True), p2p.MasaCtrl(0, 0, unprompted=True)
    requests = [
        p2p.EditRequest(
            str(seed), PROMPTS[0], (p2p.Target(PROMPTS[1], controller),), seed=seed,
            image=torch.zeros(3, 16, 16), inversion=BySeed(),
        )
        for seed, controller in enumerate(controllers)
    ]  # fmt: skip
    for together, request in zip(run_edits(tiny_model(), requests, steps=STEPS), requests, strict=True):
        (alone,) = run_edits(tiny_model(), [request], steps=STEPS)
        assert together.error is None
        assert_equal(together, alone.latents)


def test_steps_that_do_the_same_share_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(sites: Any, rows: int, edits: Any, step: int, *rest: Any) -> Any:
        made.append(step)
        return build_step_plan(sites, rows, edits, step, *rest)

    monkeypatch.setattr("p2p_bench.editing.loop.build_step_plan", counted)
    p2p.edit(tiny_model(), PROMPTS[0], PROMPTS[1], p2p.Replace(0.6, 0.0), steps=10)
    assert made == [0, 6]  # int(0.6 * 11) steps are edited
