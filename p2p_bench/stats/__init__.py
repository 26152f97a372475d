"""Statistics of benchmarks: intervals by source scene, paired tests, fronts and areas."""

from p2p_bench.stats.means import Mean, draw_groups, mean_interval, median, ratio_interval
from p2p_bench.stats.paired import Paired, compare_paired, holm
from p2p_bench.stats.pareto import area_interval, area_under_front, hypervolume, pareto_front

__all__ = [
    "Mean",
    "Paired",
    "area_interval",
    "area_under_front",
    "compare_paired",
    "draw_groups",
    "holm",
    "hypervolume",
    "mean_interval",
    "median",
    "pareto_front",
    "ratio_interval",
]
