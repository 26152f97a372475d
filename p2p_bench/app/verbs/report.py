"""`p2p-bench report DIR ...`: a page over one run, or a folder over many."""

import argparse
from pathlib import Path

from p2p_bench.app.console import result_console, status_console
from p2p_bench.app.paths import user_path
from p2p_bench.errors import DataError, ErrorList, P2PError


def main(arguments: list[str], debug: bool) -> int:
    """Writes the report.

    Args:
        arguments: Run directories and `--out`.
        debug: Unused; errors are shown by the caller.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="p2p-bench report",
        description="Writes a report from rows, summaries and pictures: one page over one run, or a folder "
        "over several, whose index.html opens from disk.",
    )
    parser.add_argument("dir", nargs="+", type=user_path, help="directory of a run, or of a sweep")
    parser.add_argument(
        "--out",
        type=user_path,
        help="folder to write; report/ in the given directory. A run alone has its report.html instead",
    )
    options = parser.parse_args(arguments)
    # Told before the report is imported, and torch with it, which takes seconds.
    absent = [DataError(f"{path}: no such directory") for path in options.dir if not path.is_dir()]
    if absent:
        raise ErrorList(absent)
    try:
        page = _written(options)
    except OSError as error:
        raise P2PError(
            f"the report cannot be written ({error}); choose another folder with --out DIR"
        ) from error
    result_console().print(f"report: {page}", markup=False)
    return 0


def _written(options: argparse.Namespace) -> Path:
    """Writes the report, says what it leaves out; its page."""
    from p2p_bench.report import write_folder_report, write_report
    from p2p_bench.report.runs import has_rows

    only = options.dir[0] if len(options.dir) == 1 else None
    if only is not None and options.out is None and has_rows(only):
        return write_report(only)
    report = write_folder_report(options.dir, options.out or (only or Path()) / "report")
    notes = [
        *(f"{notice}." for notice in report.notices),
        *(f"left out: {one.path}: {one.reason}" for one in report.left_out),
    ]
    for note in notes:
        status_console().print(f"warning: {note}", markup=False, style="yellow")
    return report.page
