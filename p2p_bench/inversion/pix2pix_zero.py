"""Inversion of pix2pix-zero (Parmar et al., arXiv 2302.03027, section 3.2), and with direct inversion.

Notation:
    pivot        latents from the image (first) to the noise (last)
    epsilon      noise predicted on the way there, drawn toward white noise before a step is taken with it
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from random import Random
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.attention.terms import Role
from p2p_bench.errors import ConfigError
from p2p_bench.fields import AtLeast, check_fields
from p2p_bench.inversion.base import Inversion, Sources, StepProgress, no_tick
from p2p_bench.inversion.ddim import StartReplay, guided, passes
from p2p_bench.inversion.noise_losses import auto_correlation, descended, drawn_shifts, kl_divergence
from p2p_bench.models.conditioning import Conditioning, row_of
from p2p_bench.models.level import Denoised, Level, Prediction
from p2p_bench.models.model import DiffusionModel
from p2p_bench.models.spec import Capability
from p2p_bench.sampling.ddim import ddim_inverse_step
from p2p_bench.sampling.replay import Replay

_PUBLISHED_AREA = 64 * 64
"""Pixels of the latents that the released factors are for."""


@dataclass(frozen=True, eq=False)
class Pix2PixZeroReplay(StartReplay):
    """Sampling away from the source prompt, in which all rows may take the source's offset.

    Attributes:
        latents: Start latents.
        conditioning: Of the prompt that the image was inverted with, a single row.
        pivot: Latents from the image (first) to the start (last); None: no row is put right.
        rows: UNet rows spent on the start latents.
    """

    conditioning: Conditioning
    pivot: Float[Tensor, "p c h w"] | None

    def unconditional(self, step: int, role: Role) -> Conditioning:
        """The prompt's that the image was inverted with, for all rows."""
        return self.conditioning

    def needs_unconditional(self, step: int, role: Role, guidance: float) -> bool:
        """Not the source: both of its predictions are the same, whatever the guidance."""
        return role == "target" and guidance != 1

    def correct(
        self, step: int, roles: tuple[Role, ...], latents: Float[Tensor, "n c h w"], prediction: Prediction
    ) -> Float[Tensor, "n c h w"]:
        """Adds pivot minus source step to every row, if there is a pivot."""
        if self.pivot is None:
            return latents
        pivot = self.pivot[len(self.pivot) - 2 - step].to(latents)
        return latents + (pivot - latents[roles.index("source")])


