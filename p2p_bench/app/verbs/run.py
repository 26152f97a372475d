"""`p2p-bench [run] KEY=VALUE ... [-m]`: the benchmark."""

import logging
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from p2p_bench.app import loader
from p2p_bench.app.build import build, chosen_options, without_hydra
from p2p_bench.app.compose import (
    CONFIG_NAME,
    checked_overrides,
    composed,
    composing,
    config_dir,
    first_line,
    intervals,
    one_job_each,
    searches,
    swept_keys,
    with_sweeper_params,
)
from p2p_bench.app.console import result_console, show_error, status_console
from p2p_bench.app.early import refuse_early
from p2p_bench.app.flags import Asked, asked, completed_line
from p2p_bench.app.paths import folder_fault, unwritable
from p2p_bench.app.schema import register_schema
from p2p_bench.app.trust import hydra_faults
from p2p_bench.errors import ConfigError, ErrorList, P2PError

if TYPE_CHECKING:
    from p2p_bench.app.jobs import Outcome

_FAILED = 1
log = logging.getLogger(__name__)


def main(arguments: list[str], debug: bool) -> int:
    """Runs the benchmark, once or once per job of a sweep.

    Args:
        arguments: Overrides, and Hydra's own flags.
        debug: Show stack traces.

    Returns:
        The exit code: that of the run, or of all jobs if they agree, else 1.
    """
    flags = asked(arguments)
    if flags.shows:
        return _show(flags)
    multirun = flags.multirun
    with composing():
        checked = checked_overrides(flags.overrides, multirun)
        sweep = _whole_sweep(checked) if multirun else checked
        plan = _refuse_faulty(one_job_each(sweep) if multirun else [sweep], multirun)
    if plan:
        from p2p_bench.app.plan import show_plans

        return show_plans(sweep, multirun)
    return _run(checked, swept_keys(sweep) if multirun else (), multirun, debug)


def _run(checked: Sequence[str], swept: Sequence[str], multirun: bool, debug: bool) -> int:
    """Runs what is known to be good.

    Args:
        checked: Overrides as returned by `checked_overrides`.
        swept: Keys with several values.
        multirun: Whether they describe a sweep.
        debug: Show stack traces.

    Returns:
        The exit code.
    """
    codes: list[int] = []
    done: list[tuple[Path, Outcome]] = []
    sweeps: list[Path] = []
    parent = os.getpid()

    def job(config: DictConfig) -> Any:
        sweeps.append(_from_here(Path(HydraConfig.get().sweep.dir)))
        run_dir = HydraConfig.get().runtime.output_dir
        if any(Path(run_dir) == before for before, _ in done):
            raise ConfigError(
                f"hydra.sweep.subdir: {run_dir} is the directory of an earlier job of the sweep"
            )
        outcome = _job(config, swept, debug)
        if os.getpid() != parent and outcome.code:  # a launcher's own process: it reaches us as a failed job
            raise JobFailedError(outcome.code, run_dir)
        codes.append(outcome.code)
        done.append((Path(run_dir), outcome))
        return outcome.objectives

    try:
        with _plain_errors():
            loader.run(CONFIG_NAME, checked, multirun, job)
    except JobFailedError as failure:
        codes.append(failure.code)
        status_console().print(
            f"a job in a process of its own failed; why: {failure.run_dir}/run.log", markup=False, style="red"
        )
    if multirun and sweeps:
        codes = [_still_whole(*one) for one in done] + codes[len(done) :]
        good = sum(code == 0 for code in codes)
        result_console().print(
            f"sweep: {sweeps[0]} ({good} of {len(codes)} jobs without a failure); "
            f"one page over all jobs: p2p-bench report {shlex.quote(str(sweeps[0]))}",
            markup=False,
        )
    return codes[0] if len(set(codes)) == 1 else max(codes, default=0) and _FAILED


