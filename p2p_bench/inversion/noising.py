"""Noising (SDEdit, Meng et al., arXiv 2108.01073): the image under some noise, sampled on from there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from jaxtyping import Float
from torch import Tensor

from p2p_bench.fields import Between, check_fields
from p2p_bench.inversion.base import (
    Inversion,
    Sampling,
    Sources,
    StepProgress,
    no_tick,
    tick_all,
)
from p2p_bench.models.model import DiffusionModel
from p2p_bench.sampling.noise import initial_noise, step_noise
from p2p_bench.sampling.replay import Replay
from p2p_bench.tau import part_of


@dataclass(frozen=True, eq=False)
class NoisedReplay(Replay):
    """Plain sampling that starts at a later step, from an image under noise.

    Attributes:
        latents: Latents of the image with the noise of the first step.
        first: The first step taken.
        seed: Seed of the sample, from which the noise of stochastic steps comes.
    """

    latents: Float[Tensor, "c h w"]
    first: int
    seed: int

    @property
    def start(self) -> tuple[Float[Tensor, "c h w"], ...]:
        """The noised latents."""
        return (self.latents,)

    @property
    def first_step(self) -> int:
        """The step whose noise the image was given."""
        return self.first

    def noise(self, step: int) -> Float[Tensor, "c h w"]:
        """A function of the sample's seed and the step."""
        shape = self.latents.shape
        return step_noise(self.seed, step, (shape[0], shape[1], shape[2]))


@dataclass(frozen=True)
class NoisingInversion(Inversion):
    """Gives the image noise and lets the model take it off again; no pass of the network.

    The source image is not rebuilt: the more noise, the more of it is lost, and the more an edit can change.

    Attributes:
        strength: Part of the steps that are taken, in [0, 1]; 0 leaves the image, which no run takes for an
            edit; 1 starts from what is nearly pure noise. The paper's range is 0.5 to 0.8.
    """

    sampling: ClassVar[Sampling] = "any"
    strength: Annotated[float, Between(0, 1)] = 0.8

    def __post_init__(self) -> None:
        """Checks the value.

        Raises:
            ConfigError: The strength is out of range.
        """
        check_fields(self, "inversion.")

    @property
    def draws_noise(self) -> bool:
        """The noise is the seed's."""
        return True

    def steps_taken(self, steps: int) -> int:
        """See `Inversion.steps_taken`."""
        return part_of(self.strength, steps)

    def invert(
        self, model: DiffusionModel, sources: Sources, steps: int, tick: StepProgress = no_tick
    ) -> Sequence[Replay]:
        """See `Inversion.invert`."""
        first = steps - self.steps_taken(steps)
        noised = []
        for x_0, seed in zip(sources.latents, sources.seeds, strict=True):
            if first < steps:
                noise = initial_noise(seed, (x_0.shape[0], x_0.shape[1], x_0.shape[2])).to(x_0)
                x_0 = model.ladder(steps)[first].noised(x_0, noise)
            noised.append(NoisedReplay(x_0, first, seed))
        tick_all(tick, steps)
        return noised
