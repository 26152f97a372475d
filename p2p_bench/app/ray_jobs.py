"""`hydra/launcher=ray` and `shared_ray`: jobs of a sweep as tasks of a Ray cluster."""

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, run_job, setup_globals
from omegaconf import open_dict

from p2p_bench.app.sweep import Sweep
from p2p_bench.errors import ConfigError, ProcessLostError

_STORE = 100_000_000
"""Bytes of memory for objects in a cluster started here; jobs exchange configurations and paths alone."""

_PATIENCE = 60.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RaySettings:
    """Where jobs run, and what each takes.

    Attributes:
        init: Arguments of `ray.init`. Without an address, a cluster of this machine alone is started, and
            stopped once the jobs are done.
        remote: Arguments of `ray.remote` for a job; without `num_gpus`, one where the cluster has any.
    """

    init: Mapping[str, Any]
    remote: Mapping[str, Any]


def launch_on_ray(
    sweep: Sweep, settings: RaySettings, job_overrides: Sequence[Sequence[str]], first: int
) -> list[JobReturn]:
    """Runs the jobs on a cluster and waits for all of them.

    Args:
        sweep: The sweep; its directory has to be one that every machine of the cluster sees.
        settings: Where jobs run.
        job_overrides: Overrides of each job.
        first: Number of the first job.

    Raises:
        ConfigError: Ray is not installed, or refuses the settings.
        KeyboardInterrupt: Interrupted; the jobs were asked to finish their batches.
    """
    setup_globals()
    configure_log(sweep.config.hydra.hydra_logging, sweep.config.hydra.verbose)
    sweep.directory.mkdir(parents=True, exist_ok=True)
    for place, overrides in enumerate(job_overrides):
        log.info("#%d: %s", first + place, " ".join(filter_overrides(overrides)))
    ray = _begun(settings.init)
    try:
        given = {name: value for name, value in settings.remote.items() if value is not None}
        given.setdefault("num_gpus", 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0)
        try:
            remote = ray.remote(**given)(execute_job)
        except (TypeError, ValueError, AssertionError) as error:
            raise ConfigError(f"hydra.launcher: Ray refuses these arguments of a job ({error})") from error
        state = ray.put(Singleton.get_state())
        handed = ray.put(sweep)
        tasks = [
            remote.remote(first + place, tuple(overrides), handed, state)
            for place, overrides in enumerate(job_overrides)
        ]
        return _ended(ray, tasks)
    finally:
        ray.shutdown()


def execute_job(number: int, overrides: Sequence[str], sweep: Sweep, state: Mapping[Any, Any]) -> JobReturn:
    """One job, in a process of the cluster.

    Args:
        number: Number of the job.
        overrides: Its overrides.
        sweep: The sweep.
        state: Hydra's own state in the process that launches.
    """
    setup_globals()
    Singleton.set_state(dict(state))
    config = sweep.composed(number, overrides)
    with open_dict(config):
        config.hydra.job.id = f"{config.hydra.job.name}_{number}"
    HydraConfig.instance().set_config(config)
    return run_job(
        hydra_context=sweep.context,
        task_function=sweep.function,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


def _begun(init: Mapping[str, Any]) -> Any:
    """The module `ray`, connected to a cluster."""
    if find_spec("ray") is None:
        raise ConfigError(
            "hydra/launcher: the package ray is not installed; add the extra p2p_bench[ray], or choose "
            "another launcher"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody unless asked for
    import ray  # late: an extra, and it takes seconds

    given = {name: value for name, value in init.items() if value is not None}
    if "address" not in given:
        given = {"address": "local", "object_store_memory": _STORE, "include_dashboard": False, **given}
    try:
        ray.init(**{"log_to_driver": False, "logging_level": logging.WARNING, **given})
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        raise ConfigError(f"hydra.launcher: no Ray cluster ({error})") from error
    return ray


def _ended(ray: Any, tasks: Sequence[Any]) -> list[JobReturn]:
    """What the jobs return, in their order; one whose process is gone has failed."""
    returned = []
    try:
        for task in tasks:
            try:
                returned.append(ray.get(task))
            except ray.exceptions.RayError as error:
                returned.append(_lost(error))
    except KeyboardInterrupt:
        for task in tasks:
            with suppress(ray.exceptions.RayError):
                ray.cancel(task)  # as Ctrl-C there
        ray.wait(tasks, num_returns=len(tasks), timeout=_PATIENCE)
        raise
    return returned


def _lost(error: Exception) -> JobReturn:
    failed = JobReturn()
    failed.status = JobStatus.FAILED
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    cause = getattr(error, "cause", None)  # of what a job raised; else its process is gone
    failed.return_value = cause or ProcessLostError(f"a process of the Ray cluster is gone ({reason})")
    return failed
