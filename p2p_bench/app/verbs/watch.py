"""`p2p-bench watch DIR`: how far a run or a sweep is."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from p2p_bench.app.console import result_console
from p2p_bench.app.paths import user_path
from p2p_bench.errors import ConfigError, DataError
from p2p_bench.report.live import LiveRun, Snapshot, live_paths
from p2p_bench.report.live_page import write_live_page
from p2p_bench.report.terminal import summary_table

_REASONS = 3


def main(arguments: list[str], debug: bool) -> int:
    """Shows progress, rate, failures, the time left and the means so far.

    Args:
        arguments: The directory and options.
        debug: Unused; errors are shown by the caller.

    Returns:
        The exit code: 0 once nothing goes on any more, or after one look.

    Raises:
        DataError: There is no run in the directory.
    """
    parser = argparse.ArgumentParser(
        prog="p2p-bench watch",
        description="Shows how far a run or a sweep is, from its files alone: progress, rate, failures, time "
        "left and means so far. Ends when the run does; Ctrl-C ends the watching, not the run.",
    )
    parser.add_argument("dir", type=user_path, help="directory of a run, or of a sweep")
    parser.add_argument("--once", action="store_true", help="look once and leave")
    parser.add_argument("--every", type=float, default=2.0, metavar="S", help="seconds between two looks; 2")
    parser.add_argument(
        "--page", type=user_path, metavar="FILE", help="write an HTML page too, which reloads"
    )
    options = parser.parse_args(arguments)
    if not options.dir.is_dir():
        raise DataError(f"{options.dir}: there is no such directory")
    if not 0.1 <= options.every < float("inf"):
        raise ConfigError(f"--every: expected at least 0.1 seconds, got {options.every}")
    console = result_console()
    watch = _Watch(options.dir, options.page, options.every)
    try:
        if options.once or not console.is_terminal:
            _lines(watch, options.once)
        else:
            _screen(console, watch)
    except KeyboardInterrupt:  # whoever watches has seen enough; the run goes on
        return 0
    return 0


class _Watch:
    """The runs of a directory, looked at again and again; a sweep's appear as they begin."""

    def __init__(self, directory: Path, page: Path | None, every: float) -> None:
        self.directory = directory
        self.page = page
        self.every = every
        self.runs: dict[Path, LiveRun] = {}

    def look(self) -> list[Snapshot]:
        """How far they are; writes the page."""
        self.runs = {path: self.runs.get(path) or LiveRun(path) for path in live_paths(self.directory)}
        found = [run.look() for run in self.runs.values()]
        if self.page is not None:
            try:
                write_live_page(self.page, found, self.every)
            except OSError as error:
                raise DataError(f"--page: {self.page} cannot be written ({error})") from error
        return found


def _lines(watch: _Watch, once: bool) -> None:
    """Plain lines, one per run whose state has changed."""
    told: dict[Path, str] = {}
    while True:
        found = watch.look()
        for run in found:
            line = run.line()
            if told.get(run.path) != line:
                told[run.path] = line
                print(line, flush=True)
        if once or _over(found):
            return
        time.sleep(watch.every)


def _screen(console: Console, watch: _Watch) -> None:
    with Live(console=console, auto_refresh=False, screen=False) as live:
        while True:
            found = watch.look()
            live.update(Group(*(part for run in found for part in _parts(run))), refresh=True)
            if _over(found):
                return
            time.sleep(watch.every)


def _parts(run: Snapshot) -> list[RenderableType]:
    parts: list[RenderableType] = [
        Text(run.line()),
        ProgressBar(total=max(1, run.promised), completed=run.done, width=60),
    ]
    if any(facts["count"] for facts in run.summary["variants"].values()):
        parts.append(summary_table(run.summary))
    parts += [
        Text(f"{count} x {reason}", style="yellow") for reason, count in list(run.reasons.items())[:_REASONS]
    ]
    return parts


def _over(runs: Sequence[Snapshot]) -> bool:
    return all(run.state != "running" for run in runs)
