"""Uni-Edit (Jiao et al., UniEdit-Flow, arXiv 2504.13109): guided from the source's velocity to the target's.

The image is inverted part of the way by Uni-Inv, told the empty prompt, and a target is sampled from there.
At each step the network is asked twice at a target's latents, by the target's prompt and by the source's. The
source's own row is sampled by its prompt alone: it is the reconstruction, and what controllers read.

Notation:
    v_tar, v_src     velocities at a target's latents by its own prompt and by the source's
    m                where they differ: the mean over channels of v_tar - v_src, from 0 at its least value to
                     1 at its largest; a signed one, as in the released code
    omega            strength of the guidance
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.attention.terms import Role
from p2p_bench.fields import AtLeast, Between, check_fields
from p2p_bench.inversion.base import Inversion, Sources, StepProgress, no_tick, tick_all
from p2p_bench.inversion.ddim import guided
from p2p_bench.inversion.flow_ode import backward
from p2p_bench.inversion.uni_inv import uni_inv
from p2p_bench.models.conditioning import repeated
from p2p_bench.models.level import Level
from p2p_bench.models.model import DiffusionModel
from p2p_bench.models.spec import Capability
from p2p_bench.sampling.replay import Replay
from p2p_bench.sampling.stepper import RowState, StepContext, Stepper
from p2p_bench.tau import part_of

_LEAST = 1e-7
"""Added to the range of the mean, as in the released code."""


def guidance_mask(difference: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 h w"]:
    """`m` of each row; 0 where the velocities are equal everywhere."""
    mean = difference.mean(1, keepdim=True)
    least, most = mean.amin((2, 3), keepdim=True), mean.amax((2, 3), keepdim=True)
    mask: Tensor = (mean - least) / (most - least + _LEAST)
    return mask


@dataclass(frozen=True)
class UniEditStepper(Stepper):
    """The step of the method (algorithm 2).

    Attributes:
        omega: Strength of the guidance.
    """

    omega: float

    def step(self, state: RowState, here: Level, there: Level, context: StepContext) -> RowState:
        """See `Stepper.step`."""
        (x,) = state
        v_tar = context.predict(x, here).velocity
        v_src = context.by_sources(v_tar, x, here)
        difference = v_tar - v_src
        m = guidance_mask(difference)
        fused = m * v_tar + (1 - m) * v_src
        return (x + (there.sigma - here.sigma) * (self.omega * (1 + m) * difference + fused),)


@dataclass(frozen=True, eq=False)
class UniEditReplay(Replay):
    """Sampling from where the inversion ended.

    Attributes:
        latents: Start latents.
        method: Settings of the method.
        first: The first step taken.
        rows: UNet rows of the inversion.
    """

    latents: Float[Tensor, "c h w"]
    method: "UniEdit"
    first: int
    rows: int

    @property
    def start(self) -> tuple[Float[Tensor, "c h w"], ...]:
        """The start latents."""
        return (self.latents,)

    @property
    def first_step(self) -> int:
        """The step at which the edit begins."""
        return self.first

    @property
    def unet_rows(self) -> int:
        """UNet rows of the inversion."""
        return self.rows

    def stepper(self) -> Stepper:
        """That of the method."""
        return UniEditStepper(self.method.omega)

    def guidance(self, step: int, role: Role, default: float) -> float:
        """The method's own, by which both prompts are told."""
        return default if self.method.guidance is None else self.method.guidance


@dataclass(frozen=True)
class UniEdit(Inversion):
    """Uni-Inv and Uni-Edit; any controller may act on the pass by the target's prompt.

    Published: 15 steps, of which 60 or 80 % are taken, omega 5, no guidance besides (1 to 2 on FLUX). A
    target takes two rows a step and the source one, which the released code leaves out, since it keeps no
    reconstruction; there all of a step is asked for at the target's latents, and controllers have no place.

    Attributes:
        strength: Part of the steps that are taken, in [0, 1]: the last ones (the paper's alpha).
        omega: Strength of the guidance by the difference of the velocities; 0 leaves the fusion of both.
        guidance: Guidance scale of both velocities; None: that of the request.
    """

    needs: ClassVar[frozenset[Capability]] = frozenset({"ladder", "flow"})
    strength: Annotated[float, Between(0, 1)] = 0.6
    omega: Annotated[float, AtLeast(0)] = 5.0
    guidance: Annotated[float | None, AtLeast(0)] = 1.0

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is out of range.
        """
        check_fields(self, "inversion.")

    @property
    def scales_every_step(self) -> bool:
        """See `Inversion.scales_every_step`."""
        return self.guidance is not None

    def steps_taken(self, steps: int) -> int:
        """See `Inversion.steps_taken`."""
        return part_of(self.strength, steps)

    @torch.no_grad()
    def invert(
        self, model: DiffusionModel, sources: Sources, steps: int, tick: StepProgress = no_tick
    ) -> Sequence[Replay]:
        """See `Inversion.invert`. The way there is told the empty prompt, as published."""
        taken = self.steps_taken(steps)
        empty = model.encode([model.tokenize("", allow_empty=True)])
        told = repeated(empty, len(sources))
        way = backward(model, steps)[:taken]
        x = uni_inv(sources.latents, way, lambda x, level: guided(model, x, level, told, 1.0).velocity, tick)
        tick_all(tick, steps - taken)
        rows = taken + 1 if taken else 0
        return [UniEditReplay(start, self, steps - taken, rows) for start in x]
