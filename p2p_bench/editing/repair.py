"""Mask-based repair (Hertz et al., arXiv 2208.01626, section 4.3): the source's pixels outside a mask.

An inversion that distorts the image spoils parts that no edit was meant to touch. The paper takes a mask of
the edited words from the attention maps and puts the original back everywhere else. This is what can be asked
for; `mending` does it.
"""

from dataclasses import dataclass
from typing import Annotated

from jaxtyping import Float
from torch import Tensor

from p2p_bench.errors import ConfigError
from p2p_bench.fields import Between, Odd, check_fields
from p2p_bench.types import Feather


@dataclass(frozen=True, eq=False)
class Repair:
    """What of an edited image is kept; everything else comes from the source image, pixel by pixel.

    Attributes:
        words: Words whose attention makes the mask, each looked for in the source and in the target; None
            takes those that change.
        mask: A given mask in place of words: 1 where the edit is kept.
        threshold: Share of a map's maximum above which a position belongs to the mask, in [0, 1).
        pool: Side of the max-pooling of the maps, odd; 1 pools nothing.
        feather: Standard deviation in pixels of the Gaussian that softens the mask's edge; 0 keeps it hard.
    """

    words: tuple[str, ...] | None = None
    mask: Float[Tensor, "h w"] | None = None
    threshold: Annotated[float, Between(0, 1, open_high=True)] = 0.3
    pool: Annotated[int, Odd(1)] = 3
    feather: Feather = 0.0

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is out of range, or both a mask and words are given.
        """
        check_fields(self, "repair.")
        if self.words is not None and self.mask is not None:
            raise ConfigError("repair: expected words or a mask, got both")

    @property
    def records(self) -> bool:
        """Whether it needs recorded attention."""
        return self.mask is None
