"""No inversion: the image is not looked at, and the source is sampled from its seed's noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from p2p_bench.inversion.base import Inversion, Sampling, Sources, StepProgress, no_tick, tick_all
from p2p_bench.models.model import DiffusionModel
from p2p_bench.models.spec import Capability
from p2p_bench.sampling.replay import Replay, noise_replay


@dataclass(frozen=True)
class NoInversion(Inversion):
    """Plain generation: the reference that ignores the source image."""

    needs: ClassVar[frozenset[Capability]] = frozenset()
    sampling: ClassVar[Sampling] = "any"

    @property
    def draws_noise(self) -> bool:
        """The start is the seed's noise."""
        return True

    def invert(
        self, model: DiffusionModel, sources: Sources, steps: int, tick: StepProgress = no_tick
    ) -> Sequence[Replay]:
        """See `Inversion.invert`."""
        tick_all(tick, steps)
        return [noise_replay(model, seed, steps) for seed in sources.seeds]
