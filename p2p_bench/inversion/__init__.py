"""Inversions of real images: one file per method, each leaves a `Replay`."""

from p2p_bench.inversion.base import Inversion
from p2p_bench.inversion.ddim import DDIMInversion
from p2p_bench.inversion.none import NoInversion

__all__ = ["DDIMInversion", "Inversion", "NoInversion"]
