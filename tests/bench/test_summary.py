"""Means over rows, tables, versions."""

import json

import numpy as np
import pytest

from p2p_bench.bench.provenance import git_state, package_versions
from p2p_bench.bench.summary import summarise, write_summary
from p2p_bench.bench.task import Variant
from p2p_bench.controllers import NoControl, Replace
from p2p_bench.metrics.base import MetricColumn
from tests.bench.test_rows import make_row

NAN = float("nan")
VARIANTS = (Variant("none", NoControl(), "none"), Variant("r", Replace(), "replace", "0.8", "0.4"))
COLUMNS = (
    MetricColumn("psnr", True, unit="dB", role="fidelity"),
    MetricColumn("lpips", False, version=2, backbone="world", role="fidelity"),
)
ROWS = [
    make_row("a", "none", psnr=10.0, lpips=NAN),
    make_row("b", "none", psnr=20.0, lpips=0.5),
    make_row("c", "none", psnr=90.0, lpips=0.9, status="error", error="broke"),
    make_row("a", "r", psnr=NAN, lpips=NAN, unet_rows=8.0, unet_rows_spent=6.0),
]


def make_summary():
    """The summary of `ROWS`."""
    settings, checksums = {"seed": 3}, {"model": "ab"}
    return summarise(
        ROWS,
        name="demo",
        variants=VARIANTS,
        columns=COLUMNS,
        settings=settings,
        checksums=checksums,
        seed=3,
    )


@pytest.fixture
def summary():
    return make_summary()


def test_means_leave_out_errors_and_undefined_values(summary):
    none, replace = summary["variants"]["none"], summary["variants"]["r"]
    assert (none["count"], none["failed"], replace["count"]) == (2, 1, 1)
    assert none["metrics"]["psnr"]["mean"] == 15.0
    assert none["metrics"]["lpips"] == pytest.approx(
        {"mean": 0.5, "count": 1, "low": NAN, "high": NAN, "median": 0.5, "missing": 1}, nan_ok=True
    )
    assert replace["metrics"]["psnr"]["count"] == 0
    assert (replace["controller"], replace["tau_cross"], replace["tau_self"]) == ("replace", "0.8", "0.4")


def test_each_category_has_its_statistics():
    values = [(1.0, "x"), (2.0, "x"), (9.0, "x"), (NAN, "x"), (5.0, "y"), (7.0, "")]
    rows = [
        make_row(f"s{place}", "r", psnr=value, lpips=NAN, category=category)
        for place, (value, category) in enumerate(values)
    ]
    summary = summarise(rows, name="d", variants=VARIANTS, columns=COLUMNS, settings={}, checksums={}, seed=0)
    whole = summary["variants"]["r"]
    psnr = whole["metrics"]["psnr"]
    assert (psnr["mean"], psnr["median"], psnr["count"], psnr["missing"]) == (4.8, 5.0, 5, 1)
    assert list(whole["categories"]) == ["x", "y"]
    part = whole["categories"]["x"]
    assert part["count"] == 4
    psnr = part["metrics"]["psnr"]
    assert (psnr["mean"], psnr["median"], psnr["count"], psnr["missing"]) == (4.0, 2.0, 3, 1)
    assert 1.0 <= psnr["low"] < 4.0 < psnr["high"] <= 9.0
    assert part["metrics"]["lpips"]["count"] == 0
    assert summary["variants"]["none"]["categories"] == {}


def test_facts_of_the_run(summary):
    assert summary["schema_version"] == 1
    assert summary["metrics"]["lpips"] == {
        "higher_is_better": False, "unit": "", "label": "",
        "version": 2, "backbone": "world", "role": "fidelity",
        "reader_errors": {}, "note": "", "range": (None, None), "needs_source": True,
    }  # fmt: skip
    totals = summary["totals"]
    assert (totals["samples"], totals["edits"], totals["failed"]) == (3, 4, 1)
    assert (totals["unet_rows"], totals["unet_rows_spent"]) == (11.0, 9.0)
    assert summary["checksums"] == {"model": "ab"}


def test_undefined_numbers_are_null_on_disk(summary, tmp_path):
    back = json.loads(write_summary(tmp_path, summary).read_text())
    assert back["variants"]["r"]["metrics"]["psnr"]["mean"] is None
    assert back["variants"]["none"]["metrics"]["psnr"]["mean"] == 15.0
    assert list(back["variants"]) == ["none", "r"]


def test_provenance():
    assert package_versions()["numpy"] == np.__version__
    git = git_state()
    assert git["commit"] == "" or len(git["commit"]) == 40
