"""No inversion: the image is not looked at, and the source is sampled from its seed's noise."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from p2p_bench.inversion.base import Inversion, StepProgress
from p2p_bench.models.model import DiffusionModel
from p2p_bench.sampling.replay import Replay, noise_replay


@dataclass(frozen=True)
class NoInversion(Inversion):
    """Plain generation: the reference that ignores the source image."""

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
        if progress is not None:
            for _ in range(steps):
                progress()
        return [noise_replay(seed, shape) for seed in seeds or [0] * len(images)]
