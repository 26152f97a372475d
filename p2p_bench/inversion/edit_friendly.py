"""Edit-friendly DDPM inversion (Huberman-Spiegelglas et al., arXiv 2304.06140).

Notation:
    x_0   latents of the image
    x_t   the image under noise drawn for t alone, so that consecutive x_t are less alike than on a DDPM path
    mu_t  where a step without noise takes x_t
    z_t   the noise that takes the step to x_{t-1} instead: (x_{t-1} - mu_t) / sigma_t
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
from p2p_bench.inversion.ddim import StartReplay, guided, passes
from p2p_bench.inversion.told import ToldInversion
from p2p_bench.models.level import Level, Prediction
from p2p_bench.models.model import DiffusionModel
from p2p_bench.sampling.ddim import DDIM, ddim_sigma, ddim_step
from p2p_bench.sampling.noise import step_noise
from p2p_bench.sampling.replay import Replay
from p2p_bench.sampling.stepper import Stepper
from p2p_bench.tau import part_of


@dataclass(frozen=True, eq=False)
class EditFriendlyReplay(StartReplay):
    """DDPM sampling (DDIM with eta 1) with noise that rebuilds the source and is shared by the targets.

    Attributes:
        latents: Start latents x_t of the first step taken.
        noises: z_t of each step taken.
        remainder: What is missing after the last step; 0 unless that step has no noise.
        first: The first step taken.
        source_guidance: Guidance scale of the source row.
        target_guidance: Guidance scale of targets; None is that of the request.
        rows: UNet rows spent on the noise.
    """

    noises: Float[Tensor, "s c h w"]
    remainder: Float[Tensor, "c h w"]
    first: int
    source_guidance: float
    target_guidance: float | None

    @property
    def first_step(self) -> int:
        """The first step that is not skipped."""
        return self.first

    def stepper(self) -> Stepper:
        """DDIM with the noise of DDPM, whatever the sampler of the run."""
        return DDIM(eta=1.0)

    def guidance(self, step: int, role: Role, default: float) -> float:
        """The source's scale is that which the noise was found with."""
        if role == "source":
            return self.source_guidance
        return default if self.target_guidance is None else self.target_guidance

    def noise(self, step: int) -> Float[Tensor, "c h w"]:
        """z_t of the step."""
        return self.noises[step - self.first]

    def correct(
        self, step: int, roles: tuple[Role, ...], latents: Float[Tensor, "n c h w"], prediction: Prediction
    ) -> Float[Tensor, "n c h w"]:
        """Adds the remainder after the last step, to all rows like the noise."""
        last = self.first + len(self.noises) - 1
        return latents + self.remainder.to(latents) if step == last else latents


@dataclass(frozen=True)
class EditFriendlyInversion(ToldInversion):
    """Finds the noise with which DDPM sampling rebuilds the image.

    Published settings: 100 steps, 36 skipped, guidance 3.5 / 15 without attention control; 100 steps, 12
    skipped, target guidance 9, cross 0.6, self 0.2 with Prompt-to-Prompt; 50 steps, 12 skipped, guidance
    1 / 7.5, cross 0.4, self 0.6 on PIE-Bench. The defaults are the last.

    Deviations from the released code: it sets the noise of the last step to 0, so its source is not exact;
    here it is kept. It counts the steps of attention control from the first step taken; here they keep the
    indices of the whole run, as everywhere.

    Attributes:
        skip: Part of the steps that are left out at the start, in [0, 1].
        source_guidance: Guidance scale with which the noise is found and the source is sampled.
        target_guidance: Guidance scale of targets; None is that of the run.
    """

    sampling: ClassVar[Sampling] = "own"
    own_scale: ClassVar[str] = "target_guidance"
    own_eta: ClassVar[tuple[float, ...]] = (0.0, 1.0)  # its steps are those of eta 1
    skip: Annotated[float, Between(0, 1)] = 0.24
    source_guidance: Annotated[float, AtLeast(0)] = 1.0
    target_guidance: Annotated[float | None, AtLeast(0)] = None

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is out of range.
        """
        check_fields(self, "inversion.")

    @property
    def draws_noise(self) -> bool:
        """The forward samples are drawn from the seed."""
        return True

    def steps_taken(self, steps: int) -> int:
        """See `Inversion.steps_taken`."""
        return steps - part_of(self.skip, steps)

    @torch.no_grad()
    def invert(
        self, model: DiffusionModel, sources: Sources, steps: int, tick: StepProgress = no_tick
    ) -> Sequence[Replay]:
        """See `Inversion.invert`."""
        first = steps - self.steps_taken(steps)
        tick_all(tick, first)
        x_0, ladder = sources.latents, model.ladder(steps)
        x_t = start = self._noised(sources, ladder, first)
        noises, remainder = [], torch.zeros_like(x_0)
        for step in range(first, steps):
            here, there = ladder[step], ladder[step + 1]
            x_prev = self._noised(sources, ladder, step + 1)
            predicted = guided(model, x_t, here, sources.conditioning, self.source_guidance)
            missing = x_prev - ddim_step(predicted, here, there, eta=1.0, noise=torch.zeros_like(x_t))
            sigma = ddim_sigma(here, there)
            noises.append(missing / sigma if sigma > 0 else torch.zeros_like(missing))
            remainder = missing if sigma == 0 else remainder
            x_t = x_prev
            tick()
        rows = (steps - first) * passes(model, self.source_guidance)
        drawn = torch.stack(noises, 1) if noises else x_0.new_empty((len(x_0), 0, *x_0.shape[1:]))
        return [
            EditFriendlyReplay(latents, rows, z, rest, first, self.source_guidance, self.target_guidance)
            for latents, z, rest in zip(start, drawn, remainder, strict=True)
        ]

    def _noised(self, sources: Sources, ladder: Sequence[Level], step: int) -> Float[Tensor, "n c h w"]:
        """x_t before a step, under noise drawn for this step alone; after the last step the image."""
        x_0 = sources.latents
        if step == len(ladder) - 1:
            return x_0
        shape = (x_0.shape[1], x_0.shape[2], x_0.shape[3])
        noise = torch.stack([step_noise(seed, step, shape) for seed in sources.seeds]).to(x_0)
        return ladder[step].noised(x_0, noise)
