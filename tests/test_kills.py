"""Runs are killed at random points and finished, as `experiments/reliability/kills.py` does it."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "experiments" / "reliability" / "kills.py"


KILLS = "3"
"""Of each kind of run; experiments/reliability has 30."""


def test_killed_runs_go_on_and_end_as_others(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(SCRIPT),
        "--kills",
        KILLS,
        "--seed",
        "7",
        "--out",
        str(tmp_path / "log"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    lines = re.findall(r"^\| (\w+) \| (\d+) \|.* \| (\d+) \|$", (tmp_path / "log").read_text(), re.MULTILINE)
    assert lines == [(mode, KILLS, "0") for mode in ("default", "ddp", "sweep")]
