"""Inversions of real images: one file per method, each leaves a `Replay`."""

from p2p_bench.inversion.base import Inversion
from p2p_bench.inversion.ddim import DDIMInversion
from p2p_bench.inversion.direct import DirectInversion
from p2p_bench.inversion.edit_friendly import EditFriendlyInversion
from p2p_bench.inversion.negative_prompt import NegativePromptInversion
from p2p_bench.inversion.noising import NoisingInversion
from p2p_bench.inversion.none import NoInversion
from p2p_bench.inversion.proximal import ProximalInversion

__all__ = [
    "DDIMInversion",
    "DirectInversion",
    "EditFriendlyInversion",
    "Inversion",
    "NegativePromptInversion",
    "NoInversion",
    "NoisingInversion",
    "ProximalInversion",
]
