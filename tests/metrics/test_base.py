"""Running of several metrics: columns, names, and what is refused."""

import doctest
import hashlib
import importlib
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
    WorldAttributes,
    all_columns,
    evaluate,
)
from p2p_bench.metrics.base import metric_checksums
from p2p_bench.resources import resource_path
from tests.unchecked import unchecked

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


@pytest.mark.parametrize(
    ("odd", "told"),
    [
        ({"mask": torch.zeros(1, 16)}, r"mask: .*\(16, 16\), got torch.float32 \(1, 16\)"),
        ({"mask": torch.zeros(32, 32)}, r"mask: .*got torch.float32 \(32, 32\)"),
        ({"edited": torch.zeros(1, 16, 16)}, r"edited: .*\(3, 16, 16\), got torch.float32 \(1, 16, 16\)"),
        ({"edited": torch.zeros(3, 16, 16, dtype=torch.uint8)}, "edited: expected floats.*torch.uint8"),
        ({"reconstruction": torch.zeros(3, 8, 8)}, "reconstruction: "),
        ({"answer": torch.zeros(3, 1, 16)}, "answer: "),
        ({"source": torch.zeros(16, 16)}, r"source: expected \(3, height, width\), got \(16, 16\)"),
    ],
)
def test_what_is_of_another_size_is_not_stretched(odd: dict[str, torch.Tensor], told: str) -> None:
    with pytest.raises(ValueError, match=f"EditView: {told}"):
        unchecked(VIEW, **odd).__post_init__()


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
        (None, "metric 'mine' returned a NoneType; expected a list with a dictionary for each edit"),
        ({"fixed": 1.0}, "metric 'mine' returned a dict;"),
        ([0.5], "metric 'mine' returned a list that holds a float;"),
        ([{"fixed": "0.5"}], "metric 'mine' returned '0.5' in column 'fixed'; expected a number"),
        ([{"fixed": None}], "metric 'mine' returned None in column 'fixed'"),
        ([{"fixed": torch.ones(3)}], "metric 'mine' returned Tensor in column 'fixed'"),
        ([{1: 0.5}], r"metric 'mine' returned \[1\]"),
    ],
)
def test_a_failing_metric_is_named(value: object, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        evaluate({"mine": Fixed(value)}, [VIEW])


def test_a_number_of_one_element_is_a_number() -> None:
    assert evaluate({"mine": Fixed([{"fixed": torch.tensor(0.5)}])}, [VIEW]) == [{"fixed": 0.5}]


def test_a_value_out_of_its_range_is_refused_and_rounding_is_not() -> None:
    columns = (MetricColumn("fixed", True, range=(0, 1)),)
    assert evaluate({"mine": Fixed([{"fixed": 1.001}], columns)}, [VIEW]) == [{"fixed": 1.001}]
    for value in (40.0, -0.5):
        with pytest.raises(
            RuntimeError, match=rf"'mine' returned {value:g} in column 'fixed', whose range is"
        ):
            evaluate({"mine": Fixed([{"fixed": value}], columns)}, [VIEW])


def test_a_metric_that_changes_an_image_is_refused() -> None:
    class Spoils(Fixed):
        def __call__(self, views: Sequence[EditView]) -> list[dict[str, float]]:
            views[0].edited.mul_(0.5)
            return [{"fixed": 0.0}]

    view = EditView(torch.zeros(3, 16, 16), torch.ones(3, 16, 16), "a", "b")
    with pytest.raises(RuntimeError, match="metric 'mine' changed an image that it was shown"):
        evaluate({"mine": Spoils(None)}, [view])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"role": "fidelty"}, r"metric column 'x': role: .*Did you mean 'fidelity'"),
        ({"higher_is_better": "lower"}, "metric column 'x': higher_is_better: expected true or false"),
        ({"name": " "}, "name: expected a name"),
    ],
)
def test_a_column_is_checked_when_it_is_made(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        unchecked(MetricColumn("x", True), **changes).__post_init__()


@pytest.mark.parametrize("columns", [("fixed",), MetricColumn("fixed", True), None])
def test_columns_are_a_tuple_of_columns(columns: object) -> None:
    with pytest.raises(
        ConfigError, match=r"metrics\.mine: its `columns` are .*expected a tuple of MetricColumn"
    ):
        all_columns({"mine": Fixed([], columns)})  # type: ignore[arg-type]  # what is no column is meant


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


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_what_a_reader_misreads_is_part_of_its_checksum(tmp_path: Path, file: str) -> None:
    shipped = resource_path("p2p_bench", "world", "weights", "oracle_b")
    copy = Path(shutil.copytree(shipped, tmp_path / "oracle"))
    before = metric_checksums({"a": WorldAttributes(weights=copy)})
    assert before == metric_checksums({"a": WorldAttributes()})
    (copy / file).write_bytes((copy / file).read_bytes() + b" ")
    assert metric_checksums({"a": WorldAttributes(weights=copy)}) != before
