"""Text-to-image models: what is known of them, their tokenizer, their weights, as separate steps.

Names are loaded at first use, so that what a checkpoint's files say can be read without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2p_bench.models.checkpoint import UNetCheckpoint
    from p2p_bench.models.deepfloyd_checkpoint import DeepFloydCheckpoint
    from p2p_bench.models.flux_checkpoint import FluxCheckpoint
    from p2p_bench.models.local import LocalCheckpoint
    from p2p_bench.models.model import Checkpoint, DiffusionModel
    from p2p_bench.models.schedule import NoiseSchedule
    from p2p_bench.models.sd3_checkpoint import SD3Checkpoint
    from p2p_bench.models.spec import ModelSpec
    from p2p_bench.models.world import world_checkpoint
    from p2p_bench.models.world_flow import world_flow_checkpoint

__all__ = [
    "Checkpoint",
    "DeepFloydCheckpoint",
    "DiffusionModel",
    "FluxCheckpoint",
    "LocalCheckpoint",
    "ModelSpec",
    "NoiseSchedule",
    "SD3Checkpoint",
    "UNetCheckpoint",
    "world_checkpoint",
    "world_flow_checkpoint",
]

_HOMES = {
    "Checkpoint": "model",
    "DeepFloydCheckpoint": "deepfloyd_checkpoint",
    "DiffusionModel": "model",
    "FluxCheckpoint": "flux_checkpoint",
    "LocalCheckpoint": "local",
    "ModelSpec": "spec",
    "NoiseSchedule": "schedule",
    "SD3Checkpoint": "sd3_checkpoint",
    "UNetCheckpoint": "checkpoint",
    "world_checkpoint": "world",
    "world_flow_checkpoint": "world_flow",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"p2p_bench.models.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'p2p_bench.models' has no attribute {name!r}")
