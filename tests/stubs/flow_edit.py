"""FlowEdit (Kulikov et al., arXiv 2412.08629) in short: a step that looks at the source's row."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from p2p_bench.inversion.base import Inversion, Sources, StepProgress, no_tick, tick_all
from p2p_bench.models.level import Level
from p2p_bench.models.model import DiffusionModel
from p2p_bench.sampling import NoiseReplay, Replay, RowState, StepContext, Stepper


@dataclass(frozen=True)
class FlowEditStepper(Stepper):
    """Every row starts at the image; the source's stays there, targets move by their difference from it."""

    stochastic = True  # type: ignore[assignment]  # a constant

    def step(self, state: RowState, here: Level, there: Level, context: StepContext) -> RowState:
        (latents,) = state
        image = latents.index_select(0, context.sources)
        noisy = here.noised(image, context.noise) + latents - image
        predicted = context.predict(noisy, here)
        velocity = predicted.epsilon - predicted.x_0
        moved = velocity - velocity.index_select(0, context.sources)
        return (latents + (there.sigma - here.sigma) * moved,)


@dataclass(frozen=True, eq=False)
class FlowEditReplay(NoiseReplay):
    """Starts at the image; the noise of a step is the seed's."""

    def stepper(self) -> Stepper:
        return FlowEditStepper()


@dataclass(frozen=True)
class FlowEdit(Inversion):
    """Takes the image as it is."""

    needs = frozenset()

    @property
    def draws_noise(self) -> bool:
        return True

    def invert(
        self, model: DiffusionModel, sources: Sources, steps: int, tick: StepProgress = no_tick
    ) -> Sequence[Replay]:
        tick_all(tick, steps)
        latents: Tensor = sources.latents
        return [FlowEditReplay(one, seed) for one, seed in zip(latents, sources.seeds, strict=True)]
