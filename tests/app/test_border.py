"""Whole runs with a family and an editor that are not ours, from a configuration folder that is not ours."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from p2p_bench.app.compose import group_options
from tests.app.command import Command, write_pairs

STUBS = Path(__file__).resolve().parent.parent / "stubs" / "conf"


def rows(folder: Path) -> dict[tuple[Any, ...], Mapping[str, Any]]:
    table = pq.read_table(folder / "results.parquet").to_pylist()
    for row in table:
        for name in ("seconds", "peak_memory_mb", "unet_rows_spent", "run_id"):
            row.pop(name)
    return {(row["sample_id"], row["variant"], row["target_index"]): row for row in table}


def same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Equal, a value that is not a number to itself too."""
    return all(a[key] == b[key] or (a[key] != a[key] and b[key] != b[key]) for key in (*a, *b))


def bench(command: Command, *overrides: str) -> list[str]:
    pairs = write_pairs(command.folder / "pairs.jsonl")
    return [
        "run", "--config-dir", str(STUBS), "run.trust=true", "dataset=jsonl", f"dataset.path={pairs}",
        "logger=none", "metrics=none", "run.batch_size=1", "trainer.accelerator=cpu", *overrides,
    ]  # fmt: skip


def resumed(command: Command, *overrides: str) -> list[Mapping[str, Any]]:
    """The rows of a run, which are the same after a part of them was lost and made again."""
    done = command(*bench(command, *overrides, "run.dir=done"))
    assert (command.folder / "done" / "results.parquet").is_file(), done.err
    whole = rows(command.folder / "done")
    assert done.code == any(row["status"] == "error" for row in whole.values()), done.err
    parts = sorted((command.folder / "done" / "rows").glob("part-*.parquet"))
    assert len(parts) > 1
    parts[-1].unlink()
    (command.folder / "done" / "results.parquet").unlink()
    again = command("resume", "--trust", "done")
    assert again.code == done.code, again.err
    found = rows(command.folder / "done")
    assert found.keys() == whole.keys()
    assert all(same(found[key], whole[key]) for key in whole)
    return list(whole.values())


def test_a_run_of_another_family_is_resumed(command: Command) -> None:
    found = resumed(command, "model=flow", "run.baseline=true")
    assert {(row["status"], row["model"]) for row in found} == {("ok", "flow")}


APART = {"finished", "folder", "instruct"}
"""Editors that find images instead of making them, see test_score.py, or need another model and data."""


@pytest.mark.parametrize("option", [*sorted({*group_options("editor")} - APART), "painter"])
def test_a_run_of_every_editor_is_resumed(command: Command, option: str) -> None:
    found = resumed(command, "model=flow", f"editor={option}", "controller=none")
    # What is not made says why.
    assert {row["status"] for row in found} <= {"ok", "error"}
    assert all((row["status"] == "error") == bool(row["error"]) for row in found)


def test_another_editor_leaves_rows_pictures_and_reasons(command: Command) -> None:
    done = command(*bench(command, "editor=painter", "controller=none", "run.dir=painted"))
    assert done.code == 1, done.err
    assert (command.folder / "painted" / "results.parquet").is_file(), done.err
    made = rows(command.folder / "painted")
    assert made["swap", "none", 0]["status"] == "ok"
    assert (command.folder / "painted" / made["swap", "none", 0]["image_target"]).is_file()
    failed = made["own/ü", "none", 0]
    assert (failed["status"], failed["error"]) == ("error", "no colour in 'a dog in water'")
    assert {row["unet_rows"] for row in made.values()} == {0.0}
    # Its settings are settings of the run.
    other = command(
        *bench(command, "editor=painter", "editor.strength=0.2", "controller=none", "run.dir=painted")
    )
    assert other.code == 2
    assert "editor.strength: 0.5 there, 0.2 here" in other.err


def test_one_edit_by_an_editor_without_attention(command: Command) -> None:
    typed = [
        "edit", "--source", "a grey wall", "--target", "a red wall", "run.trust=true",
        "editor._target_=tests.stubs.painter.Painter", "trainer.accelerator=cpu",
    ]  # fmt: skip
    done = command(*typed, "--out", "pictures")
    assert done.code == 0, done.err
    assert "loading Painter" in done.err
    assert (command.folder / "pictures" / "target_1.png").is_file()
    asked = command(*typed, "--out", "more", "--heatmaps")
    assert asked.code == 2
    assert "--heatmaps: this editor keeps no attention" in asked.err
