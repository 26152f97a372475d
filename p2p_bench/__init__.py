"""Benchmark of text edits of images in diffusion models.

Example:
    >>> import p2p_bench as p2p
    >>> model = p2p.load_model("world")
    >>> result = p2p.edit(model, "a red circle on grass", ["a blue circle on grass"], p2p.Replace())
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if sys.platform == "darwin":
    # Read when torch is imported: what Apple's device cannot compute yet is computed on the CPU.
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

if TYPE_CHECKING:
    from p2p_bench.app.api import load_model
    from p2p_bench.app.edit import edit
    from p2p_bench.app.generate import generate
    from p2p_bench.app.instruct import instruct
    from p2p_bench.controllers import (
        ByEdit,
        Compose,
        Controller,
        ImageQK,
        InjectWords,
        LocalBlend,
        MasaCtrl,
        NoControl,
        Normalised,
        P2Plus,
        Pix2PixZero,
        PlugAndPlay,
        Ramp,
        Refine,
        Replace,
        Reweight,
        SelfAttention,
        notebook,
        paper,
        pie,
        timetable_image,
    )
    from p2p_bench.editing import EditRequest, EditResult, Record, Repair, Target, run_edits
    from p2p_bench.editing.generated import Generated
    from p2p_bench.errors import (
        ConfigError,
        DataError,
        MissingWeightsError,
        NonFiniteLatentError,
        P2PError,
        PromptError,
    )
    from p2p_bench.inversion import (
        DDIMInversion,
        DirectInversion,
        EDICTInversion,
        EditFriendlyInversion,
        FireFlowInversion,
        FlowEdit,
        FlowODEInversion,
        Inversion,
        NegativePromptInversion,
        NoInversion,
        NoisingInversion,
        NullTextInversion,
        Pix2PixZeroInversion,
        ProximalInversion,
        ReNoiseInversion,
        RFInversion,
        RFSolverInversion,
        StyleDiffusionInversion,
        UniEdit,
        UniInvInversion,
    )
    from p2p_bench.models import DiffusionModel, LocalCheckpoint, ModelSpec, UNetCheckpoint

__all__ = [
    "ByEdit",
    "Compose",
    "ConfigError",
    "Controller",
    "DDIMInversion",
    "DataError",
    "DiffusionModel",
    "DirectInversion",
    "EDICTInversion",
    "EditFriendlyInversion",
    "EditRequest",
    "EditResult",
    "FireFlowInversion",
    "FlowEdit",
    "FlowODEInversion",
    "Generated",
    "ImageQK",
    "InjectWords",
    "Inversion",
    "LocalBlend",
    "LocalCheckpoint",
    "MasaCtrl",
    "MissingWeightsError",
    "ModelSpec",
    "NegativePromptInversion",
    "NoControl",
    "NoInversion",
    "NoisingInversion",
    "NonFiniteLatentError",
    "Normalised",
    "NullTextInversion",
    "P2PError",
    "P2Plus",
    "Pix2PixZero",
    "Pix2PixZeroInversion",
    "PlugAndPlay",
    "PromptError",
    "ProximalInversion",
    "RFInversion",
    "RFSolverInversion",
    "Ramp",
    "ReNoiseInversion",
    "Record",
    "Refine",
    "Repair",
    "Replace",
    "Reweight",
    "SelfAttention",
    "StyleDiffusionInversion",
    "Target",
    "UNetCheckpoint",
    "UniEdit",
    "UniInvInversion",
    "edit",
    "generate",
    "instruct",
    "load_model",
    "notebook",
    "paper",
    "pie",
    "run_edits",
    "timetable_image",
]

_HOMES = {
    "p2p_bench.app.api": ("load_model",),
    "p2p_bench.app.edit": ("edit",),
    "p2p_bench.app.generate": ("generate",),
    "p2p_bench.app.instruct": ("instruct",),
    "p2p_bench.controllers": (
        "ByEdit",
        "Compose",
        "Controller",
        "ImageQK",
        "InjectWords",
        "LocalBlend",
        "MasaCtrl",
        "NoControl",
        "Normalised",
        "P2Plus",
        "Pix2PixZero",
        "PlugAndPlay",
        "Ramp",
        "Refine",
        "Replace",
        "Reweight",
        "SelfAttention",
        "notebook",
        "paper",
        "pie",
        "timetable_image",
    ),
    "p2p_bench.editing": ("EditRequest", "EditResult", "Record", "Repair", "Target", "run_edits"),
    "p2p_bench.editing.generated": ("Generated",),
    "p2p_bench.errors": (
        "ConfigError",
        "DataError",
        "MissingWeightsError",
        "NonFiniteLatentError",
        "P2PError",
        "PromptError",
    ),
    "p2p_bench.inversion": (
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
        "ReNoiseInversion",
        "RFInversion",
        "RFSolverInversion",
        "StyleDiffusionInversion",
        "UniEdit",
        "UniInvInversion",
    ),
    "p2p_bench.models": ("DiffusionModel", "LocalCheckpoint", "ModelSpec", "UNetCheckpoint"),
}
"""Public names by the module that has them; loaded at first use, so that `import p2p_bench` is quick."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("p2p_bench")
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'p2p_bench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
