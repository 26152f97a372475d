"""The YAML of the metrics group: each names classes with arguments that they take."""

import inspect
from pathlib import Path

import pytest
import yaml
from hydra.utils import get_class, instantiate

from p2p_bench.errors import P2PError
from p2p_bench.metrics import Metric, all_columns
from p2p_bench.resources import resource_path

FILES = sorted(resource_path("conf", "metrics").glob("*.yaml"))


def exit_code_of_check(metric: Metric) -> int:
    """0 if its files are here, 3 if weights are missing."""
    try:
        metric.check()
    except P2PError as error:
        return error.exit_code
    return 0


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_every_option_makes_metrics(path: Path) -> None:
    nodes = yaml.safe_load(path.read_text())
    for node in nodes.values():
        arguments = {key: value for key, value in node.items() if key != "_target_"}
        inspect.signature(get_class(node["_target_"])).bind(**arguments)
    metrics = {name: instantiate(node) for name, node in nodes.items()}
    for metric in metrics.values():
        assert isinstance(metric, Metric)
        assert exit_code_of_check(metric) in (0, 3)
    columns = all_columns(metrics)
    assert len({column.name for column in columns}) == len(columns)


def test_default_fills_every_column_of_the_contract() -> None:
    nodes = yaml.safe_load(resource_path("conf", "metrics", "default.yaml").read_text())
    columns = all_columns({name: instantiate(node) for name, node in nodes.items()})
    assert {column.name for column in columns} == {
        *("mse", "psnr", "ssim", "mse_outside", "psnr_outside", "recon_psnr", "vae_psnr"),
        *("clip_source", "clip_target", "clip_direction", "lpips"),
        *("answer_psnr", "background_error", "attribute_changed", "others_kept"),
    }
    assert {column.backbone for column in columns} == {"", "world"}
