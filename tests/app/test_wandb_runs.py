"""W&B runs of a real run, read back from the disk: every figure is that of the rows of its variant."""

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from p2p_bench.bench.rows import read_rows
from p2p_bench.stats import mean_interval
from tests.app.command import PAIRS, SWEEP, tiny_overrides, write_pairs
from tests.bench.wandb_records import OfflineRun, offline_runs

NO_FIGURES = ("variant", "edits", "_wandb", "_step", "_runtime", "_timestamp")
COSTS = ("unet_rows", "unet_rows_spent", "seconds")
METRICS = ("ssim", "mse", "psnr")
"""Those that have values without an image; the others of the option have none here."""
TAUS = {"auto 0.2/0.1": (0.2, 0.1), "auto 0.5/0.25": (0.5, 0.25), "auto 0.8/0.4": (0.8, 0.4)}
BAD = {"id": "bad", "source": "a cat", "target": "a dog", "image": "bad.png"}
"""A pair that cannot be edited."""


@pytest.fixture(autouse=True)
def no_key(monkeypatch, tmp_path):
    for name in [*filter(re.compile("WANDB_[^_]").match, os.environ), "NETRC"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def defined(rows: list[dict[str, Any]], metric: str) -> list[float]:
    return [row[metric] for row in rows if not math.isnan(row[metric])]


def totals(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {
        **{cost: math.fsum(row[cost] for row in rows) for cost in COSTS},
        "samples": len({row["sample_id"] for row in rows}),
        "edits": len(rows),
        "failed": len([row for row in rows if row["status"] == "error"]),
    }


def figures(rows: list[dict[str, Any]], variant: str, metrics: Iterable[str]) -> dict[str, float]:
    """What a variant's run must hold, from the rows alone."""
    own = [row for row in rows if row["variant"] == variant]
    good = [row for row in own if row["status"] == "ok"]
    found = {f"totals/{key}": value for key, value in totals(own).items()}
    found |= {f"run_totals/{key}": value for key, value in totals(rows).items()}
    found["run_totals/promised"] = len(rows)
    found |= {cost: found[f"totals/{cost}"] for cost in COSTS}
    found |= {"count": len(good), "failed": len(own) - len(good)}
    if variant in TAUS:
        found |= dict(zip(("tau_cross", "tau_self"), TAUS[variant], strict=True))
    for name in metrics:
        values = defined(good, name)
        found |= {f"{name}/count": len(values), f"{name}/missing": len(good) - len(values)}
        if not values:
            continue
        ends = mean_interval([row[name] for row in good], [row["sample_id"] for row in good])
        found |= {name: math.fsum(values) / len(values), f"{name}/low": ends.low, f"{name}/high": ends.high}
        for category in {row["category"] for row in good} - {""}:
            values = defined([row for row in good if row["category"] == category], name)
            found[f"category/{category}/{name}"] = math.fsum(values) / len(values)
            found[f"category/{category}/{name}/count"] = len(values)
    return found


def assert_figures(run: OfflineRun, rows: list[dict[str, Any]], metrics: Iterable[str]) -> None:
    variant = run.config["variant"]["name"]
    expected = figures(rows, variant, metrics)
    held = {key: value for key, value in run.summary.items() if key.split("/")[0] not in NO_FIGURES}
    assert held == pytest.approx(expected, rel=1e-9)
    assert all(type(value) in (int, float) for value in held.values())
    (step,) = (item for item in run.history if "variant" in item)
    plotted = {key: value for key, value in step.items() if key.split("/")[0] not in NO_FIGURES}
    assert {*METRICS, *COSTS, "count", "failed"} <= set(plotted)
    assert plotted == pytest.approx({key: expected[key] for key in plotted}, rel=1e-9)
    assert (step["variant"], run.summary["variant"]) == (variant, variant)


def test_every_figure_of_every_variant_is_that_of_its_rows(command):
    (command.folder / "bad.png").write_bytes(b"no picture")
    settings = (SWEEP, "run.baseline=true", "metrics=pixel", "logger=wandb", "run.dir=out", "run.images=0")
    for _ in range(2):  # the second time there is nothing left to edit, and the runs are the same
        assert command.bench(*settings, pairs=[*PAIRS, BAD]).code == 1
        runs = offline_runs(command.folder / "out")
        assert [run.config["variant"]["name"] for run in runs] == ["none", *TAUS]
    rows = read_rows(command.folder / "out")
    summary = json.loads((command.folder / "out" / "summary.json").read_text())
    assert len({run.run_id for run in runs}) == 4
    for run in runs:
        assert_figures(run, rows, summary["metrics"])
        variant = run.config["variant"]["name"]
        cross, self_attn = TAUS.get(variant, (None, None))
        assert run.config["tau"] == {"cross": cross, "self_attn": self_attn}
        assert run.config["controller"].get("cross") == cross
        assert run.config["variant"]["tau_cross"] == cross
        chosen = {key: run.config[f"choice/{key}"] for key in ("model", "inversion", "dataset", "controller")}
        controller = "none" if variant == "none" else "auto"
        assert chosen == {
            "model": "local", "inversion": "ddim", "dataset": "jsonl", "controller": controller,
        }  # fmt: skip
        assert {"local", "ddim", "jsonl", controller} <= set(run.tags)
        assert run.config["run_id"] == rows[0]["run_id"]
        assert all(run.config[key] == summary[key] for key in ("versions", "git", "checksums"))
        assert run.config["sampler"]["steps"] == 2
        assert not any(key.startswith("hydra/") for key in run.config)


def sweep_of_the_readme() -> dict[str, Any]:
    text = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    (block,) = (part.split("```")[0] for part in text.split("```yaml\n")[1:] if "args_no_hyphens" in part)
    return yaml.safe_load(block)


def test_what_an_agent_runs_is_one_run_of_its_sweep(tmp_path):
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args  # a second, for this test alone

    sweep = sweep_of_the_readme()
    chosen = {
        key: {"value": about.get("min", about.get("value"))} for key, about in sweep["parameters"].items()
    }
    arguments = create_sweep_command_args({"args": chosen})["args_no_hyphens"]
    at = sweep["command"].index("${args_no_hyphens}")
    assert sweep["command"][0] == "p2p-bench"
    typed = [*sweep["command"][1:at], *arguments, *sweep["command"][at + 1 :]]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"wandb_version": 1, **chosen}))
    environment = {
        **os.environ, "WANDB_RUN_ID": "r1", "WANDB_SWEEP_ID": "s1", "WANDB_DIR": str(tmp_path),
        "WANDB_SWEEP_PARAM_PATH": str(tmp_path / "params.yaml"), "WANDB_PROJECT": "swept",
    }  # fmt: skip
    tiny = [*tiny_overrides(write_pairs(tmp_path / "pairs.jsonl")), "metrics=pixel", "run.dir=out"]
    command = [sys.executable, "-m", "p2p_bench", *typed, *tiny]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    (run,) = offline_runs(tmp_path)
    assert (run.run_id, run.sweep_id, run.project) == ("r1", "s1", "swept")
    assert run.summary[METRICS[0]] == figures(read_rows(tmp_path / "out"), "auto", METRICS)[METRICS[0]]
    for key, about in chosen.items():
        assert run.config[key] == about["value"], "what the sweep chose, as the server knows it"
    assert run.config["tau"]["cross"] == chosen["tau.cross"]["value"]
