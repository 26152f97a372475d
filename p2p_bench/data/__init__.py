"""Pairs of prompts, with images, masks and exact answers where a data set has them.

Names are loaded at first use, so that a file can be looked for without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2p_bench.data.base import LoadedPair, PairDataset, PairImages, load_pair
    from p2p_bench.data.batches import pair_batches
    from p2p_bench.data.images import fit_image, fit_mask, load_image, load_mask
    from p2p_bench.data.jsonl import JsonlPairs
    from p2p_bench.data.pairs import read_pairs
    from p2p_bench.data.world import WorldDemo, WorldPairs, WorldReal

__all__ = [
    "JsonlPairs",
    "LoadedPair",
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
    "pair_batches",
    "read_pairs",
]

_HOMES = {
    "base": ("LoadedPair", "PairDataset", "PairImages", "load_pair"),
    "images": ("fit_image", "fit_mask", "load_image", "load_mask"),
    "jsonl": ("JsonlPairs",),
    "batches": ("pair_batches",),
    "pairs": ("read_pairs",),
    "world": ("WorldDemo", "WorldPairs", "WorldReal"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"p2p_bench.data.{module}"), name)
    raise AttributeError(f"module 'p2p_bench.data' has no attribute {name!r}")
