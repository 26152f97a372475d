"""Searches: jobs return their objectives to the sweeper, and objectives that it could not use are refused."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from uuid import uuid4

import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from p2p_bench.app import jobs, search, search_sweep
from p2p_bench.app.compose import with_sweeper_params
from p2p_bench.bench import mirror
from p2p_bench.errors import DataError

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


SEARCHED = (
    "-m", "hydra/sweeper=search", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=2", "metrics=pixel",
    "run.objectives=[mse,psnr]", "tau.cross=range(0,1.05,step=0.05)", "tau.self_attn=interval(0,1)",
    "logger=none", "run.images=0", "run.heatmaps=false", "dataset.limit=1",
)  # fmt: skip


def told(folder):
    """Per trial what it set, how it ended and what it was told."""
    storage = JournalStorage(JournalFileBackend(str(folder / "search.jsonl")))
    (study,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=study, storage=storage).trials
    return [(trial.params, trial.state.name, trial.values) for trial in trials]


def test_a_search_tells_what_its_jobs_scored_and_shares_their_work(command):
    outcome = command.bench(*SEARCHED, "run.dir=search")
    assert outcome.code == 0, outcome.err
    assert "2 jobs; those that can share their work: 2" in outcome.err
    assert "search: 3 trials, 0 failed; beaten by no other: " in outcome.out
    trials = told(command.folder / "search")
    assert len(trials) == 3
    for number, (params, state, values) in enumerate(trials):
        folder = command.folder / "search" / str(number)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert state == "COMPLETE"
        assert config["tau"]["self_attn"] == params["tau.self_attn"]
        assert config["tau"]["cross"] == pytest.approx(params["tau.cross"])
        assert len(str(config["tau"]["cross"])) <= 4, "a number of the range, not one beside it"
        metrics = summary_of(folder)["variants"]["auto"]["metrics"]
        assert values == [metrics["mse"]["mean"], metrics["psnr"]["mean"]]


def test_a_search_that_was_killed_ends_as_if_it_had_not_been(command, monkeypatch):
    assert command.bench(*SEARCHED, "run.dir=whole").code == 0
    whole, calls = told(command.folder / "whole"), []
    real = jobs.run_benchmark

    def killed(*arguments, **settings):
        calls.append(settings["job"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **settings)

    monkeypatch.setattr(jobs, "run_benchmark", killed)
    outcome = command.bench(*SEARCHED, "run.dir=again")
    assert (outcome.code, "resume" in outcome.err) == (75, True)
    assert len(told(command.folder / "again")) == 2
    journal = command.folder / "again" / "search.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])  # and the last line only half written
    outcome = command("resume", "again")
    assert outcome.code == 0, outcome.err
    assert told(command.folder / "again") == whole
    del calls[:]
    outcome = command("resume", "again")
    assert (outcome.code, calls) == (0, []), "there is nothing left to do"
    assert "search: 3 trials" in outcome.out
    outcome = command.bench(*SEARCHED, "run.dir=again", "sampler.guidance=3.0")
    assert outcome.code == 2
    assert "holds a search with other settings (sampler.guidance: " in outcome.err


def test_a_search_goes_on_on_another_machine_from_its_url(command, monkeypatch):
    """Trials that were told there are neither chosen nor run again, and are here for the report."""
    monkeypatch.setattr(mirror, "_EVERY", 0.01)
    assert command.bench(*SEARCHED, "run.dir=whole").code == 0
    searched = (*SEARCHED, f"run.output=memory://{uuid4().hex}")
    assert command.bench(*searched, "hydra.sweeper.n_trials=2", "run.dir=here").code == 0
    outcome = command.bench(*searched, "run.dir=there")
    assert outcome.code == 0, outcome.err
    assert [line for line in outcome.err.splitlines() if line.startswith("search: trials")] == [
        "search: trials 2 to 2 of 3"
    ]
    assert told(command.folder / "there") == told(command.folder / "whole")
    assert all((command.folder / "there" / str(trial) / "report.html").is_file() for trial in range(3))
    assert (command.folder / "there" / "multirun.yaml").is_file()


def trial_left(folder, number, images, mask=None):
    """What a trial leaves of what it read."""
    run = folder / str(number)
    run.mkdir()
    read = {"model": "w", **({"controller.mask": mask[1]} if mask else {})}
    settings = {"controller": {"inner": [{"mask": mask[0], "tau": number}]}} if mask else {}
    (run / "summary.json").write_text(json.dumps({"checksums": read, "settings": settings}))
    rows = [{"sample_id": name, "source_checksum": checksum} for name, checksum in images.items()]
    pq.write_table(pa.Table.from_pylist(rows), run / "results.parquet")


@pytest.mark.parametrize(
    ("second", "refused"),
    [
        (({"a": "1", "b": "2"}, ("m.png", "5")), False),
        (({"a": "1", "b": "2"}, ("other.png", "6")), False),
        (({"a": "1", "b": "2"}, None), False),
        (({"a": "", "c": "2"}, None), False),  # the edit of "a" failed before its image was read
        (({"a": "1", "b": "3"}, None), True),
        (({"a": "1", "b": "2"}, ("m.png", "6")), True),
    ],
)
def test_a_search_goes_on_with_the_images_and_masks_that_it_began_with(tmp_path, second, refused):
    trial_left(tmp_path, 0, {"a": "1", "b": "2"}, ("m.png", "5"))
    trial_left(tmp_path, 1, *second)
    if not refused:
        search_sweep._refuse_changed(tmp_path, [1, 2])
        return
    with pytest.raises(DataError, match="its images or masks have changed since the search began"):
        search_sweep._refuse_changed(tmp_path, [1, 2])


def test_failed_trials_are_told_as_failed_and_tried_again(command):
    pairs = [{"id": "a", "source": "a cat", "target": "a dog"}, {"id": "b", "source": "a", "target": "a cat"}]
    searched = (
        *SEARCHED,
        "run.objectives=[mse]",
        "run.dir=search",
        "hydra.sweeper.n_jobs=3",
        "hydra.sweeper.seed=1",
        "dataset.limit=2",
    )
    searched = [one for one in searched if "range" not in one and "interval" not in one]
    outcome = command.bench(*searched, "controller=choice(replace,refine)", pairs=pairs)
    assert outcome.code == 1
    states = {params["controller"]: state for params, state, _ in told(command.folder / "search")}
    assert states == {"replace": "FAIL", "refine": "COMPLETE"}
    failed = [params["controller"] for params, _, _ in told(command.folder / "search")].count("replace")
    outcome = command("resume", "search")
    assert outcome.code == 1, "rows are still missing"
    assert outcome.out.count("results: ") == failed
    assert "search: 3 trials" in outcome.out
    hopeless = command.bench(*SEARCHED, "dataset.limit=2", "run.dir=none", "controller=replace", pairs=pairs)
    assert (hopeless.code, told(command.folder / "none")) == (1, [])
    assert "no trial of the first batch has its objectives" in hopeless.err


WRONG_SEARCH = {
    "sampler": (
        ["hydra.sweeper.sampler=tep"],
        "expected one of auto, nsgaii, tpe, random, got 'tep'. Did you",
    ),
    "trials": (["hydra.sweeper.n_trials=0"], "n_trials: expected a whole number of at least 1, got 0"),
    "batch": (["hydra.sweeper.n_jobs=0"], "n_jobs: expected a whole number of at least 1, got 0"),
    "population": (
        ["hydra.sweeper.population_size=1"],
        "population_size: expected a whole number of at least 2",
    ),
    "nothing": (["tau.cross=0.5", "tau.self_attn=0.5"], "a search needs something to choose from"),
    "unknown": (["hydra.sweeper.seeds=3"], "seeds"),
}


@pytest.mark.parametrize(("overrides", "message"), WRONG_SEARCH.values(), ids=WRONG_SEARCH)
def test_a_search_with_a_wrong_setting_leaves_nothing(command, overrides, message):
    keys = {one.partition("=")[0] for one in overrides}
    searched = [one for one in SEARCHED if one.partition("=")[0] not in keys]
    outcome = command.bench(*searched, *overrides, "run.dir=search")
    assert outcome.code == 2
    assert message in outcome.err
    assert not (command.folder / "search").exists()


def test_a_search_without_optuna_names_the_extra(command, monkeypatch):
    monkeypatch.setattr(search, "find_spec", lambda name: None)
    outcome = command("-m", "experiment=search")
    assert outcome.code == 2
    assert "needs optuna; add the extra p2p_bench[search]" in outcome.err


def test_a_start_does_not_load_optuna():
    code = (
        "import sys, p2p_bench.app.verbs.run, hydra_plugins.p2p_search_sweeper.search_sweeper; "
        "print([name for name in ('optuna', 'torch') if name in sys.modules])"
    )
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"


def test_the_committed_search(command):
    outcome = command.bench(
        "-m", "experiment=search", "dataset=jsonl", "~dataset.count", "~dataset.seed", "~dataset.categories",
        "metrics=pixel", "run.objectives=[mse,psnr]", "hydra.sweeper.n_trials=2", "run.dir=search",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    ends = {"tau.cross": (0.0, 1.0), "tau.self_attn": (0.0, 1.0), "sampler.guidance": (1.5, 7.5)}
    for params, state, _ in told(command.folder / "search"):
        assert state == "COMPLETE"
        assert all(low <= params[key] <= high for key, (low, high) in ends.items())
    assert command("report", "search").code == 0
