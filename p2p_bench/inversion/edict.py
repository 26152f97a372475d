"""EDICT (Wallace, Gokul and Naik, arXiv 2211.12446): two coupled sequences that invert exactly.

Notation:
    x, y       the coupled latents; the image is decoded from x
    a, b       a DDIM step as x_prev = a x_t + b epsilon (eq. 9)
    p          mixing weight
    x_i, y_i   after both affine steps, before mixing
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.attention.terms import Role
from p2p_bench.fields import AtLeast, Between, check_fields
from p2p_bench.inversion.base import (
    Sampling,
    Sources,
    StepProgress,
    no_tick,
    tick_all,
)
from p2p_bench.inversion.ddim import guided, passes
from p2p_bench.inversion.told import ToldInversion
from p2p_bench.models.conditioning import Conditioning
from p2p_bench.models.level import Level
from p2p_bench.models.model import DiffusionModel
from p2p_bench.models.spec import ModelSpec
from p2p_bench.sampling.replay import Replay
from p2p_bench.sampling.stepper import RowState, StepContext, Stepper
from p2p_bench.tau import part_of

Epsilon = Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n c h w"]]
Pair = tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"]]


def edict_step(pair: Pair, epsilon: Epsilon, a: float, b: float, p: float) -> Pair:
    """One step toward the image (eq. 13 and 14).

    Args:
        pair: The sequence that steps first, then the other.
        epsilon: Noise predicted in latents at the timestep before the step; asked for each sequence.
        a: Factor of the latents.
        b: Factor of the noise.
        p: Mixing weight.
    """
    x, y = pair
    x_i = a * x + b * epsilon(y)
    y_i = a * y + b * epsilon(x_i)
    x = p * x_i + (1 - p) * y_i
    return x, p * y_i + (1 - p) * x


def edict_inverse_step(pair: Pair, epsilon: Epsilon, a: float, b: float, p: float) -> Pair:
    """The exact inverse of `edict_step` (eq. 15), with equal arguments."""
    x, y = pair
    y_i = (y - (1 - p) * x) / p
    x_i = (x - (1 - p) * y_i) / p
    y = (y_i - b * epsilon(x_i)) / a
    return (x_i - b * epsilon(y)) / a, y


def factors(here: Level, there: Level) -> tuple[float, float]:
    """`a` and `b` of the DDIM step between two levels; `here` must hold some of the image."""
    a = there.alpha / here.alpha
    return a, there.sigma - a * here.sigma


@dataclass(frozen=True)
class EDICTStepper(Stepper):
    """EDICT as a stepper; its state is the two sequences. The network is asked twice a step.

    Which sequence steps first alternates, as in the paper: x at even steps, y at odd ones.

    Attributes:
        p: Mixing weight, in (0, 1].
    """

    p: float = 0.93

    def init(self, start: RowState) -> RowState:
        """Both sequences; a start of one is the start of both."""
        return start if len(start) == 2 else (*start, *start)

    def step(self, state: RowState, here: Level, there: Level, context: StepContext) -> RowState:
        """See `Stepper.step`."""
        a, b = factors(here, there)

        def epsilon(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
            return context.predict(x, here).epsilon

        return _in_turn(context.step, state, lambda pair: edict_step(pair, epsilon, a, b, self.p))


@dataclass(frozen=True, eq=False)
class EDICTReplay(Replay):
    """Sampling of two coupled sequences from where the inversion ended.

    Attributes:
        latents: The first sequence.
        coupled: The second.
        p: Mixing weight.
        scale: Guidance scale of all rows.
        skipped: Steps that are not taken.
        rows: UNet rows spent.
    """

    latents: Float[Tensor, "c h w"]
    coupled: Float[Tensor, "c h w"]
    p: float
    scale: float
    skipped: int
    rows: int

    @property
    def start(self) -> tuple[Float[Tensor, "c h w"], ...]:
        """Both sequences."""
        return self.latents, self.coupled

    @property
    def first_step(self) -> int:
        """The inversion stopped short of the noise."""
        return self.skipped

    @property
    def unet_rows(self) -> int:
        """UNet rows of the inversion."""
        return self.rows

    def stepper(self) -> Stepper:
        """The coupled step."""
        return EDICTStepper(self.p)

    def guidance(self, step: int, role: Role, default: float) -> float:
        """The method's own: any other would not lead the source back."""
        return self.scale


@dataclass(frozen=True)
class EDICTInversion(ToldInversion):
    """Exact inversion with guidance, by two sequences that are each predicted from the other.

    Exact up to rounding, which mixing back amplifies by up to 1 / p a step.

    Attributes:
        p: Mixing weight, in (0, 1]; 1 leaves the sequences unmixed.
        strength: Part of the steps that are inverted and sampled again, in (0, 1].
        guidance: Guidance scale of inversion and sampling; None: that of the request.
    """

    sampling: ClassVar[Sampling] = "own"
    own_scale: ClassVar[str] = "guidance"
    p: Annotated[float, Between(0, 1, open_low=True)] = 0.93
    strength: Annotated[float, Between(0, 1, open_low=True)] = 0.8
    guidance: Annotated[float | None, AtLeast(0)] = 3.0

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is out of range.
        """
        check_fields(self, "inversion.")

    @property
    def scales_every_step(self) -> bool:
        """Another scale at a step than on the way back would not lead the source back."""
        return True

    def for_guidance(self, guidance: float) -> "EDICTInversion":
        """Without a guidance of its own the method takes that of the request."""
        return self if self.guidance is not None else replace(self, guidance=guidance)

    def steps_taken(self, steps: int) -> int:
        """See `Inversion.steps_taken`; at least one."""
        return max(1, part_of(self.strength, steps))

    def refusal(self, spec: ModelSpec, steps: int) -> str:
        """A step divides by the share of the image, of which the noisiest level of a flow has none."""
        if "flow" not in spec.capabilities or self.steps_taken(steps) < steps:
            return ""
        return (
            f"{type(self).__name__} on the flow model {spec.name!r} starts from noise without any image; "
            "take inversion.strength below 1, or more steps"
        )

    @torch.no_grad()
    def invert(
        self, model: DiffusionModel, sources: Sources, steps: int, tick: StepProgress = no_tick
    ) -> Sequence[Replay]:
        """See `Inversion.invert`."""
        scale = model.spec.guidance if self.guidance is None else self.guidance
        skipped = steps - self.steps_taken(steps)
        state: RowState = (sources.latents, sources.latents)
        ladder = model.ladder(steps)
        for step in reversed(range(skipped, steps)):
            here = ladder[step]
            epsilon = _guided(model, here, sources.conditioning, scale)
            move = partial(edict_inverse_step, epsilon=epsilon, p=self.p)
            a, b = factors(here, ladder[step + 1])
            state = _in_turn(step, state, partial(move, a=a, b=b))
            tick()
        tick_all(tick, skipped)
        rows = 2 * (steps - skipped) * passes(model, scale)
        return [EDICTReplay(x, y, self.p, scale, skipped, rows) for x, y in zip(*state, strict=True)]


def _in_turn(step: int, state: RowState, move: Callable[[Pair], Pair]) -> RowState:
    """Moves the pair, the sequence first whose turn it is at this step."""
    x, y = state
    if step % 2 == 0:
        return move((x, y))
    y, x = move((y, x))
    return x, y


def _guided(model: DiffusionModel, level: Level, conditioning: Conditioning, guidance: float) -> Epsilon:
    """Noise predicted at a level, guided by the prompts."""
    return lambda x_t: guided(model, x_t, level, conditioning, guidance).epsilon
