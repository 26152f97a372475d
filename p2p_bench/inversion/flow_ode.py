"""The ODE of a rectified flow run backward by Euler steps, asked for the velocity where it stands.

DDIM inversion (`ddim.py`) is the Euler step of a flow too, but asks for the velocity at the level that a step
leads to, as published code of diffusion models does. Both are of first order.

Notation:
    sigma            share of noise of a level; x_sigma = (1 - sigma) x_0 + sigma epsilon
    v                velocity dx / dsigma, which the network predicts
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.fields import AtLeast, check_fields
from p2p_bench.inversion.base import Sources, StepProgress, no_tick
from p2p_bench.inversion.ddim import StartReplay, guided, passes
from p2p_bench.inversion.told import ToldInversion
from p2p_bench.models.level import Level
from p2p_bench.models.model import DiffusionModel
from p2p_bench.models.spec import Capability
from p2p_bench.sampling.flow_solvers import Velocity
from p2p_bench.sampling.replay import Replay


@dataclass(frozen=True)
class FlowPath(ToldInversion):
    """What inversions that walk a flow from the image to the noise have in common.

    Attributes:
        guidance: Guidance scale of the backward pass. 1 inverts best and needs no unconditional pass.
    """

    needs: ClassVar[frozenset[Capability]] = frozenset({"ladder", "flow"})
    guidance: Annotated[float, AtLeast(0)] = 1.0

    def __post_init__(self) -> None:
        """Checks the value.

        Raises:
            ConfigError: The guidance is out of range.
        """
        check_fields(self, "inversion.")


@dataclass(frozen=True)
class FlowODEInversion(FlowPath):
    """Euler steps from the image to the noise. `guidance` is that of the way there; 1 inverts best."""

    @torch.no_grad()
    def invert(
        self, model: DiffusionModel, sources: Sources, steps: int, tick: StepProgress = no_tick
    ) -> Sequence[Replay]:
        """See `Inversion.invert`."""
        velocity = source_velocity(model, sources, self.guidance)
        x = sources.latents
        for here, there in backward(model, steps):
            x = euler(x, here, there, velocity)
            tick()
        rows = steps * passes(model, self.guidance)
        return [StartReplay(start, rows) for start in x]


def euler(
    x: Float[Tensor, "n c h w"], here: Level, there: Level, velocity: Velocity
) -> Float[Tensor, "n c h w"]:
    """One step of first order, either way."""
    return x + (there.sigma - here.sigma) * velocity(x, here)


def backward(model: DiffusionModel, steps: int) -> list[tuple[Level, Level]]:
    """The steps of a run in reverse: from the clean end to the noise."""
    return list(pairwise(reversed(model.ladder(steps))))


def source_velocity(model: DiffusionModel, sources: Sources, guidance: float) -> Velocity:
    """The velocity of the sources by their prompts."""
    return lambda x, level: guided(model, x, level, sources.conditioning, guidance).velocity
