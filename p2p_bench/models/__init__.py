"""Text-to-image models: what is known of them, their tokenizer, their weights, as separate steps."""

from p2p_bench.models.checkpoint import UNetCheckpoint
from p2p_bench.models.model import Checkpoint, DiffusionModel
from p2p_bench.models.schedule import NoiseSchedule
from p2p_bench.models.spec import ModelSpec
from p2p_bench.models.world import world_checkpoint

__all__ = ["Checkpoint", "DiffusionModel", "ModelSpec", "NoiseSchedule", "UNetCheckpoint", "world_checkpoint"]
