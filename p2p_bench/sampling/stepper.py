"""One step of a sampler, as a function of row state."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from p2p_bench.models.level import Denoised, Level, Prediction
from p2p_bench.models.timesteps import LevelKind

RowState = tuple[Tensor, ...]
"""State of the rows of a batch: the latents first, then whatever a stepper keeps; each tensor has a
leading row axis, so rows are selected and forked by `index_select`."""


@dataclass(frozen=True)
class StepContext:
    """What a stepper may know of the step it takes.

    Attributes:
        step: Index from 0.
        steps: Number of steps of the run.
        sources: For each row the row that is its source; a source's is itself.
        predict: The guided and edited prediction for latents of the same rows at a level; every call is a
            pass of the network.
        noise: Noise of this step for every row; None where the stepper is not stochastic.
        before: The level before `here`; None at the first step that is taken.
        predict_as_sources: The guided prediction for latents of the same rows by the prompts of their
            sources, without any edit; of the targets' rows alone, in their order. None where nobody offers
            it.
    """

    step: int
    steps: int
    sources: Int64[Tensor, " n"]
    predict: Callable[[Float[Tensor, "n c h w"], Level], Prediction]
    noise: Float[Tensor, "n c h w"] | None
    before: Level | None = None
    predict_as_sources: Callable[[Float[Tensor, "n c h w"], Level], Denoised] | None = None

    def by_sources(
        self, own: Float[Tensor, "n c h w"], x: Float[Tensor, "n c h w"], level: Level
    ) -> Float[Tensor, "n c h w"]:
        """Velocities by the prompts of the rows' sources; a source's is its own, which is known.

        Args:
            own: Velocities by the rows' own prompts.
            x: The latents that they were asked for at.
            level: Their level.
        """
        assert self.predict_as_sources is not None
        rows = torch.arange(len(own), device=own.device)
        targets = (self.sources != rows).nonzero().flatten()
        if not len(targets):
            return own
        return own.index_copy(0, targets, self.predict_as_sources(x, level).velocity)


class Stepper(ABC):
    """A sampler's step. Implementations are frozen dataclasses: rows of equal steppers share batches."""

    @property
    def stochastic(self) -> bool:
        """Whether `step` wants noise."""
        return False

    @property
    def levels(self) -> LevelKind:
        """Whose noise levels it steps along."""
        return "ddim"

    @property
    def leads_back(self) -> bool:
        """Whether inversions can walk it backward: a step is DDIM's without noise, on whatever levels."""
        return False

    def init(self, start: RowState) -> RowState:
        """The state before the first step: what a replay starts with, and what the stepper keeps besides.

        It is made before any row is forked; a row of it is a function of that row of the start.
        """
        return start

    @abstractmethod
    def step(self, state: RowState, here: Level, there: Level, context: StepContext) -> RowState:
        """Takes the rows from a level to the next, less noisy one; does not change `state`."""


def select_rows(state: RowState, rows: Tensor) -> RowState:
    """The state of some rows, by index, in the given order."""
    return tuple(part.index_select(0, rows) for part in state)
