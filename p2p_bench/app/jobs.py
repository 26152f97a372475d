"""One job: a composed configuration and the directory it is for; what is done with it, and what is told."""

import logging
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from p2p_bench.app.build import Parts, build, chosen_options, without_hydra
from p2p_bench.app.console import result_console, status_console
from p2p_bench.app.optional import applied
from p2p_bench.app.search import objective_values
from p2p_bench.app.secrets import typed_again, without_secrets
from p2p_bench.app.trust import stored_faults
from p2p_bench.bench.finished import FinishedRun
from p2p_bench.bench.mirror import mirrored
from p2p_bench.bench.rows import Key
from p2p_bench.bench.run import Member, help_along, run_benchmark
from p2p_bench.bench.stopping import TooManyErrorsError
from p2p_bench.bench.summary import SUMMARY
from p2p_bench.bench.whole import shortfall
from p2p_bench.errors import CannotWriteError, OtherProcessError, P2PError, ProcessLostError
from p2p_bench.report import summary_table, write_report
from p2p_bench.types import MASK_NOTES

STARTED = "started"
"""Key of `config.yaml` under which lies how the job was started, for `p2p-bench resume`."""

log = logging.getLogger(__name__)
_FAILED = 1
_FOLDERS = "hydra.searchpath="
INTERRUPTED = CannotWriteError.exit_code
_SHOWN = 5
_LONG = 12


@dataclass(frozen=True, eq=False)
class Job:
    """A job of a sweep, or a run of its own.

    Attributes:
        config: The composed configuration, without Hydra's own node.
        choices: Chosen option per group.
        run_dir: Directory of its results.
        overrides: What was typed for it, as Hydra takes it.
        group: Sweep that it belongs to; "" for a run of its own.
        name: What sets it apart in the sweep, such as "tau.cross=0.4".
        start: Folder that relative paths start from: where the command was started.
    """

    config: DictConfig
    choices: Mapping[str, str]
    run_dir: Path
    overrides: tuple[str, ...] = ()
    group: str = ""
    name: str = ""
    start: Path = field(default_factory=Path.cwd)

    @property
    def output(self) -> str | None:
        """URL that its directory is copied to; each job of a sweep has a folder there."""
        url: str | None = self.config.run.output
        return job_output(url, self.run_dir) if url is not None and self.group else url

    def parts(self) -> Parts:
        """What the configuration describes.

        Raises:
            ErrorList: Every fault of the configuration.
        """
        return build(self.config, self.choices, self.start)

    def resumed(self, group: str, name: str, overrides: Sequence[str]) -> "Job":
        """The same as a job of its sweep, which it was when it was started."""
        return replace(self, group=group, name=name, overrides=tuple(overrides))

    def record(self) -> dict[str, Any]:
        """What `config.yaml` holds: the configuration, resolved, and how the job was started."""
        resolved, typed = (
            OmegaConf.to_container(self.config, resolve=one, enum_to_str=True) for one in (True, False)
        )
        plain = without_secrets(resolved, typed)
        assert isinstance(plain, dict)
        started = {
            "overrides": list(self.overrides), "group": self.group, "job": self.name, "cwd": str(self.start),
        }  # fmt: skip
        return {**{str(key): value for key, value in plain.items()}, STARTED: started}


def job_output(url: str, run_dir: Path) -> str:
    """The folder of a job in the URL of its sweep."""
    return f"{url.rstrip('/')}/{run_dir.name}"


def job_of(
    config: DictConfig, hydra: DictConfig | HydraConf, run_dir: Path, swept: Sequence[str] = ()
) -> Job:
    """The job that a composed configuration describes.

    Args:
        config: The configuration.
        hydra: Hydra's own node.
        run_dir: Directory of the results.
        swept: Keys that have several values in the sweep.
    """
    typed = OmegaConf.to_container(OmegaConf.create({"task": hydra.overrides.task}), resolve=False)
    assert isinstance(typed, dict)
    overrides = applied(config, typed_again(list(hydra.overrides.task), typed["task"]))
    # A folder of options that was named (--config-dir) is part of what was typed.
    folders = tuple(text for text in hydra.overrides.hydra if text.startswith(_FOLDERS))
    sweep = hydra.mode == RunMode.MULTIRUN
    return Job(
        config=without_hydra(config),
        choices=chosen_options(hydra),
        run_dir=run_dir.absolute(),
        overrides=(*folders, *overrides),
        group=Path(str(hydra.sweep.dir)).name if sweep else "",
        name=", ".join(_rounded(text) for text in overrides if text.split("=", 1)[0] in swept)
        if sweep
        else "",
        start=Path(str(hydra.runtime.cwd)),
    )


