"""Negative-prompt inversion (Miyake et al., arXiv 2305.16807): the source prompt instead of the empty one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from p2p_bench.attention.terms import Role
from p2p_bench.fields import AtLeast, check_fields
from p2p_bench.inversion.base import Inversion, Sources, StepProgress, no_tick
from p2p_bench.inversion.ddim import StartReplay, ddim_trajectory, passes
from p2p_bench.models.conditioning import Conditioning, row_of
from p2p_bench.models.model import DiffusionModel
from p2p_bench.models.spec import Capability
from p2p_bench.sampling.replay import Replay


@dataclass(frozen=True, eq=False)
class NegativePromptReplay(StartReplay):
    """Sampling in which guidance leads away from the source prompt.

    Attributes:
        latents: Start latents.
        conditioning: Of the source prompt, a single row.
        rows: UNet rows spent on the start latents.
    """

    conditioning: Conditioning

    def unconditional(self, step: int, role: Role) -> Conditioning:
        """The source prompt's, for all rows."""
        return self.conditioning

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

    needs: ClassVar[frozenset[Capability]] = frozenset({"ladder", "unconditional"})
    guidance: Annotated[float, AtLeast(0)] = 1.0

    def __post_init__(self) -> None:
        """Checks the value.

        Raises:
            ConfigError: The guidance is out of range.
        """
        check_fields(self, "inversion.")

    def invert(
        self, model: DiffusionModel, sources: Sources, steps: int, tick: StepProgress = no_tick
    ) -> Sequence[Replay]:
        """See `Inversion.invert`."""
        pivot = ddim_trajectory(model, sources, steps, self.guidance, tick)
        rows = steps * passes(model, self.guidance)
        return [
            NegativePromptReplay(start, rows, row_of(sources.conditioning, place))
            for place, start in enumerate(pivot[-1])
        ]
