"""The interface of inversions."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

from p2p_bench.models.model import DiffusionModel
from p2p_bench.sampling.replay import Replay

StepProgress = Callable[[], None]
"""Called once after each step of the run's length."""


class Inversion(ABC):
    """Finds how a model can sample a given image.

    Implementations are frozen dataclasses: images of requests with equal inversions share a batch.
    """

    def for_guidance(self, guidance: float) -> "Inversion":
        """This method for requests that are sampled at a guidance scale: itself, unless it depends on that."""
        return self

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
