"""The shared launcher: a sweep leaves what Hydra's own launcher leaves, for fewer rows of the network."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import p2p_bench.bench.run as bench_run
from p2p_bench.app.compose import compose
from p2p_bench.app.sweep import group_key
from p2p_bench.bench.rows import RowWriter
from tests.app.command import PAIRS, Command
from tests.app.test_run import assert_same_rows, pixels, rows_of

SWEEP = ("-m", "tau.cross=0.0,0.5,1.0", "inversion=ddim,negative_prompt")
SETTINGS = ("metrics=pixel", "logger=csv", "run.baseline=true", "run.batch_size=1")
JOBS = 6
SPENT = ("unet_rows_spent", "inversion_from")
"""Columns that tell what was computed for a job; they depend on its company, and on what the cache holds."""


def sweep(command: Command, name: str, launcher: str = "shared", *overrides: str):
    """A sweep of `JOBS` jobs in a folder of this name: a real image, and a generated one with two targets."""
    Image.fromarray((np.indices((16, 16, 3)).sum(0) * 5).astype(np.uint8)).save(command.folder / "real.png")
    pairs = [{**PAIRS[0], "image": "real.png"}, PAIRS[1]]
    launched = f"hydra/launcher={launcher}"
    return command.bench(*SWEEP, *SETTINGS, f"run.dir={name}", launched, *overrides, pairs=pairs)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that several tests run in."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def swept(home, monkeypatch, capsys) -> Command:
    """The command line in a folder where a sweep was run, `whole`, which no test may change."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("COLUMNS", "200")
    command = Command(home, capsys)
    if not (home / "whole").exists():
        assert sweep(command, "whole").code == 0
    return command


def jobs_of(folder: Path) -> list[Path]:
    """Directories of jobs, in order."""
    return sorted(path for path in folder.iterdir() if path.name.isdecimal())


def files_of(job: Path) -> set[str]:
    """Names of all files of a job, but for those that come and go."""
    return {str(path.relative_to(job)) for path in job.rglob("*") if path.is_file() and path.name != ".lock"}


def settings_of(job: Path) -> dict:
    """Its configuration, without the name of the folder."""
    config = yaml.safe_load((job / "config.yaml").read_text())
    config["run"].pop("dir")
    config["started"].pop("group")
    config["started"]["overrides"] = [o for o in config["started"]["overrides"] if "run.dir" not in o]
    return config


def assert_equal_jobs(one: Path, other: Path) -> None:
    """Equal files, configurations, rows and pictures, job by job."""
    assert len(jobs_of(one)) == len(jobs_of(other)) == JOBS
    for a, b in zip(jobs_of(one), jobs_of(other), strict=True):
        assert files_of(a) == files_of(b)
        assert {"run.log", "report.html", "summary.json", "metrics.csv"} <= files_of(b)
        assert settings_of(a) == settings_of(b)
        assert_same_rows(rows_of(a), rows_of(b), apart_from=SPENT)
        for picture in (name for name in files_of(a) if name.startswith("images/")):
            assert np.abs(pixels(a / picture) - pixels(b / picture)).max() <= 1


def spent(folder: Path) -> float:
    """UNet rows that a sweep took."""
    return sum(row["unet_rows_spent"] for job in jobs_of(folder) for row in rows_of(job).values())


TOGETHER = (
    "tau.cross=0.3",
    "tau=sweep3",
    "controller=refine",
    "run.baseline=true",
    "logger=none",
    "run.images=3",
)
APART = (
    "seed=1", "inversion=none", "sampler.guidance=2", "sampler.max_rows=8", "dataset.limit=1", "metrics=none",
    "model.dtype=bfloat16", "run.truncate=true", "run.batch_size=2", "run.cache=false",
)  # fmt: skip


@pytest.mark.parametrize("override", [*TOGETHER, *APART])
def test_jobs_share_their_work_if_they_differ_in_what_the_tree_can_share(override):
    one, other = (compose(overrides, keep_hydra=True) for overrides in ([], [override]))
    assert (group_key(one) == group_key(other)) == (override in TOGETHER)


@pytest.mark.parametrize("launcher", ["shared", "basic"])
def test_jobs_in_one_directory_are_refused(command, launcher):
    """The later one would take the place of the earlier one, or fail."""
    settings = ("run.dir=out", "logger=none", "run.resume=force", f"hydra/launcher={launcher}")
    outcome = command.bench("-m", "seed=1,2", "hydra.sweep.subdir=all/./${run.name}", *settings)
    assert outcome.code == 2
    assert "hydra.sweep.subdir" in outcome.err
    assert "jobs 0 and 1 would both be in" in outcome.err or launcher == "basic"
    assert len(list(command.folder.rglob("results.parquet"))) == (launcher == "basic")
    assert not list(command.folder.rglob("replaced"))


