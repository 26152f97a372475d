"""`hydra/sweeper=search`.

Hydra executes this module whenever it looks for plugins, so it holds no logic and imports nothing heavy: see
`p2p_bench.app.search_sweep`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

DEFAULTS = {
    "sampler": "auto",
    "n_trials": 64,
    "n_jobs": 16,
    "seed": 0,
    "population_size": None,
    "params": {},
}


class SearchSweeper(Sweeper):
    """Chooses jobs with optuna by the objectives that earlier jobs returned; see `SearchSettings`.

    Args:
        params: Overrides of the sweep that its command line may replace.
        settings: Arguments of `p2p_bench.app.study.SearchSettings`.
    """

    def __init__(self, params: Mapping[str, str] | None = None, **settings: Any) -> None:
        super().__init__()
        self.params = dict(params or {})
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """See `Sweeper`."""
        self.setting = (hydra_context, task_function, config)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Sequence[Any]:
        """See `Sweeper`."""
        from p2p_bench.app.search_sweep import run_search
        from p2p_bench.app.sweep import Sweep

        assert self.launcher is not None, "Hydra calls `setup` first"
        return run_search(self.settings, Sweep(*self.setting), self.launcher, arguments)


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="search",
    node={
        "_target_": f"hydra_plugins.p2p_search_sweeper.search_sweeper.{SearchSweeper.__name__}",
        **DEFAULTS,
    },
    provider="p2p_bench",
)
