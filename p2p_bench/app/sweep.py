"""How the jobs of a sweep share their work: groups are prefilled in one pass, then every job is replayed.

Jobs that differ only in what the prefix tree can share, tau and controller, form a group. One pass over the
data edits with the variants of all of them and leaves each job's rows in that job's own directory. Then
Hydra's own `run_job` runs each job, which finds its rows, summarises them and returns: a job leaves what it
would have left alone, but for the time, the peak memory and the UNet rows that were spent on it.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import (
    JobReturn,
    JobStatus,
    configure_log,
    run_job,
    setup_globals,
)
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from p2p_bench.app.compose import swept_keys, with_sweeper_params
from p2p_bench.app.console import status_console
from p2p_bench.app.schema import register_schema
from p2p_bench.errors import ConfigError, P2PError
from p2p_bench.hashing import digest

SHARED = ("tau", "controller")
"""Groups in which jobs of a group may differ."""

_APART = (*SHARED, "logger")
"""What does not decide the group: what is shared, and what is done with finished rows."""

_RUN_APART = ("baseline", "name", "dir", "images", "heatmaps")

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Sweep:
    """What Hydra gives a launcher.

    Attributes:
        context: Composes jobs.
        function: Runs one.
        config: Configuration of the sweep.
        made: Configurations of jobs that have not run yet, by number; one takes 0.1 s to compose.
    """

    context: HydraContext
    function: TaskFunction
    config: DictConfig
    made: dict[int, DictConfig] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        """Directory of the sweep, which starts where the command was started."""
        return Path(str(self.config.hydra.runtime.cwd), str(self.config.hydra.sweep.dir))

    def composed(self, number: int, overrides: Sequence[str]) -> DictConfig:
        """Configuration of a job, as Hydra's own launchers make it."""
        if number not in self.made:
            config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = number
                # A launcher may run the job in another folder, or in another process that starts elsewhere.
                config.hydra.runtime.cwd = self.config.hydra.runtime.cwd
                config.hydra.sweep.dir = str(self.directory)
            self.made[number] = config
        return self.made[number]


@dataclass(frozen=True)
class Numbered:
    """A job of the sweep: its number and its overrides."""

    number: int
    overrides: tuple[str, ...]


