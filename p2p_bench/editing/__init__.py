"""Edits: from prompts, images and controllers to results."""

from p2p_bench.editing.attention import AttentionMaps, Record
from p2p_bench.editing.repair import Repair
from p2p_bench.editing.request import EditRequest, Target
from p2p_bench.editing.result import EditResult
from p2p_bench.editing.run import run_edits

__all__ = ["AttentionMaps", "EditRequest", "EditResult", "Record", "Repair", "Target", "run_edits"]
