"""`hydra/launcher=ray`.

Hydra executes this module whenever it looks for plugins, so it holds no logic and imports nothing heavy: see
`p2p_bench.app.ray_jobs`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

INIT = {"address": None, "num_cpus": None, "num_gpus": None}
REMOTE = {"num_cpus": 1, "num_gpus": None, "max_retries": 0, "max_calls": 1}
"""Each job in a process of its own; one that dies is not started again."""


class RayLauncher(Launcher):
    """Runs the jobs of a sweep on a Ray cluster; see `RaySettings`.

    Args:
        init: Arguments of `ray.init`; without an address, a cluster of this machine is started.
        remote: Arguments of `ray.remote` for a job.
    """

    def __init__(self, init: Mapping[str, Any], remote: Mapping[str, Any]) -> None:
        super().__init__()
        self.init = dict(init)
        self.remote = dict(remote)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """See `Launcher`."""
        self.setting: tuple[Any, ...] = (hydra_context, task_function, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """See `Launcher`."""
        from p2p_bench.app.ray_jobs import RaySettings, launch_on_ray
        from p2p_bench.app.sweep import Sweep

        settings = RaySettings(self.init, self.remote)
        return launch_on_ray(Sweep(*self.setting), settings, job_overrides, initial_job_idx)


ConfigStore.instance().store(
    group="hydra/launcher",
    name="ray",
    node={
        "_target_": f"hydra_plugins.p2p_shared_launcher.ray_launcher.{RayLauncher.__name__}",
        "init": INIT,
        "remote": REMOTE,
    },
    provider="p2p_bench",
)
