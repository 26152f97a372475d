"""Searches: jobs return their objectives to the sweeper, and objectives that it could not use are refused."""

import json
import subprocess
import sys
from importlib.util import find_spec
from types import ModuleType

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf

from p2p_bench.app.compose import with_sweeper_params
from tests.app.command import tiny_overrides, write_pairs

MODULE = "hydra_plugins.p2p_bench_test_sweeper"
SEARCH = (
    "-m", f"hydra.sweeper._target_={MODULE}.Quartering", "+hydra.sweeper.direction=[minimize,maximize]",
    "run.objectives=[mse,psnr]", "metrics=pixel", "logger=none", "run.dir=search", "run.images=0",
)  # fmt: skip


class Quartering(Sweeper):
    """Tries a quarter and three quarters of each interval."""

    told: list = []  # noqa: RUF012  # what the latest instance was told

    def __init__(self, max_batch_size, params, direction):
        self.params = params or {}

    def setup(self, *, hydra_context, task_function, config):
        self.launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )

    def sweep(self, arguments):
        arguments = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        jobs = []
        for place in (0.25, 0.75):
            job = []
            for one in OverridesParser.create().parse_overrides(arguments):
                low = one.value()
                at = low.start + place * (low.end - low.start) if one.is_interval_sweep() else None
                job.append(one.input_line if at is None else f"{one.get_key_element()}={at}")
            jobs.append(job)
        returned = self.launcher.launch(jobs, initial_job_idx=0)
        type(self).told = [one.return_value for one in returned]


@pytest.fixture(autouse=True)
def _plugin(monkeypatch):
    module = ModuleType(MODULE)
    module.Quartering = Quartering
    Quartering.__module__ = MODULE
    monkeypatch.setitem(sys.modules, MODULE, module)
    Plugins.instance().register(Quartering)


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("launcher", ["shared", "basic"])
def test_the_sweeper_is_told_the_means_of_the_objectives(command, launcher):
    outcome = command.bench(
        *SEARCH, "tau.cross=interval(0.4,1)", f"hydra/launcher={launcher}", "run.baseline=true"
    )
    assert outcome.code == 0, outcome.err
    assert len(Quartering.told) == 2
    for number, told in enumerate(Quartering.told):
        variants = summary_of(command.folder / "search" / str(number))["variants"]
        metrics = variants["auto"]["metrics"]
        assert told == (metrics["mse"]["mean"], metrics["psnr"]["mean"])
        assert told[0] != variants["none"]["metrics"]["mse"]["mean"]
    assert ("can share their work: 2" in outcome.err) == (launcher == "shared")


def test_one_objective_is_a_number_and_failed_edits_are_a_failure(command):
    good = ["run.objectives=[mse]", "hydra.sweeper.direction=minimize", "tau.cross=interval(0.5,1)"]
    assert command.bench(*SEARCH, *good, "dataset.limit=1").code == 0
    assert all(isinstance(told, float) for told in Quartering.told)
    pairs = [{"id": "a", "source": "a cat", "target": "a dog"}, {"id": "b", "source": "a", "target": "a cat"}]
    outcome = command.bench(*SEARCH, *good, "controller=replace", "run.dir=failed", pairs=pairs)
    assert outcome.code == 1
    assert Quartering.told == [None, None]


def test_parameters_of_the_sweeper_are_swept_and_named(command):
    assert command.bench(*SEARCH, "tau.cross=interval(0.2000000000000004,1)", "dataset.limit=1").code == 0
    config = (command.folder / "search" / "0" / "config.yaml").read_text()
    assert "job: tau.cross=0.4\n" in config
    hydra = OmegaConf.create({"sweeper": {"params": {"tau.cross": "interval(0, 1)", "seed": "1,2"}}})
    assert with_sweeper_params(["seed=3"], hydra) == ["tau.cross=interval(0, 1)", "seed=3"]


WRONG = {
    "misspelt": (["run.objectives=[mse,pnsr]"], "there is no metric column 'pnsr'. Did you mean 'psnr'?"),
    "no metrics": (["metrics=none"], "no metric column 'mse'. The run has no metrics."),
    "directions": (
        ["hydra.sweeper.direction=[minimize,minimize]"],
        "minimize for psnr, of which more is better; write maximize",
    ),
    "one direction": (["hydra.sweeper.direction=minimize"], "one for each of the objectives mse, psnr"),
    "no objective": (["run.objectives=[]"], "Quartering needs objectives"),
    "several schedules": (["tau=sweep3"], "a search takes runs of one schedule each"),
    "out of range": (["tau.cross=interval(0,2)"], "tau.cross: expected values in [0, 1]"),
    "unknown key": (["tau.crss=interval(0,1)"], "unknown key 'crss'. Did you mean 'cross'?"),
    "planned": (["run.plan=true"], "the jobs of a search are not known before it runs"),
}


@pytest.mark.parametrize(("overrides", "message"), WRONG.values(), ids=WRONG)
def test_a_search_that_cannot_work_does_not_begin(command, overrides, message):
    outcome = command.bench(*SEARCH, *overrides)
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("error:") == 1
    assert not (command.folder / "search").exists()


def test_a_search_needs_several_jobs_and_an_interval_a_search(command):
    outcome = command.bench(*SEARCH[1:], "dataset.limit=1")
    assert (outcome.code, "chooses jobs one after the other: add -m" in outcome.err) == (2, True)
    assert command.bench(*SEARCH[1:], "dataset.limit=1", "run.objectives=[]").code == 0
    before = sorted(command.folder.iterdir())
    outcome = command.bench("-m", "tau.cross=interval(0,1)", "logger=none", "run.dir=other")
    assert outcome.code == 2
    assert "tau.cross=interval(0,1): an interval is for a sweeper that searches" in outcome.err
    assert sorted(command.folder.iterdir()) == before


@pytest.mark.skipif(
    find_spec("hydra_plugins.hydra_optuna_sweeper") is not None, reason="the extra p2p_bench[search] is here"
)
def test_a_sweeper_that_is_not_installed_is_named(command):
    outcome = command("-m", "experiment=search")
    assert outcome.code == 2
    assert "comes with the extra p2p_bench[search]" in outcome.err


@pytest.mark.skipif(
    find_spec("hydra_plugins.hydra_optuna_sweeper") is None,
    reason="needs hydra-optuna-sweeper, the extra p2p_bench[search]",
)
def test_the_committed_search(tmp_path):
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    command = [
        sys.executable, "-m", "p2p_bench", "-m", *tiny_overrides(pairs), "experiment=search",
        "dataset=jsonl", "~dataset.count", "~dataset.seed", "~dataset.categories", "metrics=pixel",
        "run.objectives=[mse,psnr]", "hydra.sweeper.n_trials=4", "run.dir=search",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "values:" in (tmp_path / "search" / "optimization_results.yaml").read_text()
    assert summary_of(tmp_path / "search" / "3")["variants"]
