"""Negative-prompt inversion (Miyake et al., arXiv 2305.16807): the source prompt instead of the empty one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from jaxtyping import Float
from torch import Tensor

from p2p_bench.attention.terms import Role
from p2p_bench.fields import AtLeast, check_fields
from p2p_bench.inversion.base import Inversion, StepProgress
from p2p_bench.inversion.ddim import StartReplay, ddim_trajectory
from p2p_bench.models.model import DiffusionModel
from p2p_bench.sampling.replay import Replay


@dataclass(frozen=True, eq=False)
class NegativePromptReplay(StartReplay):
    """Sampling in which guidance leads away from the source prompt.

    Attributes:
        latents: Start latents.
        embedding: Text embedding of the source prompt.
        rows: UNet rows spent on the start latents.
    """

    embedding: Float[Tensor, "l d"]

    def unconditional(self, step: int, role: Role) -> Float[Tensor, "l d"]:
        """The source prompt's embedding, for all rows."""
        return self.embedding

    def needs_unconditional(self, step: int, role: Role, guidance: float) -> bool:
        """Not the source: both of its predictions are the same, whatever the guidance.

        A source that was inverted with another prompt than its own is so sampled at guidance 1, too.
        """
        return role == "target" and guidance != 1


@dataclass(frozen=True)
class NegativePromptInversion(Inversion):
    """DDIM inversion, then sampling with the source prompt as the negative prompt.

    The source row then samples as at guidance 1, where DDIM inversion is at its best; nothing is optimised.

    Attributes:
        guidance: Guidance scale of the backward pass. 1 inverts best and needs no unconditional pass.
    """

    guidance: Annotated[float, AtLeast(0)] = 1.0

    def __post_init__(self) -> None:
        """Checks the value.

        Raises:
            ConfigError: The guidance is out of range.
        """
        check_fields(self, "inversion.")

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
        latents = model.encode_images(images)
        embeddings = model.encode_prompts(prompts, truncate=truncate)
        pivot = ddim_trajectory(model, latents, embeddings, steps, self.guidance, progress)
        rows = steps * (1 if self.guidance == 1 else 2)
        return [
            NegativePromptReplay(start, rows, embedding)
            for start, embedding in zip(pivot[-1], embeddings, strict=True)
        ]
