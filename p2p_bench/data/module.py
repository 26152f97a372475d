"""Hands pairs to a Lightning trainer."""

from collections.abc import Sequence

from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from p2p_bench.data.base import LoadedPair, PairDataset, load_pair
from p2p_bench.errors import ConfigError
from p2p_bench.types import EditPair


class _LoadedPairs(Dataset[LoadedPair]):
    def __init__(self, dataset: PairDataset, pairs: Sequence[EditPair], size: tuple[int, int]) -> None:
        self.dataset = dataset
        self.pairs = pairs
        self.size = size

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> LoadedPair:
        return load_pair(self.dataset, self.pairs[index], self.size)


class PairDataModule(LightningDataModule):
    """Batches of pairs, in the data set's order, loaded in the process that edits them.

    Args:
        dataset: Where pairs and pixels come from.
        batch_size: Pairs in a batch; the last batch may be smaller.
        size: Height and width of the model.
        pairs: The pairs to hand out, in this order, such as those a run still misses; None takes all.

    Raises:
        ConfigError: `batch_size` is below 1.
    """

    def __init__(
        self,
        dataset: PairDataset,
        batch_size: int,
        size: tuple[int, int],
        pairs: Sequence[EditPair] | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ConfigError(f"batch_size: expected at least 1, got {batch_size}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.size = size
        self.pairs = list(dataset.pairs() if pairs is None else pairs)

    def test_dataloader(self) -> DataLoader[LoadedPair]:
        """Batches as lists of `LoadedPair`, each pair once, none dropped."""
        return DataLoader(
            _LoadedPairs(self.dataset, self.pairs, self.size),
            batch_size=self.batch_size,
            shuffle=False,
            num_workers=0,
            collate_fn=list,
        )
