"""Hands pairs to a Lightning trainer."""

from collections.abc import Sequence
from typing import Any

from torch.utils.data import DataLoader

from p2p_bench.data.base import LoadedPair, PairDataset, load_pair
from p2p_bench.errors import ConfigError
from p2p_bench.types import EditPair


def pair_batches(
    dataset: PairDataset, pairs: Sequence[EditPair], batch_size: int, size: tuple[int, int]
) -> DataLoader[Any]:
    """Batches of pairs, in their order, loaded in the process that edits them: lists of `LoadedPair`.

    Args:
        dataset: Where their pixels come from.
        pairs: The pairs to hand out, each once, such as those a run still misses.
        batch_size: Pairs in a batch; the last batch may be smaller.
        size: Height and width of the model.

    Raises:
        ConfigError: `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size: expected at least 1, got {batch_size}")

    def loaded(batch: Sequence[EditPair]) -> list[LoadedPair]:
        return [load_pair(dataset, pair, size) for pair in batch]

    # A list is a data set to torch.
    return DataLoader(
        list(pairs),  # type: ignore[arg-type]  # any sequence serves as a data set
        batch_size,
        shuffle=False,
        num_workers=0,
        collate_fn=loaded,
    )
