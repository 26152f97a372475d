"""Every importer's data is checked, run on a tiny model, and scored: the run's pictures, a folder's."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from p2p_bench.app.compose import group_options
from tests.data.fake import (
    csv_folder,
    gedit,
    hf_parquet,
    imgedit,
    instruct_pix2pix,
    pie_bench,
    pie_bench_pp,
    ti2i,
    webdataset,
)
from tests.data.fake.tables import brush, captions, emu, make, ted
from tests.data.importing import tiny

SOURCE, TARGET = "a red circle on grass", "a blue circle on grass"
QUIET = ("logger=none", "trainer.accelerator=cpu")


def side(folder: Path, *ids: str, target: bool = True) -> list[str]:
    """The prompts of instruction-only sets, as an override."""
    lines = [{"id": id, "source": SOURCE, **({"target": TARGET} if target else {})} for id in ids]
    return [f"dataset.captions={captions(folder / 'captions.jsonl', *lines)}"]


def magicbrush(folder: Path) -> list[str]:
    make(folder, "dev", [brush("7", 1), brush("7", 2)])
    return side(folder, "7-1", "7-2")


def tedbench(folder: Path) -> list[str]:
    make(folder, "val", [ted(TARGET), ted(TARGET)])
    return side(folder, "0", "1", target=False)


def emu_edit(folder: Path) -> list[str]:
    make(folder, "validation", [emu(1), emu(2)])
    return []


def gedit_bench(folder: Path) -> list[str]:
    gedit.make(folder, [gedit.row("1082"), gedit.row("673")])
    return side(folder, "1082", "673")


def imgedit_bench(folder: Path) -> list[str]:
    imgedit.make(folder)
    return side(folder, "1082", "673")


def plug_and_play(folder: Path) -> list[str]:
    ti2i.make(folder)
    return [f"dataset.captions={captions(folder / 'c.jsonl', {'id': '0', 'source': 'a green circle'})}"]


def released(folder: Path) -> list[str]:
    pie_bench.make(folder)
    return ["controller=pie"]


def repackaged(folder: Path) -> list[str]:
    pie_bench_pp.make(folder)
    return ["controller=pie"]


def jsonl(folder: Path) -> list[str]:
    """Not an importer of a published set, and the one whose path is a file."""
    csv_folder.make(folder)
    line = {"id": "one", "source": SOURCE, "target": TARGET, "image": "in/a.png", "mask": "m.png"}
    (folder / "pairs.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    return [f"dataset.path={folder / 'pairs.jsonl'}"]


def made_by(write: Callable[[Path], Any]) -> Callable[[Path], list[str]]:
    def written(folder: Path) -> list[str]:
        write(folder)
        return []

    return written


SETS: Mapping[str, Callable[[Path], list[str]]] = {
    "csv_folder": made_by(csv_folder.make),
    "emu_edit": emu_edit,
    "gedit": gedit_bench,
    "hf_parquet": made_by(hf_parquet.make),
    "imgedit": imgedit_bench,
    "instruct_pix2pix": made_by(instruct_pix2pix.make),
    "jsonl": jsonl,
    "magicbrush": magicbrush,
    "pie_bench": released,
    "pie_bench_pp": repackaged,
    "tedbench": tedbench,
    "ti2i": plug_and_play,
    "webdataset": made_by(webdataset.make),
}


def test_every_importer_is_here() -> None:
    assert {name for name in group_options("dataset") if not name.startswith("world")} == set(SETS)


@pytest.mark.parametrize("name", SETS)
def test_it_is_checked_run_and_scored(command: Any, name: str) -> None:
    folder = command.folder / "set"
    folder.mkdir()
    more = SETS[name](folder)
    path = [] if any(text.startswith("dataset.path=") for text in more) else [f"dataset.path={folder}"]
    chosen = [f"dataset={name}", *path, *more, "dataset.limit=2"]

    checked = command("check", "--json", "--decode", *chosen)
    assert checked.code == 0, checked.out
    found = json.loads(checked.out)
    assert (found["errors"], found["cannot"]) == ([], 0)

    run = command("run", *chosen, *tiny(), "run.images=null", "run.dir=run")
    assert run.code == 0, run.err
    rows = rows_of(command.folder / "run")
    assert len(rows) == found["edits"]

    again = command("score", "run", "metrics=[pixel,region]", *QUIET, "run.dir=again")
    assert again.code == 0, again.err
    assert rows_of(command.folder / "again").keys() == rows.keys()

    for key, row in rows.items():
        file = command.folder / "made" / key[1] / f"{key[0]}_{key[2]}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(command.folder / "run" / row["image_target"], file)
    data = [text for text in chosen if not text.startswith("controller=")]
    pattern = "score.pattern={variant}/{id}_{target}.png"
    scored = command(
        "score",
        "made",
        *data,
        pattern,
        "metrics=[pixel,region]",
        *QUIET,
        "dataset.fit=crop",
        "run.dir=scored",
    )
    assert scored.code == 0, scored.err
    of_run, of_folder = rows_of(command.folder / "again"), rows_of(command.folder / "scored")
    assert {key: row["mse"] for key, row in of_folder.items()} == {
        key: row["mse"] for key, row in of_run.items()
    }
    assert {row["status"] for row in of_folder.values()} == {"ok"}


def rows_of(folder: Path) -> dict[tuple[str, str, int], Mapping[str, Any]]:
    table = pq.read_table(folder / "results.parquet").to_pylist()
    return {(row["sample_id"], row["variant"], row["target_index"]): row for row in table}
