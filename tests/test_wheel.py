"""The built wheel carries all it needs and runs the demo from an empty directory."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
UV = os.environ.get("UV") or shutil.which("uv")

pytestmark = pytest.mark.skipif(
    UV is None, reason="needs uv to make a fresh environment; `make test` brings one"
)


def call(*command: str | Path, cwd: Path) -> str:
    """Runs a command without the checkout or this session's environment in sight; returns its output."""
    hidden = {"PYTHONPATH", "VIRTUAL_ENV", "PYTEST_CURRENT_TEST"}
    env = {key: value for key, value in os.environ.items() if key not in hidden}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    options = ("--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", out)
    call(str(UV), "build", *options, ROOT, cwd=out)
    return next(out.glob("*.whl"))


def test_wheel_carries_configuration_pairs_and_weights(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "p2p_bench/_bundle/conf/config.yaml" in names
    assert "p2p_bench/_bundle/datasets/world_pairs/demo.jsonl" in names
    assert "p2p_bench/world/weights/MANIFEST.json" in names
    assert "hydra_plugins/p2p_shared_launcher/shared_launcher.py" in names
    assert "hydra_plugins/p2p_search_sweeper/search_sweeper.py" in names
    for part in ("unet", "vae"):
        assert f"p2p_bench/world/weights/pipeline/{part}/diffusion_pytorch_model.safetensors" in names
    assert not [name for name in names if name.startswith(("tests/", "datasets/", "conf/"))]


def test_wheel_runs_the_demo_from_an_empty_directory(wheel: Path, tmp_path: Path) -> None:
    venv, empty = tmp_path / "venv", tmp_path / "empty"
    empty.mkdir()
    call(str(UV), "venv", "--python", sys.executable, venv, cwd=empty)
    python = venv / "bin" / "python"
    call(str(UV), "pip", "install", "--python", python, "--no-deps", wheel, cwd=empty)
    # What it depends on is that of this session, compiled: of a path in a .pth file no other .pth is read, so
    # that the checkout, which such a file names, is not found.
    (own,) = venv.glob("lib/python*/site-packages")
    (own / "session.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    found = call(python, "-c", "import p2p_bench; print(p2p_bench.__file__)", cwd=empty)
    assert Path(found.strip()).is_relative_to(own)

    call(
        venv / "bin" / "p2p-bench", "run", "experiment=demo", "dataset.limit=2", "sampler.steps=3", cwd=empty
    )

    reports = list(empty.glob("outputs/demo/*/report.html"))
    assert len(reports) == 1, sorted(empty.rglob("*"))
    summary = json.loads((reports[0].parent / "summary.json").read_text())
    assert summary["totals"]["samples"] == 2
    assert len(summary["variants"]) == 4
    weights = summary["metrics"]["attribute_changed"]["weights"]
    assert weights == summary["checksums"]["metrics.world_attributes"]
