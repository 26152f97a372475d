"""What is no run, or a damaged one, is left out by name; nothing foreign is overwritten."""

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2p_bench.bench.rows import RESULTS
from p2p_bench.errors import DataError
from p2p_bench.report import write_folder_report
from tests.report.fake_run import fake_run


def small(folder: Path) -> Path:
    """A run of two samples."""
    return fake_run(folder, samples=2, variants={"none": None, "auto": 0.5}, pictures=False)


def with_table(folder: Path, table: pa.Table) -> None:
    """The same run with another table."""
    pq.write_table(table, folder / RESULTS)


def nulls(folder: Path) -> None:
    """A column of nulls."""
    table = pq.read_table(folder / RESULTS)
    at = table.schema.get_field_index("variant")
    with_table(folder, table.set_column(at, "variant", pa.nulls(len(table), pa.string())))


def foreign(folder: Path) -> None:
    """A table of something else."""
    with_table(folder, pa.table({"a": [1, 2]}))


def other_types(folder: Path) -> None:
    """A metric as text."""
    table = pq.read_table(folder / RESULTS)
    at = table.schema.get_field_index("psnr")
    with_table(folder, table.set_column(at, "psnr", pa.array(["high"] * len(table))))


def outside(folder: Path) -> None:
    """A picture of the reader's."""
    table = pq.read_table(folder / RESULTS)
    at = table.schema.get_field_index("image_source")
    with_table(folder, table.set_column(at, "image_source", pa.array(["../../secret.png"] * len(table))))


@pytest.mark.parametrize("harm", [nulls, foreign, other_types])
def test_a_foreign_table_is_left_out_and_the_others_are_shown(tmp_path, harm):
    small(tmp_path / "good")
    harm(small(tmp_path / "bad"))
    report = write_folder_report([tmp_path], tmp_path / "report")
    assert report.runs == 1
    (left,) = report.left_out
    assert left.path == tmp_path / "bad"
    assert "not written by this program" in left.reason
    assert "bad" in report.page.read_text()


def test_a_picture_outside_its_run_is_not_shown(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"x")
    small(tmp_path / "runs" / "good")
    outside(small(tmp_path / "runs" / "bad"))
    assert write_folder_report([tmp_path / "runs"], tmp_path / "report").runs == 2


def test_a_page_that_is_no_report_is_not_overwritten(tmp_path):
    small(tmp_path / "run")
    page = tmp_path / "site" / "index.html"
    page.parent.mkdir()
    page.write_text("<title>my site</title>")
    with pytest.raises(DataError, match="is no report, and is not overwritten"):
        write_folder_report([tmp_path / "run"], page.parent)
    assert page.read_text() == "<title>my site</title>"
    page.unlink()
    for _ in range(2):  # its own page is
        assert write_folder_report([tmp_path / "run"], page.parent).page == page


def places(value, path=()):
    """Every place in a plain value."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))


ODD = st.sampled_from([None, 3, -1, 10**400, "x", "", [], [1], {}, {"a": 1}, True, math.inf, math.nan])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_summary_is_shown_or_left_out(tmp_path, data):
    small(tmp_path / "good")
    bad = small(tmp_path / "bad")
    summary = json.loads((bad / "summary.json").read_text())
    path = data.draw(st.sampled_from(list(places(summary))))
    odd = data.draw(ODD)
    if not path:
        summary = odd
    else:
        node = summary
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = odd
    (bad / "summary.json").write_text(json.dumps(summary))
    report = write_folder_report([tmp_path / "good", tmp_path / "bad"], tmp_path / "report")
    assert report.runs + len(report.left_out) == 2
