"""DDIM inversion (Song, Meng and Ermon, arXiv 2010.02502): the sampler's ODE run backward."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.fields import AtLeast, check_fields
from p2p_bench.inversion.base import Inversion, StepProgress
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
class DDIMInversion(Inversion):
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
        self,
        model: DiffusionModel,
        images: Float[Tensor, "n 3 h w"],
        prompts: Sequence[str],
        steps: int,
        seeds: Sequence[int] | None = None,
        truncate: bool = False,
        progress: StepProgress | None = None,
    ) -> Sequence[Replay]:
        """See `Inversion.invert`."""
        latents = model.encode_images(images)
        embeddings = model.encode_prompts(prompts, truncate=truncate)
        pivot = ddim_trajectory(model, latents, embeddings, steps, self.guidance, progress)
        rows = steps * (1 if self.guidance == 1 else 2)
        return [StartReplay(start, rows) for start in pivot[-1]]


@torch.no_grad()
def ddim_trajectory(
    model: DiffusionModel,
    latents: Float[Tensor, "n c h w"],
    embeddings: Float[Tensor, "n l d"],
    steps: int,
    guidance: float = 1.0,
    progress: StepProgress | None = None,
) -> list[Float[Tensor, "n c h w"]]:
    """The pivot: latents from the image (first) to the noise (last), `steps + 1` of them.

    Args:
        model: The model.
        latents: Of the images.
        embeddings: Of the prompts.
        steps: Number of steps.
        guidance: Guidance scale; 1 takes no unconditional pass.
        progress: Called after each step.
    """
    schedule = model.schedule
    empty = model.encode_prompts([""])
    pivot = [latents]
    for timestep in reversed(schedule.timesteps(steps)):
        # The published code asks the network at the timestep the step leads to; so does the forward pass.
        x_prev = pivot[-1]
        epsilon = guided_epsilon(model, x_prev, timestep, embeddings, empty, guidance)
        alpha_bar_t = schedule.alpha_bar(timestep)
        alpha_bar_prev = schedule.alpha_bar(schedule.previous(timestep, steps))
        pivot.append(ddim_inverse_step(x_prev, epsilon, alpha_bar_t, alpha_bar_prev))
        if progress is not None:
            progress()
    return pivot


def guided_epsilon(
    model: DiffusionModel,
    x_t: Float[Tensor, "n c h w"],
    timestep: int,
    embeddings: Float[Tensor, "n l d"],
    empty: Float[Tensor, "1 l d"],
    guidance: float,
) -> Float[Tensor, "n c h w"]:
    """The noise predicted at a guidance scale; 1 takes no unconditional pass.

    Args:
        model: The model.
        x_t: Latents.
        timestep: Their noise level.
        embeddings: Of the prompts.
        empty: Of the empty prompt.
        guidance: Guidance scale.
    """
    schedule = model.schedule
    conditional = schedule.to_epsilon(model.predict(x_t, timestep, embeddings), x_t, timestep)
    if guidance == 1:
        return conditional
    unconditional = model.predict(x_t, timestep, empty.expand_as(embeddings))
    unconditional = schedule.to_epsilon(unconditional, x_t, timestep)
    return classifier_free(unconditional, conditional, x_t.new_full((len(x_t), 1, 1, 1), guidance))
