"""Rows on disk: whole or absent, and complete after a restart."""

import multiprocessing
import os
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from p2p_bench.bench import rows as rows_module
from p2p_bench.bench.merging import compact
from p2p_bench.bench.rows import (
    IMAGE_COLUMNS,
    RowWriter,
    key_of,
    read_rows,
    row_schema,
    write_atomically,
)
from p2p_bench.errors import DataError

COLUMNS = ["psnr", "lpips"]


def make_row(sample="a", variant="none", index=0, **values):
    """A complete row."""
    row = dict.fromkeys(row_schema(COLUMNS).names, "")
    row.update(sample_id=sample, variant=variant, target_index=index, steps=2, seed=2**63 - 1, status="ok")
    numbers = ("guidance", "seconds", "unet_rows", "unet_rows_spent", "unet_rows_backward", "peak_memory_mb")
    row.update(dict.fromkeys(numbers, 1.0))
    row.update(psnr=20.0, lpips=float("nan"))
    return {**row, **values}


def test_rows_come_back_as_they_were_written(tmp_path):
    writer = RowWriter(tmp_path, COLUMNS)
    writer.append([make_row("a"), make_row("ü/../b", "auto 0.2/0.1")])
    writer.append([make_row("c", psnr=float("nan"))])
    back = read_rows(tmp_path)
    assert [key_of(row) for row in back] == [
        ("a", "none", 0),
        ("ü/../b", "auto 0.2/0.1", 0),
        ("c", "none", 0),
    ]
    assert back[0]["seed"] == 2**63 - 1
    assert back[0]["psnr"] == 20.0
    assert back[0]["lpips"] != back[0]["lpips"]


def test_a_later_row_of_a_key_replaces_the_earlier_one(tmp_path):
    RowWriter(tmp_path, COLUMNS).append([make_row("a", status="error"), make_row("b")])
    RowWriter(tmp_path, COLUMNS).append([make_row("a", psnr=30.0)])
    rows = read_rows(tmp_path)
    assert [(row["sample_id"], row["status"], row["psnr"]) for row in rows] == [
        ("a", "ok", 30.0),
        ("b", "ok", 20.0),
    ]


def test_compact_orders_and_leaves_out_foreign_rows(tmp_path):
    RowWriter(tmp_path, COLUMNS).append([make_row("a"), make_row("b"), make_row("gone")])
    written = compact(tmp_path, COLUMNS, [("b", "none", 0), ("missing", "none", 0), ("a", "none", 0)])
    table = pq.read_table(tmp_path / "results.parquet")
    assert [row["sample_id"] for row in written] == table.column("sample_id").to_pylist() == ["b", "a"]
    assert table.schema.equals(row_schema(COLUMNS))
    assert set(IMAGE_COLUMNS) < set(table.column_names)


def test_an_empty_run_has_an_empty_table(tmp_path):
    assert list(compact(tmp_path, COLUMNS, [])) == []
    assert pq.read_table(tmp_path / "results.parquet").num_rows == 0


def test_rows_of_another_shape_are_refused(tmp_path):
    writer = RowWriter(tmp_path, COLUMNS)
    with pytest.raises(ValueError, match="ssim"):
        writer.append([{**make_row(), "ssim": 1.0}])
    writer.append([make_row("a")])
    RowWriter(tmp_path, [*COLUMNS, "ssim"]).append([{**make_row("b"), "ssim": 1.0}])
    with pytest.raises(DataError, match="columns differ"):
        read_rows(tmp_path)


def test_a_damaged_part_is_named(tmp_path):
    RowWriter(tmp_path, COLUMNS).append([make_row()])
    part = tmp_path / "rows" / "part-000000.parquet"
    part.write_bytes(part.read_bytes()[:50])
    with pytest.raises(DataError, match="part-000000"):
        read_rows(tmp_path)


def test_an_interrupted_write_leaves_no_part(tmp_path, monkeypatch):
    writer = RowWriter(tmp_path, COLUMNS)
    writer.append([make_row("a")])

    def cut_off(table, path):
        path.write_bytes(b"PAR1 half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(rows_module.pq, "write_table", cut_off)
    with pytest.raises(KeyboardInterrupt):
        writer.append([make_row("b")])
    monkeypatch.undo()
    assert [row["sample_id"] for row in read_rows(tmp_path)] == ["a"]
    RowWriter(tmp_path, COLUMNS).append([make_row("b")])
    assert [row["sample_id"] for row in read_rows(tmp_path)] == ["a", "b"]


def _write_until_killed(folder):
    writer = RowWriter(folder, COLUMNS)
    for number in range(10**6):
        writer.append([make_row(f"{number:06d}")])


def test_a_killed_writer_leaves_whole_parts(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_write_until_killed, args=(tmp_path,))
    process.start()
    while len(list(tmp_path.glob("rows/part-*.parquet"))) < 5:
        process.join(0.01)
        assert process.exitcode is None
    process.kill()
    process.join()
    rows = read_rows(tmp_path)
    assert [row["sample_id"] for row in rows] == [f"{number:06d}" for number in range(len(rows))]
    assert len(rows) >= 5


def test_writing_atomically_replaces_the_whole_file(tmp_path):
    path = tmp_path / "file.txt"
    write_atomically(path, lambda temporary: temporary.write_text("old"))
    with pytest.raises(OSError, match="full"):
        write_atomically(path, _half_then_fail)
    assert path.read_text() == "old"
    write_atomically(path, lambda temporary: temporary.write_text("new"))
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["file.txt"]


def _half_then_fail(temporary):
    temporary.write_text("n")
    raise OSError("the disk is full")


@pytest.mark.parametrize("engine", ["pyarrow.dataset", "duckdb"])
def test_the_documented_queries_over_a_run_that_goes_on(tmp_path, monkeypatch, capsys, engine):
    pytest.importorskip(engine)
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    (query,) = (block for block in blocks if f"import {engine}" in block)
    run_dir = tmp_path / "outputs" / "run" / "DIR"
    RowWriter(run_dir, COLUMNS).append([make_row("a", psnr=20.0), make_row("b", psnr=25.0)])
    RowWriter(run_dir, COLUMNS).append([make_row("c", status="error", psnr=float("nan"))])
    (run_dir / "rows" / ".part-000002.parquet.tmp").write_bytes(b"half")
    monkeypatch.chdir(tmp_path)
    exec(compile(query, "README.md", "exec"), {})
    said = capsys.readouterr().out
    assert "22.5" in said
    assert "error" in said