def _rounded(text: str) -> str:
    """An override without the last digits of a number that a sweeper computed, such as 0.6000000000000001."""
    key, _, value = text.partition("=")
    try:
        return f"{key}={float(value):.6g}" if len(value) > _LONG else text
    except ValueError:
        return text


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        code: 0; 1 if some edits failed; 75 if rows are missing.
        objectives: What a sweeper that searches is told: see `objective_values`.
        promised: Keys of the rows that its directory should hold.
    """

    code: int
    objectives: tuple[float, ...] | float | None = None
    promised: tuple[Key, ...] = ()


def run_job(job: Job) -> Outcome:
    """Edits what the job's directory lacks, reports and logs.

    Raises:
        P2PError: The job cannot run.
        KeyboardInterrupt: Interrupted; the user was told how to go on.
    """
    parts = job.parts()
    execution = parts.execution()
    if execution.helps:
        member = Member(parts.task, job.run_dir, {}, parts.keep)
        try:
            help_along([member], trainer=parts.trainer, batch_size=parts.batch_size, execution=execution)
        except OSError as error:
            raise _cannot_write(job, error) from error
        return Outcome(0)
    with mirrored(job.run_dir, job.output, lambda line: status_console().print(line, markup=False)):
        return _run_here(job, parts)


def _run_here(job: Job, parts: Parts) -> Outcome:
    """As `run_job`, in the directory on this machine."""
    status, execution = status_console(), parts.execution()
    try:
        finished = run_benchmark(
            parts.task,
            job.run_dir,
            name=parts.name,
            group=job.group,
            job=job.name,
            config=job.record(),
            choices=job.choices,
            keep=parts.keep,
            trainer=parts.trainer,
            batch_size=parts.batch_size,
            console=status,
            execution=execution,
        )
        lost = tell_shortfall(job.run_dir, finished.promised, job.overrides)
        if not lost:
            _publish(finished, parts)
            lost = tell_shortfall(job.run_dir, finished.promised, job.overrides)
    except KeyboardInterrupt:
        _report_so_far(job.run_dir)
        tell_how_to_go_on(job.run_dir.parent if job.group else job.run_dir, job.overrides)
        raise
    except (ProcessLostError, OtherProcessError, TooManyErrorsError):
        _report_so_far(job.run_dir)
        tell_how_to_go_on(job.run_dir, job.overrides)
        raise
    except OSError as error:
        raise _cannot_write(job, error) from error
    if lost:
        return Outcome(lost, promised=finished.promised)
    _tell_failures(finished.rows, status)
    code = _FAILED if any(row["status"] != "ok" for row in finished.rows) else 0
    return Outcome(code, objective_values(job.config, finished.summary), finished.promised)


def _cannot_write(job: Job, error: OSError) -> CannotWriteError:
    return CannotWriteError(
        f"{job.run_dir}: a file could not be written or read ({error}); finished edits are kept: mend that, "
        f"and {how_to_go_on(job.run_dir, job.overrides)} goes on"
    )


def _publish(finished: FinishedRun, parts: Parts) -> None:
    """Writes the report and logs the run."""
    result = result_console()
    status_console().print("writing the report")
    report = write_report(finished.dir)
    result.print(summary_table(finished.summary))
    for logger in parts.loggers.values():
        result.print(logger.write(finished), markup=False)
    result.print(f"results: {finished.dir}", markup=False)
    result.print(f"report: {report}", markup=False)
    _tell_masks(finished.rows, status_console())


def _report_so_far(run_dir: Path) -> None:
    """Writes the report over what is finished of a run that has ended early, as far as that can be done."""
    try:
        if (run_dir / SUMMARY).is_file():
            write_report(run_dir)
    except (OSError, P2PError) as error:
        log.warning("there is no report of what is finished: %s", error)


def tell_shortfall(run_dir: Path, promised: Collection[Key], overrides: Sequence[str]) -> int:
    """Says what a finished run's directory lacks.

    Args:
        run_dir: The directory.
        promised: Keys of the rows it should hold.
        overrides: What was typed for the run.

    Returns:
        The exit code: that of an interrupted run, or 0 where nothing is lacking.
    """
    lacking = shortfall(run_dir, promised)
    if not lacking:
        return 0
    status_console().print(
        f"error: {lacking}, though the run went through; {how_to_go_on(run_dir, overrides)} makes what is "
        "missing",
        markup=False,
        style="red",
    )
    return INTERRUPTED


def how_to_go_on(directory: Path, overrides: Sequence[str]) -> str:
    """The command that finishes a run or a sweep.

    Args:
        directory: Its directory.
        overrides: What was typed for it.
    """
    trust = " --trust" if stored_faults(overrides) else ""
    return f"p2p-bench resume {shlex.quote(str(directory.absolute()))}{trust}"


def tell_how_to_go_on(directory: Path, overrides: Sequence[str]) -> None:
    """What to do after an interruption."""
    status_console().print(
        f"finished edits are kept; {how_to_go_on(directory, overrides)} goes on",
        markup=False,
        style="yellow",
    )


def _tell_masks(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """How many masks divide nothing, so that there are no values outside them."""
    states = {row["sample_id"]: row.get("mask") for row in rows}
    for state, note in MASK_NOTES.items():
        found = [sample for sample, own in states.items() if own == state]
        if found:
            console.print(
                f"{len(found)} of {len(states)} pairs, {found[0]!r} the first: {note}",
                markup=False,
                style="yellow",
            )


def _tell_failures(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """The reasons of failed edits, each once, the first few of them."""
    failed = [row for row in rows if row["status"] != "ok"]
    if not failed:
        return
    reasons = dict.fromkeys(f"{row['sample_id']!r}: {row['error']}" for row in failed)
    console.print(f"{len(failed)} of {len(rows)} edits failed:", style="yellow")
    for reason in list(reasons)[:_SHOWN]:
        console.print(f"  - {reason}", markup=False, style="yellow")
    if len(reasons) > _SHOWN:
        console.print(f"  ... and {len(reasons) - _SHOWN} more, in the report", style="yellow")
