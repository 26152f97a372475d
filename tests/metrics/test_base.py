"""Running of several metrics: columns, names, and what is refused."""

import doctest
import hashlib
import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch

from p2p_bench.errors import ConfigError, MissingWeightsError
from p2p_bench.metrics import (
    EditView,
    Lpips,
    Metric,
    MetricColumn,
    PixelScores,
    Reconstruction,
    all_columns,
    evaluate,
)
from p2p_bench.metrics.base import metric_checksums
from p2p_bench.resources import resource_path

VIEW = EditView(torch.zeros(3, 16, 16), torch.ones(3, 16, 16), "a", "b")


@dataclass
class Fixed:
    """Returns what it is told to."""

    value: object
    columns: tuple[MetricColumn, ...] = (MetricColumn("fixed", True),)

    def check(self) -> None:
        pass

    def __call__(self, views: Sequence[EditView]) -> list[dict[str, float]]:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value  # type: ignore[return-value]  # the fault under test


def test_every_metric_of_every_view() -> None:
    metrics: dict[str, Metric] = {"pixel": PixelScores(), "reconstruction": Reconstruction()}
    rows = evaluate(metrics, [VIEW, VIEW])
    assert rows[0].keys() == {column.name for column in all_columns(metrics)}
    assert rows[0]["mse"] == rows[1]["mse"] == 1.0
    assert math.isnan(rows[0]["recon_psnr"])
    assert evaluate({}, [VIEW]) == [{}]
    assert evaluate(metrics, []) == []


def test_columns_say_what_they_are() -> None:
    for column in (*PixelScores().columns, *Reconstruction().columns):
        assert column.label
        assert column.version >= 1
        assert column.role in ("fidelity", "editability", "other")


def test_two_metrics_may_not_share_a_column() -> None:
    with pytest.raises(ConfigError, match=r"'one' and 'two' both fill the column 'fixed'.*~metrics\.two"):
        all_columns({"one": Fixed([]), "two": Fixed([])})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (KeyError("x"), "metric 'mine' failed: KeyError: 'x'"),
        ([], "metric 'mine' returned 0 results for 1 edits"),
        ([{"other": 1.0}], r"metric 'mine' returned \['other'\], its columns are \['fixed'\]"),
        ([{"fixed": math.inf}], "metric 'mine' returned an infinite value"),
    ],
)
def test_a_failing_metric_is_named(value: object, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        evaluate({"mine": Fixed(value)}, [VIEW])


def test_errors_for_the_user_pass_unchanged() -> None:
    with pytest.raises(MissingWeightsError, match=r"^not here$"):
        evaluate({"mine": Fixed(MissingWeightsError("not here"))}, [VIEW])


@pytest.mark.parametrize("module", ["pixel", "clip", "region", "ms_ssim", "structure", "pie", "pie_clip"])
def test_examples_in_docstrings(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"p2p_bench.metrics.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


def test_checksums_are_those_of_the_files() -> None:
    file = resource_path("p2p_bench", "world", "weights", "lpips") / "model.safetensors"
    assert metric_checksums({"a": Lpips(), "pixel": PixelScores()}) == {
        "metrics.a": hashlib.sha256(file.read_bytes()).hexdigest()
    }
