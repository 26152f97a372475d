"""Training of the embedded world; the work is in `stages`."""

from p2p_bench.world.training.export import verify_manifest
from p2p_bench.world.training.stages import STAGES, WorldRecipe, train_world

__all__ = ["STAGES", "WorldRecipe", "train_world", "verify_manifest"]
