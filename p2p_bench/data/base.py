"""What a data set is to the benchmark: cheap pairs first, pixels only when asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from p2p_bench.errors import ConfigError, DataError
from p2p_bench.pinned import with_pinned_settings
from p2p_bench.types import EditPair


@dataclass(frozen=True)
class PairImages:
    """The pixels of a pair, all of the size that was asked for.

    Attributes:
        image: Source image, RGB in [0, 1]; None where the source is sampled from noise.
        mask: 1 where the edit may change the image, 0 elsewhere; None where unknown.
        answer: The exact result of the edit, RGB in [0, 1]; None where unknown.
    """

    image: Float[Tensor, "3 h w"] | None = None
    mask: Float[Tensor, "h w"] | None = None
    answer: Float[Tensor, "3 h w"] | None = None


@dataclass(frozen=True)
class LoadedPair:
    """A pair with its pixels, or with the reason why it has none.

    Attributes:
        pair: The pair.
        image: As in `PairImages`.
        mask: As in `PairImages`.
        answer: As in `PairImages`.
        error: Why the pair could not be loaded; None if it could.
    """

    pair: EditPair
    image: Float[Tensor, "3 h w"] | None = None
    mask: Float[Tensor, "h w"] | None = None
    answer: Float[Tensor, "3 h w"] | None = None
    error: str | None = None


@runtime_checkable
class PairDataset(Protocol):
    """A source of pairs. An instance holds settings only; nothing is read before `pairs` is called."""

    @property
    def name(self) -> str:
        """Short name that appears in results."""
        ...

    def pairs(self) -> list[EditPair]:
        """All pairs in a fixed order, without touching a pixel.

        Raises:
            P2PError: The data set cannot be read; every fault is listed.
        """
        ...

    def load(self, pair: EditPair, size: tuple[int, int]) -> PairImages:
        """The pixels of one of its pairs.

        Args:
            pair: One of `pairs()`.
            size: Height and width that the model works at.

        Raises:
            DataError: An image or a mask cannot be used.
        """
        ...


@with_pinned_settings
def load_pair(dataset: PairDataset, pair: EditPair, size: tuple[int, int]) -> LoadedPair:
    """Loads a pair; unusable pixels become its `error`, so that one bad file does not stop a run."""
    try:
        pixels = dataset.load(pair, size)
    except DataError as error:
        return LoadedPair(pair, error=str(error))
    return LoadedPair(pair, pixels.image, pixels.mask, pixels.answer)


def take(pairs: Sequence[EditPair], limit: int | None) -> list[EditPair]:
    """The first `limit` pairs; all of them if `limit` is None.

    Raises:
        ConfigError: `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"dataset.limit: expected at least 1, or null for all pairs, got {limit}")
    return list(pairs[:limit])