def launch(sweep: Sweep, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Runs the jobs in this process, in order; a group is prefilled before the first of its jobs.

    Args:
        sweep: The sweep.
        job_overrides: Overrides of each job.
        first: Number of the first job.
    """
    setup_globals()
    sweep.directory.mkdir(parents=True, exist_ok=True)
    jobs = _numbered(job_overrides, first)
    groups = grouped(sweep, jobs)
    _announce(jobs, groups)
    return _run(sweep, jobs, groups)


def launch_groups(
    sweep: Sweep, inner: DictConfig, job_overrides: Sequence[Sequence[str]], first: int
) -> list[JobReturn]:
    """Hands another launcher one job per group, which prefills the group and runs its jobs.

    Args:
        sweep: The sweep.
        inner: Node of the other launcher.
        job_overrides: Overrides of each job.
        first: Number of the first job.
    """
    setup_globals()
    sweep.directory.mkdir(parents=True, exist_ok=True)
    jobs = _numbered(job_overrides, first)
    groups = grouped(sweep, jobs)
    _announce(jobs, groups)
    sweep.made.clear()  # the sweep goes to other processes; they compose the jobs of their own group
    config = OmegaConf.merge(sweep.config)
    assert isinstance(config, DictConfig)
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.launcher = inner
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=sweep.context,
        task_function=GroupFunction(sweep, tuple(map(tuple, groups))),
        config=config,
    )
    # The subdirectory is that of the group's log; its jobs have their own.
    handed = [
        [*group[0].overrides, f"hydra.sweep.subdir=group-{number}"] for number, group in enumerate(groups)
    ]
    returned: dict[int, JobReturn] = {}
    for group, outcome in zip(groups, launcher.launch(handed, 0), strict=True):
        for place, job in enumerate(group):
            good = outcome.status == JobStatus.COMPLETED
            returned[job.number] = outcome.return_value[place] if good else outcome
    return [returned[job.number] for job in jobs]


@dataclass(frozen=True, eq=False)
class GroupFunction:
    """What an inner launcher runs in the place of a job: a whole group. It may go to another process.

    Attributes:
        sweep: The sweep.
        groups: The groups, by the number of the job that stands for them.
        started_by: The process that launches; those in which a launcher runs groups keep to a device each.
    """

    sweep: Sweep
    groups: tuple[tuple[Numbered, ...], ...]
    started_by: int = field(default_factory=os.getpid)

    def __call__(self, config: DictConfig) -> list[JobReturn]:
        """Runs the group of the present job."""
        register_schema()
        if os.getpid() != self.started_by:
            from p2p_bench.bench.devices import keep_to_one_device

            keep_to_one_device(self.sweep.directory)
        group = list(self.groups[HydraConfig.get().job.num])
        return _run(self.sweep, group, [group])


def grouped(sweep: Sweep, jobs: Sequence[Numbered]) -> list[list[Numbered]]:
    """Jobs that can share their work, in order of their first.

    Raises:
        ConfigError: Two would have one directory.
    """
    groups: dict[str, list[Numbered]] = {}
    places: dict[str, int] = {}
    for job in jobs:
        config = sweep.composed(job.number, job.overrides)
        other = places.setdefault(os.path.normpath(str(config.hydra.sweep.subdir)), job.number)
        if other != job.number:
            raise ConfigError(
                f"hydra.sweep.subdir: jobs {other} and {job.number} would both be in "
                f"{config.hydra.sweep.subdir!r}; leave it out, or name every key that the sweep varies"
            )
        with _current(config, Path()):
            groups.setdefault(group_key(config), []).append(job)
    return list(groups.values())


def group_key(config: DictConfig) -> str:
    """Equal for jobs that can share their work.

    Args:
        config: Configuration of a job, with Hydra's node.
    """
    from p2p_bench.app.build import chosen_options, without_hydra

    plain = OmegaConf.to_container(without_hydra(config), resolve=True, enum_to_str=True)
    assert isinstance(plain, dict)
    rest = {str(key): value for key, value in plain.items() if key not in _APART}
    rest["run"] = {key: value for key, value in plain["run"].items() if key not in _RUN_APART}
    rest["names"] = {
        group: option for group, option in chosen_options(config.hydra).items() if group == "inversion"
    }
    return digest(rest)


def _numbered(job_overrides: Sequence[Sequence[str]], first: int) -> list[Numbered]:
    return [Numbered(first + place, tuple(overrides)) for place, overrides in enumerate(job_overrides)]


def _announce(jobs: Sequence[Numbered], groups: Sequence[Sequence[Numbered]]) -> None:
    console = status_console()
    sizes = " + ".join(str(len(group)) for group in groups)
    console.print(f"{len(jobs)} jobs; those that can share their work: {sizes}", markup=False)


def _run(sweep: Sweep, jobs: Sequence[Numbered], groups: Sequence[Sequence[Numbered]]) -> list[JobReturn]:
    """Runs jobs in order, each group prefilled before its first."""
    starts = {group[0].number: group for group in groups}
    logging_of_the_sweep = sweep.config.hydra.hydra_logging, sweep.config.hydra.verbose
    returned = []
    for job in jobs:
        group = starts.get(job.number, [])
        if len(group) > 1:
            _prefill(sweep, group)
            configure_log(*logging_of_the_sweep)
        returned.append(
            run_job(
                hydra_context=sweep.context,
                task_function=sweep.function,
                config=sweep.composed(job.number, job.overrides),
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
        )
        del sweep.made[job.number]
        configure_log(*logging_of_the_sweep)
    return returned


def _prefill(sweep: Sweep, group: Sequence[Numbered]) -> None:
    """Makes the rows of a group's jobs in one pass; what it cannot make the jobs make alone."""
    from p2p_bench.app.jobs import tell_how_to_go_on

    console = status_console()
    numbers = ", ".join(str(job.number) for job in group)
    console.print(f"jobs {numbers}: what they have in common, once", markup=False)
    try:
        with _current(sweep.composed(group[0].number, group[0].overrides), sweep.directory) as config:
            configure_log(config.hydra.job_logging, config.hydra.verbose)
            _pass(sweep, group)
    except KeyboardInterrupt:
        tell_how_to_go_on(sweep.directory, list(sweep.config.hydra.overrides.task))
        raise
    except Exception as error:  # the jobs make alone what is missing, and say themselves what is wrong
        if not isinstance(error, P2PError):
            log.exception("the pass over jobs %s died", numbers)
        console.print(
            f"jobs {numbers} cannot share their work ({error}); each goes on alone",
            markup=False,
            style="yellow",
        )


def _pass(sweep: Sweep, group: Sequence[Numbered]) -> None:
    from p2p_bench.app.jobs import job_of
    from p2p_bench.bench.mirror import mirrored_together
    from p2p_bench.bench.run import Member, help_along, prefill

    hydra = sweep.config.hydra
    swept = swept_keys(with_sweeper_params(hydra.overrides.task, hydra))
    members, all_parts, places = [], [], []
    for numbered in group:
        config = sweep.composed(numbered.number, numbered.overrides)
        with _current(config, Path()):
            run_dir = sweep.directory / str(config.hydra.sweep.subdir)
            job = job_of(config, config.hydra, run_dir, swept)
            all_parts.append(job.parts())
            members.append(Member(all_parts[-1].task, job.run_dir, job.record(), all_parts[-1].keep))
            places.append((job.run_dir, job.output))
    trainer, batch_size = all_parts[0].trainer, all_parts[0].batch_size
    execution = all_parts[0].execution()
    if execution.helps:
        help_along(members, trainer=trainer, batch_size=batch_size, execution=execution)
        return
    console = status_console()
    with mirrored_together(places, lambda line: console.print(line, markup=False)):
        prefill(members, trainer=trainer, batch_size=batch_size, console=console, execution=execution)


@contextmanager
def _current(config: DictConfig, output_dir: Path) -> Iterator[DictConfig]:
    """Makes a job's configuration Hydra's current one, as `run_job` does, and then the one before again."""
    before = HydraConfig.instance().cfg
    with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
        config.hydra.runtime.output_dir = os.path.abspath(output_dir)
    HydraConfig.instance().set_config(config)
    try:
        yield config
    finally:
        HydraConfig.instance().cfg = before
