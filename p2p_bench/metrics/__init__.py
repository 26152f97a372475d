"""Scores of edits: one file per metric, each with pure functions and a class that fills columns."""

from p2p_bench.metrics.base import EditView, Metric, MetricColumn, all_columns, evaluate
from p2p_bench.metrics.clip import ClipScore
from p2p_bench.metrics.lpips import Lpips
from p2p_bench.metrics.pixel import PixelScores
from p2p_bench.metrics.reconstruction import Reconstruction
from p2p_bench.metrics.world import WorldAnswer, WorldAttributes

__all__ = [
    "ClipScore",
    "EditView",
    "Lpips",
    "Metric",
    "MetricColumn",
    "PixelScores",
    "Reconstruction",
    "WorldAnswer",
    "WorldAttributes",
    "all_columns",
    "evaluate",
]
