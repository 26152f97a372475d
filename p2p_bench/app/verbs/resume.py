"""`p2p-bench resume DIR`: finish a run or a sweep."""

import argparse
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from p2p_bench.app.compose import checked_overrides, compose, composing, one_job_each
from p2p_bench.app.console import status_console
from p2p_bench.app.paths import user_path
from p2p_bench.app.spelling import for_shell, quoted
from p2p_bench.app.trust import placed_faults, stored_faults
from p2p_bench.errors import ConfigError, DataError, ErrorList, P2PError

SWEEP = "multirun.yaml"
"""What Hydra's sweeper leaves in the directory of a sweep."""

_KNOWN = ("BasicSweeper", "SearchSweeper")
"""Sweepers that do only what is missing when they are started again."""


def main(arguments: list[str], debug: bool) -> int:
    """Does what a run or a sweep still lacks, with the settings that it was started with.

    Args:
        arguments: The directory.
        debug: Show stack traces.

    Returns:
        The exit code of the run, or of the sweep.

    Raises:
        DataError: There is nothing to resume in the directory.
        ConfigError: The sweep cannot be resumed.
    """
    parser = argparse.ArgumentParser(
        prog="p2p-bench resume",
        description="Finishes a run or a sweep that was interrupted, or tries its failed edits again.",
    )
    parser.add_argument("dir", type=user_path, help="directory of a run, or of a sweep")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="take settings that run code or write elsewhere; for folders of your own only",
    )
    options = parser.parse_args(arguments)
    directory = options.dir.absolute()
    if not directory.is_dir():
        raise DataError(f"{directory}: there is no such directory")
    if (directory / SWEEP).is_file():
        return _resume_sweep(directory, options.trust, debug)
    return _resume_run(directory, options.trust)


def _refuse_foreign(directory: Path, faults: Sequence[P2PError]) -> None:
    """Stops before stored settings do what only typed ones may.

    Raises:
        ErrorList: There are such settings.
    """
    if faults:
        remedy = ConfigError(
            f"{directory}: its settings are not obeyed, since a folder from elsewhere could do anything so; "
            f"if it is your own, add --trust"
        )
        raise ErrorList([*faults, remedy])


def _resume_sweep(directory: Path, trust: bool, debug: bool) -> int:
    from p2p_bench.app.verbs.run import main as run

    path = directory / SWEEP
    try:
        hydra = yaml.safe_load(path.read_text(encoding="utf-8"))["hydra"]
        sweeper, cwd = hydra["sweeper"]["_target_"], Path(hydra["runtime"]["cwd"])
        task, own = list(hydra["overrides"]["task"]), list(hydra["overrides"]["hydra"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not what a sweep leaves ({error!r}); start the sweep anew") from error
    if not sweeper.endswith(_KNOWN):
        raise ConfigError(
            f"{directory}: {sweeper.rpartition('.')[2]} chooses its jobs as it goes, so the sweep cannot be "
            "resumed; resume single jobs by their directories"
        )
    own = [text for text in own if not text.startswith(("hydra.mode=", "hydra.sweep.dir="))]
    stored = [str(text) for text in (*task, *own)]
    if not trust:
        _refuse_foreign(directory, stored_faults(stored))
    with _folder(cwd):
        if not trust:
            with composing():
                for job in one_job_each(checked_overrides(stored, multirun=True)):
                    _refuse_foreign(directory, placed_faults(compose(job)))
        return run([*task, *own, f"hydra.sweep.dir={quoted(str(directory))}", "-m"], debug)


def _resume_run(directory: Path, trust: bool) -> int:
    from p2p_bench.app.jobs import STARTED, job_of, run_job
    from p2p_bench.bench.directory import CONFIG, changed_settings, read_config

    if not (directory / CONFIG).is_file():
        raise DataError(f"{directory}: nothing to resume; {_what_else(directory)}")
    started = read_config(directory).get(STARTED)
    if started is None or not _is_started(started):
        raise DataError(
            f"{directory / CONFIG}: does not say how the run was started; run the same command with "
            f"{for_shell('run.dir', str(directory))}"
        )
    if not trust:
        _refuse_foreign(directory, stored_faults(started["overrides"]))
    with _folder(Path(started["cwd"])):
        with composing():
            config = compose(checked_overrides(started["overrides"]), keep_hydra=True)
            if not trust:
                _refuse_foreign(directory, placed_faults(config))
        job = job_of(config, config.hydra, directory)
        job = job.resumed(started["group"], started["job"], started["overrides"])
        if changed := changed_settings(directory, job.record(), (f"{STARTED}.",)):
            status_console().print(
                f"{directory / CONFIG} is not what the run was started with ({changed}): a run goes on as it "
                f"was typed, as {STARTED}.overrides says, and the file is written anew",
                markup=False,
                style="yellow",
            )
        return run_job(job).code


def _what_else(directory: Path) -> str:
    """What may have been meant where there is neither a run nor a sweep."""
    if (directory.parent / SWEEP).is_file():
        return f"this job has not begun: p2p-bench resume {shlex.quote(str(directory.parent))}"
    inside = sorted({path.parent for name in (SWEEP, "config.yaml") for path in directory.glob(f"*/{name}")})
    if inside:
        return f"expected the directory of a run or of a sweep, such as {inside[-1]}"
    return f"expected a directory with {SWEEP} (a sweep) or config.yaml (a run)"


def _is_started(started: Any) -> bool:
    if not isinstance(started, Mapping):
        return False
    texts = all(isinstance(started.get(key), str) for key in ("group", "job", "cwd"))
    overrides = started.get("overrides")
    return texts and isinstance(overrides, Sequence) and all(isinstance(text, str) for text in overrides)


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Relative paths start where they did, if the folder is still there."""
    before = Path.cwd()
    if path.is_dir():
        os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)
