"""No inversion: the image is not looked at, and the source is sampled from its seed's noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from p2p_bench.inversion.base import Inversion, StepProgress, tick_all
from p2p_bench.models.model import DiffusionModel
from p2p_bench.sampling.replay import Replay, noise_replay


@dataclass(frozen=True)
class NoInversion(Inversion):
    """Plain generation: the reference that ignores the source image."""

    families: ClassVar[tuple[str, ...] | None] = None

    @property
    def draws_noise(self) -> bool:
        """The start is the seed's noise."""
        return True

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
        shape = (model.spec.latent_channels, *model.spec.latent_size)
        tick_all(progress, steps)
        return [noise_replay(seed, shape) for seed in seeds or [0] * len(images)]
