"""`p2p-bench report DIR ...`: one page over finished runs."""

import argparse
from pathlib import Path

from p2p_bench.app.console import result_console


def main(arguments: list[str], debug: bool) -> int:
    """Writes the page.

    Args:
        arguments: Run directories and `--out`.
        debug: Unused; errors are shown by the caller.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="p2p-bench report",
        description="Writes one page over finished runs, from their rows, summaries and pictures.",
    )
    parser.add_argument("dir", nargs="+", type=Path, help="directory of a run, or of a sweep")
    parser.add_argument("--out", type=Path, help="file to write; report.html in the given directory")
    options = parser.parse_args(arguments)

    from p2p_bench.report import write_joint_report, write_report
    from p2p_bench.report.runs import has_rows

    only = options.dir[0] if len(options.dir) == 1 else None
    if only is not None and options.out is None and has_rows(only):
        page = write_report(only)
    else:
        page = write_joint_report(options.dir, options.out or (only or Path()) / "report.html")
    result_console().print(f"report: {page}", markup=False)
    return 0