@dataclass(frozen=True)
class Pix2PixZeroInversion(Inversion):
    """DDIM inversion with a noise drawn toward white noise, then the source prompt as the negative one.

    Each predicted noise takes `num_reg_steps` rounds, each of `num_ac_rolls` gradient steps on its
    auto-correlation, at shifts that are drawn, and one on its KL divergence. These are means over pixels, so
    that the gradient at a pixel is the larger the fewer there are: the factors are those of latents of
    64 x 64, as released, and others take them in proportion to their area.

    The released code inverts, and samples again, with a caption that another model writes; here the source
    prompt, or `inversion_prompt`, takes its place. It samples the VAE's posterior, whose mean is taken here.

    Attributes:
        guidance: Guidance scale of the backward pass. 1 inverts best and needs no unconditional pass.
        lambda_ac: What the gradient of the auto-correlation is multiplied with, over all rolls of a round.
        lambda_kl: What that of the KL divergence is.
        num_reg_steps: Rounds.
        num_ac_rolls: Shifts in a round.
        direct: Add what the source row lacks to the pivot, after every step, to all rows, as direct inversion
            (arXiv 2310.01506) does it in the released script.
        as_released: The path of the released script: the network is asked where a step stands, with latents
            that belong a timestep lower, and led a stride further, the last to the noisiest level. The pivot
            is so a step noisier than the levels that rows are put back at.
        shift_seed: Seed of the shifts, the same for all images, in the released order of draws; None: that
            of the sample. The released script has 1234.
    """

    needs: ClassVar[frozenset[Capability]] = frozenset({"ladder", "unconditional", "noise"})
    guidance: Annotated[float, AtLeast(0)] = 1.0
    lambda_ac: Annotated[float, AtLeast(0)] = 20.0
    lambda_kl: Annotated[float, AtLeast(0)] = 20.0
    num_reg_steps: Annotated[int, AtLeast(0)] = 5
    num_ac_rolls: Annotated[int, AtLeast(1)] = 5
    direct: bool = False
    as_released: bool = False
    shift_seed: Annotated[int | None, AtLeast(0)] = None

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is out of range.
        """
        check_fields(self, "inversion.")

    @property
    def draws_noise(self) -> bool:
        """Only shifts are drawn."""
        return self.shift_seed is None and self.lambda_ac > 0 and self.num_reg_steps > 0

    @torch.no_grad()
    def invert(
        self, model: DiffusionModel, sources: Sources, steps: int, tick: StepProgress = no_tick
    ) -> Sequence[Replay]:
        """See `Inversion.invert`. Works within `torch.inference_mode` too."""
        pivot = [sources.latents]
        seeds = sources.seeds if self.shift_seed is None else [self.shift_seed] * len(sources)
        regularised = partial(self._regularised, generators=[Random(seed) for seed in seeds])
        for asked, there, here in (_released_path if self.as_released else _path)(model, steps):
            x_prev = pivot[-1]
            epsilon = guided(model, x_prev, asked, sources.conditioning, self.guidance).epsilon
            white = Denoised(x_prev, there, regularised(epsilon))
            pivot.append(ddim_inverse_step(x_prev, white, here, there))
            tick()
        rows = steps * passes(model, self.guidance)
        conditioning = [row_of(sources.conditioning, place) for place in range(len(sources))]
        paths = torch.stack(pivot, 1) if self.direct else [None] * len(sources)
        return [
            Pix2PixZeroReplay(start, rows, told, path)
            for start, told, path in zip(pivot[-1], conditioning, paths, strict=True)
        ]

    def _regularised(
        self, epsilon: Float[Tensor, "n c h w"], generators: Sequence[Random]
    ) -> Float[Tensor, "n c h w"]:
        """The predicted noise, drawn toward white noise."""
        channels, height, width = epsilon.shape[1:]
        share = height * width / _PUBLISHED_AREA
        for _ in range(self.num_reg_steps):
            for _ in range(self.num_ac_rolls if self.lambda_ac else 0):
                shifts = drawn_shifts(generators, channels, height)
                loss = partial(auto_correlation, shifts=shifts)
                epsilon = descended(epsilon, loss, share * self.lambda_ac / self.num_ac_rolls)
            if self.lambda_kl:
                epsilon = descended(epsilon, kl_divergence, share * self.lambda_kl)
        return epsilon


Path = list[tuple[Level, Level, Level]]
"""For each step: where the network is asked, the level before the step and that after it."""


def _path(model: DiffusionModel, steps: int) -> Path:
    """DDIM's way back, asked where a step leads, as the other inversions ask."""
    return [(here, there, here) for there, here in pairwise(reversed(model.ladder(steps)))]


def _released_path(model: DiffusionModel, steps: int) -> Path:
    """The way of the released script, see `Pix2PixZeroInversion.as_released`.

    Raises:
        ConfigError: The network is asked between timesteps, where that script has no levels.
    """
    if any(level.timestep % 1 for level in model.ladder(steps)):
        raise ConfigError(
            "inversion.as_released: the released script goes from one timestep to another, but the sampler's "
            "lie between them; set sampler=ddim or sampler.spacing=leading, or inversion.as_released=false"
        )
    train = model.spec.timesteps.train
    every: Callable[[int], Level] = model.laid_out("ddim", "trailing").ladder(train)[:-1][::-1].__getitem__
    path = []
    for asked in reversed(model.ladder(steps)[:-1]):
        t = int(asked.timestep)
        path.append((asked, every(max(0, t - 1)), every(min(t + train // steps, train) - 1)))
    return path
