"""The interface of inversions."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from p2p_bench.errors import ConfigError
from p2p_bench.models.model import DiffusionModel
from p2p_bench.models.spec import ModelSpec
from p2p_bench.sampling.replay import Replay

StepProgress = Callable[[], None]
"""Called once after each step of the run's length."""


class Inversion(ABC):
    """Finds how a model can sample a given image.

    Implementations are frozen dataclasses: images of requests with equal inversions share a batch. So are
    their replays, of tensors, plain values and other frozen dataclasses, so that a cache can keep them.

    Attributes:
        families: Kinds of model that the method can serve; None: any.
        needs: What it needs of a model, for the message to a user whose model lacks it.
    """

    families: ClassVar[tuple[str, ...] | None] = ("sd",)
    needs: ClassVar[str] = "noise levels that DDIM can run along"

    @property
    def draws_noise(self) -> bool:
        """Whether a replay depends on the sample's seed."""
        return False

    def for_guidance(self, guidance: float) -> "Inversion":
        """This method for requests sampled at a guidance scale: itself, unless it depends on that."""
        return self

    def for_model(self, spec: ModelSpec) -> "Inversion":
        """This method for a model: itself, unless the model settles something that was left open."""
        return self

    def steps_taken(self, steps: int) -> int:
        """Of a run's steps, those that are taken again from what the method finds."""
        return steps

    @abstractmethod
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
        """Inverts images.

        Args:
            model: The model that will sample them again.
            images: In [0, 1], of the model's size.
            prompts: What each image shows.
            steps: Number of denoising steps of the run.
            seeds: Seed of each sample, for methods that draw noise; None: 0 for all.
            truncate: Cut prompts that are too long instead of refusing them.
            progress: Called after each of `steps` steps.

        Returns:
            One replay per image.
        """


def unserved(inversion: Inversion, spec: ModelSpec) -> ConfigError | None:
    """Why a method cannot serve a model, and which it can; None if it can."""
    if inversion.families is None or spec.family in inversion.families:
        return None
    return ConfigError(
        f"inversion: {type(inversion).__name__} needs {inversion.needs}, which model {spec.name!r} of family "
        f"{spec.family!r} does not have; it serves models of family {', '.join(inversion.families)}"
    )


def no_step_left(inversion: Inversion, steps: int) -> ConfigError | None:
    """Why a method leaves no edit of a run of so many steps; None if it leaves one."""
    if inversion.steps_taken(steps) > 0:
        return None
    return ConfigError(
        f"inversion: {inversion} takes none of the {steps} steps, so that every edit is the image itself; "
        "take more steps, a higher strength or a lower skip"
    )


def part_of(fraction: float, steps: int) -> int:
    """Number of steps in a fraction of a run, cut to a whole number as published code does.

    Args:
        fraction: In [0, 1].
        steps: Number of steps of the run.
    """
    # A fraction such as 0.29 of 100 steps must not lose a step to rounding.
    return int(fraction * steps + 1e-9)


def tick_all(progress: StepProgress | None, count: int) -> None:
    """Reports steps that a method does not take."""
    for _ in range(count if progress is not None else 0):
        assert progress is not None
        progress()
