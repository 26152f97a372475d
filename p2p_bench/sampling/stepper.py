"""One step of a sampler, as a function of row state."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor

from p2p_bench.models.level import Level, Prediction
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
    """

    step: int
    steps: int
    sources: Int64[Tensor, " n"]
    predict: Callable[[Float[Tensor, "n c h w"], Level], Prediction]
    noise: Float[Tensor, "n c h w"] | None
    before: Level | None = None


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
