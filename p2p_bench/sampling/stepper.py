"""One step of a sampler, as a function of row state."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from p2p_bench.models.schedule import NoiseSchedule

RowState = tuple[Tensor, ...]
"""State of the rows of a batch: the latents first, then whatever a stepper keeps; each tensor has a
leading row axis, so rows are selected and forked by `index_select`."""


@dataclass(frozen=True)
class StepContext:
    """What a stepper may know of the step it takes.

    Attributes:
        step: Index from 0.
        steps: Number of steps of the run.
        timestep: Timestep of the rows before the step.
        previous: Timestep after it; negative: the clean end.
        schedule: Noise levels.
        epsilon: Noise predicted in latents at `timestep`, guided and edited; may be called with any
            latents of the same rows, and every call is a pass of the network.
        noise: Noise of this step for every row; None where the stepper is not stochastic.
    """

    step: int
    steps: int
    timestep: int
    previous: int
    schedule: NoiseSchedule
    epsilon: Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n c h w"]]
    noise: Float[Tensor, "n c h w"] | None


class Stepper(ABC):
    """A sampler's step. Implementations are frozen dataclasses: rows of equal steppers share batches."""

    @property
    @abstractmethod
    def stochastic(self) -> bool:
        """Whether `step` wants noise."""

    @abstractmethod
    def step(self, state: RowState, context: StepContext) -> RowState:
        """Takes the rows from `context.timestep` to `context.previous`; does not change `state`."""


def select_rows(state: RowState, rows: Tensor) -> RowState:
    """The state of some rows, by index, in the given order."""
    return tuple(part.index_select(0, rows) for part in state)
