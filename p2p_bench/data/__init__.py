"""Pairs of prompts, with images, masks and exact answers where a data set has them."""

from typing import TYPE_CHECKING, Any

from p2p_bench.data.base import LoadedPair, PairDataset, PairImages, load_pair
from p2p_bench.data.images import fit_image, fit_mask, load_image, load_mask
from p2p_bench.data.jsonl import JsonlPairs
from p2p_bench.data.pairs import read_pairs
from p2p_bench.data.world import WorldDemo, WorldPairs, WorldReal

if TYPE_CHECKING:
    from p2p_bench.data.module import PairDataModule

__all__ = [
    "JsonlPairs",
    "LoadedPair",
    "PairDataModule",
    "PairDataset",
    "PairImages",
    "WorldDemo",
    "WorldPairs",
    "WorldReal",
    "fit_image",
    "fit_mask",
    "load_image",
    "load_mask",
    "load_pair",
    "read_pairs",
]


def __getattr__(name: str) -> Any:
    if name == "PairDataModule":  # Lightning takes a second to import, and one edit has no use for it
        from p2p_bench.data.module import PairDataModule

        return PairDataModule
    raise AttributeError(f"module 'p2p_bench.data' has no attribute {name!r}")
