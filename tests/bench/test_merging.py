"""Parts merged into one table block by block, and its rows read when they are asked for."""

import random

import pyarrow.parquet as pq
import pytest

from p2p_bench.bench import merging
from p2p_bench.bench.merging import StoredRows, compact
from p2p_bench.bench.rows import RESULTS, RowWriter, key_of, read_rows, row_columns, row_schema
from p2p_bench.bench.summary import summarise
from tests.bench.test_rows import COLUMNS, make_row
from tests.bench.test_summary import COLUMNS as METRICS
from tests.bench.test_summary import VARIANTS


def write_parts(folder):
    """Parts of three processes, of different sizes, with rows that later ones replace; keys in an order."""
    rng = random.Random(7)
    keys = [(f"s{number}", variant, 0) for number in range(40) for variant in ("none", "r")]
    waiting = keys + rng.sample(keys, 20)
    rng.shuffle(waiting)
    while waiting:
        size = rng.randint(1, 9)
        rows = [
            make_row(sample, variant, psnr=rng.random(), category=rng.choice(["", "x", "y"]))
            for sample, variant, _ in waiting[:size]
        ]
        RowWriter(folder, COLUMNS, process=rng.randrange(3)).append(rows)
        del waiting[:size]
    rng.shuffle(keys)
    return keys


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_a_table_merged_in_blocks_holds_the_latest_rows_in_order(tmp_path, monkeypatch, block):
    keys = write_parts(tmp_path)
    monkeypatch.setattr(merging, "_BLOCK", block)
    monkeypatch.setattr(merging, "_GATHERED", 2)
    latest = {key_of(row): row for row in read_rows(tmp_path)}
    expected = [latest[key] for key in keys[:-5]]
    merged = compact(tmp_path, COLUMNS, keys[:-5])
    table = pq.ParquetFile(tmp_path / RESULTS)
    assert str(table.read().to_pylist()) == str(list(merged)) == str(expected), "as text: NaN is not NaN"
    assert table.num_row_groups == -(-len(expected) // block)
    assert table.schema_arrow.equals(row_schema(COLUMNS))


def test_rows_of_a_file_are_a_sequence(tmp_path, monkeypatch):
    keys = write_parts(tmp_path)
    monkeypatch.setattr(merging, "_BLOCK", 7)
    rows = compact(tmp_path, COLUMNS, keys)
    (tmp_path / RESULTS).unlink()
    whole = [key_of(row) for row in rows]
    assert whole == keys
    assert [key_of(rows[place]) for place in (0, 6, 7, -1)] == [keys[place] for place in (0, 6, 7, -1)]
    assert [key_of(row) for row in rows[5:9]] == keys[5:9]
    assert len(rows) == len(keys)
    with pytest.raises(IndexError):
        rows[len(keys)]
    assert list(StoredRows(None)) == []


def test_a_summary_of_stored_rows_is_that_of_plain_ones(tmp_path):
    keys = write_parts(tmp_path)
    stored = compact(tmp_path, COLUMNS, keys)
    about = {
        "name": "d",
        "variants": VARIANTS,
        "columns": METRICS,
        "settings": {},
        "checksums": {},
        "seed": 0,
    }
    assert str(summarise(stored, **about)) == str(summarise(list(stored), **about))


def test_rows_of_a_version_with_other_columns_are_brought_to_this_one(tmp_path):
    before = {name: value for name, value in make_row("a", old=1.0).items() if name != "lpips"}
    RowWriter(tmp_path, ["old", "psnr"]).append([before])
    (row,) = compact(tmp_path, COLUMNS, [("a", "none", 0)])
    assert (row["psnr"], row["lpips"]) == (20.0, None)
    assert "old" not in row
    assert "old" in row_columns(tmp_path)


def test_rows_are_read_with_the_columns_that_are_wanted_and_there(tmp_path):
    RowWriter(tmp_path, COLUMNS).append([make_row("a"), make_row("b", psnr=1.0)])
    rows = read_rows(tmp_path, ["psnr", "of another version"])
    assert rows[1] == {"sample_id": "b", "variant": "none", "target_index": 0, "psnr": 1.0}
    assert row_columns(tmp_path / "none") == []
