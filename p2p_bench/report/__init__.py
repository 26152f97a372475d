"""Tables, trade-off plots and galleries, made from the rows of runs alone."""

from p2p_bench.report.joint import write_joint_report
from p2p_bench.report.page import write_report
from p2p_bench.report.terminal import summary_table

__all__ = ["summary_table", "write_joint_report", "write_report"]