def _from_here(path: Path) -> Path:
    """A path as a user at the present folder would write it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _still_whole(run_dir: Path, outcome: "Outcome") -> int:
    """The exit code of a job whose directory may have lost rows since it ended."""
    from p2p_bench.app.jobs import tell_shortfall

    return tell_shortfall(run_dir, outcome.promised, ()) if outcome.code == 0 else outcome.code


class JobFailedError(Exception):
    """A job in a process of its own failed.

    Attributes:
        code: Its exit code.
        run_dir: Its directory, where `run.log` says why; what it printed may have gone elsewhere.
    """

    def __init__(self, code: int, run_dir: str) -> None:
        super().__init__(code, run_dir)  # all arguments: it is pickled
        self.code = code
        self.run_dir = run_dir


def _whole_sweep(overrides: Sequence[str]) -> list[str]:
    """The overrides of a sweep, with those of the sweeper's own `params`.

    Raises:
        ConfigError: The sweeper cannot choose so.
        ErrorList: A choice of the sweeper's params is faulty; those of the overrides are known to be good.
    """
    hydra = composed(tuple(one_job_each(overrides)[0])).hydra
    everything = with_sweeper_params(overrides, hydra)
    if not searches(hydra) and (unbound := intervals(everything)):
        raise ConfigError(
            f"{unbound[0]}: an interval is for a sweeper that searches, such as hydra/sweeper=search (extra "
            "p2p_bench[search]); give choices, such as 0.2,0.4"
        )
    return everything if everything == list(overrides) else checked_overrides(everything, multirun=True)


def _refuse_faulty(jobs: Sequence[Sequence[str]], multirun: bool) -> bool:
    """Stops before any job starts if the configuration of one is faulty.

    Args:
        jobs: Overrides of jobs that together hold every choice.
        multirun: Whether a sweep was asked for.

    Returns:
        Whether a plan is asked for instead of a run.
    """
    configs = [composed(tuple(job)) for job in jobs]
    typed = list(dict.fromkeys(text for job in jobs for text in job))
    refuse_early([without_hydra(config) for config in configs], typed)

    # Imported late: this loads torch, and a mere usage error need not wait for it.
    from p2p_bench.app.search import search_faults
    from p2p_bench.bench.launched import started_together

    faults: dict[str, P2PError] = {}
    plan = False
    for config in configs:
        trusted = bool(OmegaConf.select(config, "run.trust", throw_on_resolution_failure=False))
        wrong: list[P2PError] = list(hydra_faults(config.hydra, trusted))
        try:
            task = build(without_hydra(config), chosen_options(config.hydra)).task
            plan = plan or config.run.plan
            wrong += search_faults(config, task, multirun)
            if started_together() > 1:
                wrong += _faults_of_several(config, typed)
            folder = Path(_folder_of(config.hydra, multirun))
            if not wrong and (fault := folder_fault(folder)):
                wrong.append(ConfigError(f"run.dir: cannot be written ({fault}); choose another"))
            if config.run.resume is False and _holds_a_run(folder):
                wrong.append(
                    ConfigError(f"run.resume: {folder} holds a run already; choose another with run.dir=DIR")
                )
        except ErrorList as error:
            wrong += error.errors
        faults.update((str(fault), fault) for fault in wrong)
    if faults:
        raise ErrorList(list(faults.values()))
    return plan


def _faults_of_several(config: DictConfig, typed: Sequence[str]) -> Iterator[ConfigError]:
    """What processes that were started together cannot agree on."""
    named = any(text.startswith(("hydra.run.dir=", "hydra.sweep.dir=")) for text in typed)
    if config.run.dir is None and not named:
        yield ConfigError("run.dir: several processes share the run, so it has to be said where: run.dir=DIR")
    if searches(config.hydra):
        yield ConfigError("hydra/sweeper: a search goes on in one process, since it chooses by what it reads")


def _holds_a_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("config.yaml", "multirun.yaml", "rows"))


def _folder_of(hydra_node: DictConfig, multirun: bool) -> str:
    """The folder that a run or a sweep writes to."""
    return str(hydra_node.sweep.dir if multirun else hydra_node.run.dir)


def _show(flags: Asked) -> int:
    """Lets Hydra print what was asked for instead of running.

    Raises:
        ConfigError: It cannot be printed.
    """
    words = list(flags.overrides) if flags.completes else checked_overrides(flags.overrides)
    typed = {"COMP_LINE": completed_line(os.environ["COMP_LINE"])} if "COMP_LINE" in os.environ else {}
    try:
        with _environment(typed):
            return _hydra([*flags.shows, *words])
    except ValueError as error:  # such as an interpolation that leads nowhere
        raise ConfigError(first_line(error)) from error
    except SystemExit as error:  # Hydra leaves so after --help, and with 1 where nothing is to be shown
        return ConfigError.exit_code if error.code else 0


def _hydra(arguments: Sequence[str]) -> int:
    """Hands the command line to Hydra, to print something."""
    register_schema()
    decorated = hydra.main(
        config_path=str(config_dir()), config_name=CONFIG_NAME, version_base=loader.HYDRA_VERSION_BASE
    )(lambda config: None)
    with _plain_errors(), _environment({"HYDRA_FULL_ERROR": "1"}), _command_line(arguments):
        decorated()
    return 0


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turns exceptions of Hydra's own into one line each: a job tells its own.

    Raises:
        ConfigError: The settings cannot be composed or resolved.
        P2PError: The run's directory cannot be written.
    """
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(first_line(error)) from error
    except OSError as error:
        raise unwritable(error.filename or "the run's directory", error) from error


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _command_line(arguments: Sequence[str]) -> Iterator[None]:
    before = sys.argv
    sys.argv = ["p2p-bench", *arguments]
    try:
        yield
    finally:
        sys.argv = before


def _job(config: DictConfig, swept: Sequence[str], debug: bool) -> "Outcome":
    """One job: how it ended, after the user was told what there is to tell."""
    from p2p_bench.app.jobs import Outcome, job_of, run_job

    settings = HydraConfig.get()
    job = job_of(config, settings, Path(settings.runtime.output_dir), swept)
    label = f"job {settings.job.num} ({job.name})" if settings.mode == RunMode.MULTIRUN else ""
    try:
        return run_job(job)
    except P2PError as error:
        log.error("%s", error)
        show_error(error, debug, label)
        return Outcome(error.exit_code)
    except Exception as error:  # a job of a sweep must not take the others with it
        log.exception("unexpected")
        show_error(error, debug, label)
        return Outcome(_FAILED)
