"""Pairs of prompts, with images, masks and exact answers where a data set has them."""

from p2p_bench.data.base import LoadedPair, PairDataset, PairImages, load_pair
from p2p_bench.data.images import fit_image, fit_mask, load_image, load_mask
from p2p_bench.data.jsonl import JsonlPairs
from p2p_bench.data.module import PairDataModule
from p2p_bench.data.pairs import read_pairs
from p2p_bench.data.world import WorldDemo, WorldPairs, WorldReal

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
