"""Inversions of real images: one file per method, each leaves a `Replay`."""

from p2p_bench.inversion.base import Inversion
from p2p_bench.inversion.ddim import DDIMInversion
from p2p_bench.inversion.direct import DirectInversion
from p2p_bench.inversion.edict import EDICTInversion
from p2p_bench.inversion.edit_friendly import EditFriendlyInversion
from p2p_bench.inversion.fireflow import FireFlowInversion
from p2p_bench.inversion.flow_ode import FlowODEInversion
from p2p_bench.inversion.flowedit import FlowEdit
from p2p_bench.inversion.negative_prompt import NegativePromptInversion
from p2p_bench.inversion.noising import NoisingInversion
from p2p_bench.inversion.none import NoInversion
from p2p_bench.inversion.null_text import NullTextInversion
from p2p_bench.inversion.pix2pix_zero import Pix2PixZeroInversion
from p2p_bench.inversion.proximal import ProximalInversion
from p2p_bench.inversion.renoise import ReNoiseInversion
from p2p_bench.inversion.rf_inversion import RFInversion
from p2p_bench.inversion.rf_solver import RFSolverInversion
from p2p_bench.inversion.style_diffusion import StyleDiffusionInversion
from p2p_bench.inversion.uni_edit import UniEdit
from p2p_bench.inversion.uni_inv import UniInvInversion

__all__ = [
    "DDIMInversion",
    "DirectInversion",
    "EDICTInversion",
    "EditFriendlyInversion",
    "FireFlowInversion",
    "FlowEdit",
    "FlowODEInversion",
    "Inversion",
    "NegativePromptInversion",
    "NoInversion",
    "NoisingInversion",
    "NullTextInversion",
    "Pix2PixZeroInversion",
    "ProximalInversion",
    "RFInversion",
    "RFSolverInversion",
    "ReNoiseInversion",
    "StyleDiffusionInversion",
    "UniEdit",
    "UniInvInversion",
]
