"""The YAML of the metrics group: each names classes with arguments that they take."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import get_class, instantiate

from p2p_bench.errors import P2PError
from p2p_bench.metrics import EditView, Metric, all_columns, evaluate
from p2p_bench.resources import resource_path

FILES = sorted(resource_path("conf", "metrics").glob("*.yaml"))


ASKED = {"url": "http://127.0.0.1:9/v1", "model": "judge", "checksum": "abc"}
"""What the files leave for the user to say; nobody answers there."""


def nodes_of(path: Path) -> dict[str, dict[str, Any]]:
    nodes = yaml.safe_load(path.read_text())
    return {
        name: {key: ASKED[key] if value == "???" else value for key, value in node.items()}
        for name, node in nodes.items()
    }


def exit_code_of_check(metric: Metric) -> int:
    """0 if its files are here, 3 if weights are missing."""
    try:
        metric.check()
    except P2PError as error:
        return error.exit_code
    return 0


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_every_option_makes_metrics(path: Path) -> None:
    nodes = nodes_of(path)
    for node in nodes.values():
        arguments = {key: value for key, value in node.items() if key != "_target_"}
        inspect.signature(get_class(node["_target_"])).bind(**arguments)
    metrics = {name: instantiate(node) for name, node in nodes.items()}
    for metric in metrics.values():
        assert isinstance(metric, Metric)
        assert exit_code_of_check(metric) in (0, 3)
    columns = all_columns(metrics)
    assert len({column.name for column in columns}) == len(columns)


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_every_metric_scores_each_view_alone(path: Path) -> None:
    made = {name: instantiate(node) for name, node in nodes_of(path).items()}
    metrics = {name: metric for name, metric in made.items() if exit_code_of_check(metric) == 0}
    pictures = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    views = [
        EditView(source, edited, "a red circle on grass", "a blue circle on grass")
        for source, edited in pictures.reshape(2, 2, 3, 64, 64)
    ]
    together = evaluate(metrics, views)
    assert [set(row) for row in together] == [{column.name for column in all_columns(metrics)}] * 2
    for view, row in zip(views, together, strict=True):
        assert evaluate(metrics, [view])[0] == pytest.approx(row, rel=1e-3, abs=1e-4, nan_ok=True)


def test_default_fills_every_column_of_the_contract() -> None:
    nodes = yaml.safe_load(resource_path("conf", "metrics", "default.yaml").read_text())
    columns = all_columns({name: instantiate(node) for name, node in nodes.items()})
    assert {column.name for column in columns} == {
        *("mse", "psnr", "ssim", "mse_outside", "psnr_outside", "recon_psnr", "vae_psnr"),
        *("clip_source", "clip_target", "clip_direction", "lpips"),
        *("answer_psnr", "background_error", "attribute_changed", "others_kept"),
    }
    assert {column.backbone for column in columns} == {"", "world"}
