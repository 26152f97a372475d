"""Direct inversion (PnP inversion, Ju et al., arXiv 2310.01506): the source row is put back on the pivot."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.attention.terms import Role
from p2p_bench.fields import AtLeast, Between, check_fields
from p2p_bench.inversion.base import Sources, StepProgress, no_tick, tick_all
from p2p_bench.inversion.ddim import ddim_trajectory, guided, passes
from p2p_bench.inversion.told import ToldApart
from p2p_bench.models.level import Prediction
from p2p_bench.models.model import DiffusionModel
from p2p_bench.sampling.ddim import ddim_step
from p2p_bench.sampling.noise import initial_noise
from p2p_bench.sampling.replay import Replay


@dataclass(frozen=True)
class DirectInversion(ToldApart):
    """Adds what the source row lacks to the pivot after every step, before any blend; targets run free.

    Where the whole of it is added the source row *is* the pivot, whatever the guidance, and needs no
    unconditional pass. The other settings are the paper's ablations.

    Attributes:
        guidance: Guidance scale of the backward pass. 1 inverts best and needs no unconditional pass.
        scale: Part of the correction that is added, in [0, 1].
        interval: It is added at every `interval`-th step, from the first; at least 1.
        targets: Add the source's correction to the targets too.
        pivot: What the source follows. "ddim": the inverted path; "noise": the image under one random noise
            at every step, without inversion; "reconstruction": the path of DDIM from the end of the inverted
            path back, by the same prompt without guidance, one more pass a step; "reconstruction_ahead": the
            same as the released code of plug-and-play takes it, always a step further than the level it is
            taken for, where all rows start too.
    """

    guidance: Annotated[float, AtLeast(0)] = 1.0
    scale: Annotated[float, Between(0, 1)] = 1.0
    interval: Annotated[int, AtLeast(1)] = 1
    targets: bool = False
    pivot: Literal["ddim", "noise", "reconstruction", "reconstruction_ahead"] = "ddim"

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is out of range.
        """
        check_fields(self, "inversion.")

    @property
    def draws_noise(self) -> bool:
        """Only a pivot of noise is drawn."""
        return self.pivot == "noise"

    def corrects(self, step: int) -> bool:
        """Whether a correction is added after a step (an index from 0)."""
        return step % self.interval == 0

    def invert(
        self, model: DiffusionModel, sources: Sources, steps: int, tick: StepProgress = no_tick
    ) -> Sequence[Replay]:
        """See `Inversion.invert`."""
        if self.pivot == "noise":
            trajectory = noise_trajectory(model, sources, steps)
            tick_all(tick, steps)
            rows = 0
        else:
            trajectory = ddim_trajectory(model, sources, steps, self.guidance, tick)
            rows = steps * passes(model, self.guidance)
        if self.pivot in ("reconstruction", "reconstruction_ahead"):
            trajectory = reconstruction(model, sources, trajectory[-1], steps)
            rows += steps
        if self.pivot == "reconstruction_ahead":
            trajectory = [trajectory[0], *trajectory[:-1]]
        return [DirectReplay(self, one, rows) for one in torch.stack(trajectory, 1)]


@dataclass(frozen=True, eq=False)
class DirectReplay(Replay):
    """Sampling in which the source row follows the pivot.

    Attributes:
        method: Settings of the method.
        pivot: Latents from the image (first) to the start (last).
        rows: UNet rows spent on the pivot.
    """

    method: DirectInversion
    pivot: Float[Tensor, "p c h w"]
    rows: int

    @property
    def start(self) -> tuple[Float[Tensor, "c h w"], ...]:
        """The end of the pivot."""
        return (self.pivot[-1],)

    @property
    def unet_rows(self) -> int:
        """UNet rows spent on the pivot."""
        return self.rows

    def needs_unconditional(self, step: int, role: Role, guidance: float) -> bool:
        """Not the source where its step is replaced entirely and no one else is given the difference."""
        method = self.method
        replaced = method.corrects(step) and method.scale == 1 and not method.targets
        return guidance != 1 and not (role == "source" and replaced)

    def correct(
        self, step: int, roles: tuple[Role, ...], latents: Float[Tensor, "n c h w"], prediction: Prediction
    ) -> Float[Tensor, "n c h w"]:
        """Adds the correction: pivot minus source step."""
        if not self.method.corrects(step):
            return latents
        source = roles.index("source")
        pivot = self.pivot[len(self.pivot) - 2 - step].to(latents)
        correction = self.method.scale * (pivot - latents[source])
        corrected = [self.method.targets or role == "source" for role in roles]
        return latents + correction * latents.new_tensor(corrected)[:, None, None, None]


@torch.no_grad()
def reconstruction(
    model: DiffusionModel, sources: Sources, start: Float[Tensor, "n c h w"], steps: int
) -> list[Float[Tensor, "n c h w"]]:
    """Latents of DDIM sampling without guidance, from its result (first) to its start (last).

    Args:
        model: The model.
        sources: The images, whose prompts are followed.
        start: What sampling starts from.
        steps: Number of steps.
    """
    path = [start]
    for here, there in pairwise(model.ladder(steps)):
        path.append(ddim_step(guided(model, path[-1], here, sources.conditioning, 1.0), here, there))
    return path[::-1]


def noise_trajectory(model: DiffusionModel, sources: Sources, steps: int) -> list[Float[Tensor, "n c h w"]]:
    """Latents under the noise of their seeds, from the image (first) to the start (last).

    Args:
        model: The model.
        sources: The images.
        steps: Number of steps.
    """
    latents = sources.latents
    shape = (latents.shape[1], latents.shape[2], latents.shape[3])
    noise = torch.stack([initial_noise(seed, shape) for seed in sources.seeds]).to(latents)
    return [latents, *(level.noised(latents, noise) for level in reversed(model.ladder(steps)[:-1]))]