def test_the_plugin_is_light():
    plugin = "hydra_plugins.p2p_shared_launcher.shared_launcher"
    code = f"import sys, {plugin}; print([name for name in ('torch', 'p2p_bench') if name in sys.modules])"
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"


def test_shared_jobs_equal_jobs_alone(command):
    alone = sweep(command, "alone", "basic", "run.cache=false")
    assert alone.code == 0, alone.err
    shared = sweep(command, "shared", "shared", "run.cache=false")
    assert shared.code == 0, shared.err
    assert "6 jobs; those that can share their work: 3 + 3" in shared.err
    assert shared.err.count("loading model") == 2
    assert alone.err.count("loading model") == JOBS
    assert f"sweep: shared (6 of {JOBS} jobs without a failure)" in shared.out
    assert_equal_jobs(command.folder / "alone", command.folder / "shared")
    assert spent(command.folder / "shared") < 0.6 * spent(command.folder / "alone")
    assert command("report", "shared").code == 0


def test_another_launcher_takes_a_group_as_a_job(swept):
    wrapped = sweep(swept, "wrapped", "shared_basic")
    assert wrapped.code == 0, wrapped.err
    assert wrapped.err.count("loading model") == 2
    assert_equal_jobs(swept.folder / "whole", swept.folder / "wrapped")
    assert (swept.folder / "wrapped" / "group-1" / "run.log").is_file()


