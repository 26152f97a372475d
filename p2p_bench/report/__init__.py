"""Tables, trade-off plots and galleries, made from the rows of runs alone."""

from p2p_bench.report.folder import FolderReport, write_folder_report
from p2p_bench.report.page import write_report
from p2p_bench.report.terminal import summary_table

__all__ = ["FolderReport", "summary_table", "write_folder_report", "write_report"]
