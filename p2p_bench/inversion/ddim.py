"""DDIM inversion (Song, Meng and Ermon, arXiv 2010.02502): the sampler's ODE run backward."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.fields import AtLeast, check_fields
from p2p_bench.inversion.base import Sources, StepProgress, no_tick
from p2p_bench.inversion.told import ToldApart
from p2p_bench.models.conditioning import Conditioning, repeated, told_guidance
from p2p_bench.models.level import Denoised, Level
from p2p_bench.models.model import DiffusionModel
from p2p_bench.sampling.ddim import ddim_inverse_step
from p2p_bench.sampling.replay import Replay, classifier_free


@dataclass(frozen=True, eq=False)
class StartReplay(Replay):
    """Plain sampling from latents that were found, not drawn.

    Attributes:
        latents: Start latents.
        rows: UNet rows spent on finding them.
    """

    latents: Float[Tensor, "c h w"]
    rows: int

    @property
    def start(self) -> tuple[Float[Tensor, "c h w"], ...]:
        """The start latents."""
        return (self.latents,)

    @property
    def unet_rows(self) -> int:
        """UNet rows spent on finding them."""
        return self.rows


@dataclass(frozen=True)
class DDIMInversion(ToldApart):
    """Start latents that lead back to the image, up to the error of each backward step.

    Attributes:
        guidance: Guidance scale of the backward pass. 1 inverts best and needs no unconditional pass.
    """

    guidance: Annotated[float, AtLeast(0)] = 1.0

    def __post_init__(self) -> None:
        """Checks the value.

        Raises:
            ConfigError: The guidance is out of range.
        """
        check_fields(self, "inversion.")

    def invert(
        self, model: DiffusionModel, sources: Sources, steps: int, tick: StepProgress = no_tick
    ) -> Sequence[Replay]:
        """See `Inversion.invert`."""
        pivot = ddim_trajectory(model, sources, steps, self.guidance, tick)
        rows = steps * passes(model, self.guidance)
        return [StartReplay(start, rows) for start in pivot[-1]]


@torch.no_grad()
def ddim_trajectory(
    model: DiffusionModel,
    sources: Sources,
    steps: int,
    guidance: float = 1.0,
    tick: StepProgress = no_tick,
) -> list[Float[Tensor, "n c h w"]]:
    """The pivot: latents from the image (first) to the noise (last), `steps + 1` of them.

    Args:
        model: The model.
        sources: The images.
        steps: Number of steps.
        guidance: Guidance scale; 1 takes no unconditional pass.
        tick: Called after each step.
    """
    pivot = [sources.latents]
    for there, here in pairwise(reversed(model.ladder(steps))):
        # The published code asks the network at the level the step leads to; so does the forward pass.
        x_prev = pivot[-1]
        predicted = guided(model, x_prev, here, sources.conditioning, guidance)
        pivot.append(ddim_inverse_step(x_prev, predicted, here, there))
        tick()
    return pivot


def passes(model: DiffusionModel, guidance: float) -> int:
    """Rows through the network for one prediction at a guidance scale."""
    return 1 if guidance == 1 or model.spec.guided_by != "passes" else 2


def guided(
    model: DiffusionModel,
    x_t: Float[Tensor, "n c h w"],
    level: Level,
    conditioning: Conditioning,
    guidance: float,
) -> Denoised:
    """A prediction at a guidance scale; 1 takes no unconditional pass, nor does a network that is told it.

    Args:
        model: The model.
        x_t: Latents.
        level: Their noise level.
        conditioning: Of their prompts.
        guidance: Guidance scale.
    """
    if model.spec.guided_by == "input":
        return model.predict(x_t, level, told_guidance(conditioning, [guidance] * len(x_t)))
    conditional = model.predict(x_t, level, conditioning)
    if guidance == 1:
        return conditional
    unconditional = model.predict(x_t, level, repeated(model.unconditional(), len(x_t)))
    return classifier_free(unconditional, conditional, guidance)