def test_a_killed_sweep_is_resumed(swept, monkeypatch):
    append, calls = RowWriter.append, []

    def interrupted(self: RowWriter, rows):
        calls.append(len(rows))
        if sum(count > 0 for count in calls) > 8:  # in the pass over the second group
            raise KeyboardInterrupt
        append(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(RowWriter, "append", interrupted)
        outcome = sweep(swept, "killed")
    assert outcome.code == 75
    assert f"p2p-bench resume {swept.folder / 'killed'}" in outcome.err
    done = [job.name for job in jobs_of(swept.folder / "killed") if (job / "summary.json").exists()]
    assert 0 < len(done) < JOBS

    monkeypatch.chdir(swept.folder.parent)  # relative paths of the sweep are found from anywhere
    outcome = swept("resume", str(swept.folder / "killed"))
    assert outcome.code == 0, outcome.err
    assert "are there already" in outcome.err
    whole, killed = (swept.folder / name for name in ("whole", "killed"))
    for a, b in zip(jobs_of(whole), jobs_of(killed), strict=True):
        assert_same_rows(rows_of(a), rows_of(b), apart_from=SPENT)
        assert (b / "report.html").is_file()
    outcome = swept("resume", str(swept.folder / "killed"))
    assert outcome.code == 0
    assert "loading model" not in outcome.err


def test_jobs_go_on_alone_where_the_shared_pass_dies(command, monkeypatch):
    edit_pending = bench_run.edit_pending

    def dying(runs, *args, **kwargs):
        if len(runs) > 1:
            raise RuntimeError("the pass died")
        edit_pending(runs, *args, **kwargs)

    monkeypatch.setattr(bench_run, "edit_pending", dying)
    outcome = sweep(command, "sweep", "shared", "dataset.limit=1", "run.images=0")
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("cannot share their work (the pass died); each goes on alone") == 2
    assert outcome.err.count("loading model") == JOBS
    assert "the pass died" in (command.folder / "sweep" / "run.log").read_text()


def test_a_job_that_fails_does_not_lose_the_others_of_its_group(command):
    outcome = command.bench(
        "-m", "controller=replace,refine,auto", "hydra/launcher=shared", "logger=none", "run.dir=sweep",
        pairs=[PAIRS[1]],
    )  # fmt: skip
    assert outcome.code == 1
    assert "job 0 (controller=replace): " in outcome.err
    assert outcome.err.count("loading model") == 1
    good = [(command.folder / "sweep" / str(number) / "summary.json").exists() for number in range(3)]
    assert good == [False, True, True]
    assert "2 of 3 jobs" in outcome.out


def test_jobs_with_masks_of_their_own_share_a_pass(command):
    """The mask of one job is no part of what another computes."""
    for name, half in (("left", slice(0, 8)), ("right", slice(8, 16))):
        pixels = np.zeros((16, 16), np.uint8)
        pixels[:, half] = 255
        Image.fromarray(pixels).save(command.folder / f"{name}.png")
    own = (
        "controller=none,local_blend",
        "controller.mask=left.png,right.png",
        "metrics=pixel",
        "logger=none",
    )
    for launcher, name in (("shared", "together"), ("basic", "alone")):
        done = command.bench("-m", *own, f"run.dir={name}", f"hydra/launcher={launcher}", "run.cache=false")
        assert done.code == 0, done.stderr
    for together, alone in zip(
        *(jobs_of(command.folder / name) for name in ("together", "alone")), strict=True
    ):
        assert_same_rows(rows_of(together), rows_of(alone), apart_from=SPENT)
        sums = [json.loads((job / "summary.json").read_text())["checksums"] for job in (together, alone)]
        assert sums[0] == sums[1]
    found = [row["run_id"] for job in jobs_of(command.folder / "together") for row in rows_of(job).values()]
    assert len(set(found)) == 3


def test_a_damaged_job_does_not_lose_the_others_of_its_group(command):
    assert sweep(command, "sweep", "shared", "run.images=0").code == 0
    before = rows_of(command.folder / "sweep" / "2")
    for job in (0, 2):
        (command.folder / "sweep" / str(job) / "rows" / "part-000000.parquet").unlink()
    (command.folder / "sweep" / "0" / "rows" / "part-000007.parquet").write_bytes(b"PAR1 half a file")
    outcome = command("resume", "sweep")
    assert outcome.code == 1
    assert "part-000007.parquet: not a readable part of rows" in outcome.err
    assert outcome.err.count("error") == 1
    assert f"{JOBS - 1} of {JOBS} jobs" in outcome.out
    assert_same_rows(before, rows_of(command.folder / "sweep" / "2"), apart_from=SPENT)


@pytest.mark.parametrize("swept", ["tau.crss=0.2,0.4", "+extra=1,2", "sampler.stps=range(1,3)"])
def test_a_sweep_over_an_unknown_key_does_not_begin(command, swept):
    outcome = command.bench("-m", swept, "hydra/launcher=shared", "run.dir=sweep")
    assert outcome.code == 2
    assert "unknown key" in outcome.err
    assert outcome.err.count("error:") == 1
    assert not (command.folder / "sweep").exists()


def test_a_run_is_resumed(command, monkeypatch):
    assert command.bench("logger=none", "run.dir=out", "tau=sweep3", "metrics=pixel").code == 0
    before = rows_of(command.folder / "out")
    (command.folder / "out" / "rows" / "part-000000.parquet").unlink()
    monkeypatch.chdir(command.folder.parent)
    outcome = command("resume", str(command.folder / "out"))
    assert outcome.code == 0, outcome.err
    assert "is not what the run was started with" not in outcome.err
    assert_same_rows(before, rows_of(command.folder / "out"))

    config = yaml.safe_load((command.folder / "out" / "config.yaml").read_text())
    edited = {**config, "seed": 7, "tau": {**config["tau"], "cross": 0.1}}
    (command.folder / "out" / "config.yaml").write_text(yaml.safe_dump(edited))
    outcome = command("resume", str(command.folder / "out"))
    assert outcome.code == 0, outcome.err
    changed = "seed: 7 there, 0 here; tau.cross: 0.1 there, 0.8 here"
    assert f"is not what the run was started with ({changed}): a run goes on as it was" in outcome.err
    assert yaml.safe_load((command.folder / "out" / "config.yaml").read_text()) == config
    assert_same_rows(before, rows_of(command.folder / "out"))


def test_a_resumed_job_stays_in_its_sweep(command):
    swept = command.bench("-m", "tau.cross=0.2,0.4", "logger=none", "run.dir='my sweep'", "metrics=none")
    assert swept.code == 0
    assert "one page over all jobs: p2p-bench report 'my sweep'" in swept.out  # as a shell takes it
    job = command.folder / "my sweep" / "1"
    config = yaml.safe_load((job / "config.yaml").read_text())
    assert command("resume", str(job)).code == 0
    assert yaml.safe_load((job / "config.yaml").read_text()) == config
    assert config["started"]["group"] == "my sweep"
    assert config["started"]["job"] == "tau.cross=0.2" or config["started"]["job"] == "tau.cross=0.4"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "nothing to resume; expected a directory with multirun.yaml (a sweep) or config.yaml (a run)"),
        ({"run/config.yaml": "seed: 0\n"}, "such as"),
        ({"config.yaml": "seed: 0\n"}, "does not say how the run was started"),
        ({"config.yaml": "\0"}, "cannot be read"),
        ({"multirun.yaml": "- 1\n"}, "not what a sweep leaves"),
        (
            {
                "multirun.yaml": "hydra: {sweeper: {_target_: x.OptunaSweeper}, runtime: {cwd: .}, "
                "overrides: {task: [], hydra: []}}\n"
            },
            "OptunaSweeper chooses its jobs as it goes",
        ),
    ],
    ids=["empty", "a folder of runs", "half a configuration", "damaged", "no sweep", "a search"],
)
def test_nothing_to_resume(command, files, message):
    folder = command.folder / "folder"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    outcome = command("resume", str(folder))
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("error:") == 1


def test_a_job_that_has_not_begun_names_its_sweep(command):
    (command.folder / "sweep" / "3").mkdir(parents=True)
    (command.folder / "sweep" / "multirun.yaml").write_text("")
    outcome = command("resume", "sweep/3")
    assert outcome.code == 2
    assert f"p2p-bench resume {command.folder / 'sweep'}" in outcome.err
    assert command("resume", "nowhere").code == 2
