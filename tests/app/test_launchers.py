"""Another launcher, whose jobs run in processes of their own."""

import pickle
import subprocess
import sys
import tempfile
from importlib.util import find_spec

import pytest

from p2p_bench.app.verbs.run import JobFailedError
from tests.app.command import PAIRS, tiny_overrides
from tests.app.test_run import assert_same_rows, rows_of

JOBS = ("-m", "inversion=none,ddim", "controller=replace,refine", "run.images=0", "logger=none")
"""Two groups; in each, `replace` cannot edit the pair."""


def test_the_failure_of_another_process_reaches_this_one():
    failure = pickle.loads(pickle.dumps(JobFailedError(2, "sweep/1")))
    assert (failure.code, failure.run_dir) == (2, "sweep/1")


def needs(plugin: str, extra: str) -> pytest.MarkDecorator:
    """Skips where a launcher of others is not installed."""
    absent = find_spec(f"hydra_plugins.{plugin}") is None
    return pytest.mark.skipif(absent, reason=f"needs {plugin}, the extra p2p_bench[{extra}]")


without_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs ray, the extra p2p_bench[ray]")

LAUNCHERS = [
    pytest.param("shared_joblib", "inner.n_jobs=2", marks=needs("hydra_joblib_launcher", "launchers")),
    pytest.param("shared_ray", "inner.init.num_cpus=2", marks=without_ray),
    pytest.param("ray", "init.num_cpus=2", marks=without_ray),
    pytest.param(
        "shared_submitit_local", "inner.timeout_min=10", marks=needs("hydra_submitit_launcher", "launchers")
    ),
]
"""Launchers that start processes, and a setting of theirs. A cluster for Ray is started here and stopped."""


@pytest.mark.parametrize(("launcher", "setting"), LAUNCHERS)
def test_jobs_in_other_processes_leave_what_jobs_here_leave(command, launcher, setting, monkeypatch):
    assert command.bench(*JOBS, "hydra/launcher=basic", "run.dir=here", pairs=[PAIRS[1]]).code == 1
    # In a process of its own: what pytest hangs on this one cannot be pickled.
    settings = tiny_overrides(command.folder / "pairs.jsonl")
    there = (f"hydra/launcher={launcher}", f"hydra.launcher.{setting}", "run.dir=there")
    typed = [sys.executable, "-m", "p2p_bench", *settings, *JOBS, *there]
    with tempfile.TemporaryDirectory(prefix="ray") as sockets:  # the paths of sockets have to be short
        monkeypatch.setenv("RAY_TMPDIR", sockets)
        ended = subprocess.run(typed, cwd=command.folder, capture_output=True, text=True, check=False)
    log = command.folder / "there" / "0" / "run.log"
    assert ended.returncode == 2, ended.stderr
    assert f"failed; why: {log}" in ended.stderr
    assert "replace" in log.read_text()
    for job in ("1", "3"):
        one, other = (command.folder / sweep / job for sweep in ("here", "there"))
        assert_same_rows(rows_of(one), rows_of(other), apart_from=("unet_rows_spent", "inversion_from"))
        assert (other / "report.html").is_file()
