"""`hydra/launcher=shared` and its kin.

Hydra executes this module again whenever it looks for plugins, so it holds no logic and imports nothing
heavy: see `p2p_bench.app.sweep`.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

INNER = ("basic", "joblib", "ray", "submitit_local", "submitit_slurm")
"""Launchers of which there is a variant `shared_*`; all but `basic` and `ray` come with plugins of others."""


class SharedLauncher(Launcher):
    """Runs the jobs of a sweep so that those that differ only in tau or controller share their work.

    Args:
        inner: Node of another launcher, which is handed one job per group of such jobs; None runs all in
            this process.
    """

    def __init__(self, inner: DictConfig | None = None) -> None:
        super().__init__()
        self.inner = inner

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """See `Launcher`."""
        self.setting: tuple[Any, ...] = (hydra_context, task_function, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """See `Launcher`."""
        from p2p_bench.app.sweep import Sweep, launch, launch_groups

        sweep = Sweep(*self.setting)
        if self.inner is None:
            return launch(sweep, job_overrides, initial_job_idx)
        return launch_groups(sweep, self.inner, job_overrides, initial_job_idx)


def _register() -> None:
    target = f"hydra_plugins.p2p_shared_launcher.shared_launcher.{SharedLauncher.__name__}"
    node = {"_target_": target, "_recursive_": False}
    store = ConfigStore.instance()
    store.store(group="hydra/launcher", name="shared", node={**node, "inner": None}, provider="p2p_bench")
    for inner in INNER:
        defaults = [{"/hydra/launcher@inner": inner}, "_self_"]
        store.store(
            group="hydra/launcher",
            name=f"shared_{inner}",
            node={"defaults": defaults, **node},
            provider="p2p_bench",
        )


_register()
