"""MagicBrush, TEdBench and Emu Edit: instructions, and prompts from a side file."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from p2p_bench.data import load_pair
from p2p_bench.data.emu_edit import EmuEdit
from p2p_bench.data.magicbrush import MagicBrush
from p2p_bench.data.tedbench import TEdBench
from p2p_bench.errors import DataError, ErrorList
from tests.data.fake.tables import brush, captions, cell, emu, make, ted
from tests.data.importing import planned, ran

SIZE = (64, 64)
SOURCE, TARGET = "a red circle on grass", "a blue circle on grass"


def line(id: str, **changes: Any) -> dict[str, Any]:
    return {"id": id, "source": SOURCE, "target": TARGET, **changes}


def test_magicbrush(tmp_path: Path) -> None:
    make(tmp_path, "dev", [brush("7", 1), brush("7", 2)], [brush("8", 1)])
    file = captions(tmp_path / "c.jsonl", line("8-1"), line("7-1", blend_words=["red", "blue"]), line("7-2"))
    dataset = MagicBrush(tmp_path, captions=file)
    pairs = dataset.pairs()
    assert [pair.id for pair in pairs] == ["7-1", "7-2", "8-1"]
    assert {pair.instruction for pair in pairs} == {"make it blue"}
    assert [pair.source_prompt for pair in pairs] == [SOURCE] * 3
    assert [pair.blend_words for pair in pairs] == [(("red",), ("blue",)), None, None]
    loaded = [load_pair(dataset, pair, SIZE) for pair in pairs]
    assert [one.error for one in loaded] == [None] * 3
    images = [one.image for one in loaded]
    assert images[0] is not None
    assert images[1] is not None
    assert images[2] is not None
    assert torch.equal(images[0], images[2])
    assert not torch.equal(images[0], images[1])
    assert all(one.mask is not None and one.mask.sum() == 64 * 32 and one.answer is None for one in loaded)


def test_what_is_missing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, "dev", [brush("7", turn) for turn in range(1, 6)])
    with pytest.raises(DataError) as caught:
        MagicBrush(tmp_path).pairs()
    for told in (
        "5 of 5 edits have no prompts ('7-1', '7-2', '7-3', ...)",
        "magicbrush has instructions only, and Prompt-to-Prompt needs a prompt of the source",
        'dataset.captions=FILE, a JSONL file with a line {"id": "7-1", "source": "...", "target": "..."}',
    ):
        assert told in str(caught.value)
    file = captions(tmp_path / "c.jsonl", line("7-2"))
    with pytest.raises(DataError, match=r"c\.jsonl: 4 of 5 edits have no prompts.*captioned_only=true"):
        MagicBrush(tmp_path, captions=file).pairs()
    assert [pair.id for pair in MagicBrush(tmp_path, captions=file, captioned_only=True).pairs()] == ["7-2"]
    assert "captioned_only=true leaves out 4 of 5 edits, which have no prompts" in caplog.text
    captions(file, line("7-1"), line("7-2"))
    assert len(MagicBrush(tmp_path, captions=file, limit=2).pairs()) == 2
    with pytest.raises(DataError, match="1 of 3 edits"):
        MagicBrush(tmp_path, captions=file, limit=3).pairs()


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([line("7-9")], "the data set has no edit of id '7-9'. Did you mean '7-1'?"),
        ([line("7-1", image="x.png")], "id '7-1': a line of captions may have id, source"),
        ([line("7-1", seed=3)], "id '7-1': a line of captions may have id, source"),
        ([line("7-1", instruction="make it blue")], "id '7-1': a line of captions may have id, source"),
        ([{"id": "7-1", "source": "a"}], "line 1: target_prompt: missing"),
        ([{"id": "7-1", "target": "a"}], "line 1: source_prompt: missing"),
        ([{"source": "a", "target": "b"}], "line 1: id: missing; the line has to say which edit"),
        ([line("7-1"), line("7-1")], "line 2: id: '7-1' is taken by line 1"),
        ([line("7-1", word="a")], "word: unknown key"),
    ],
)
def test_bad_captions_are_named(tmp_path: Path, lines: list[Any], told: str) -> None:
    make(tmp_path, "dev", [brush("7", 1)])
    with pytest.raises((DataError, ErrorList), match=r"c\.jsonl") as caught:
        MagicBrush(tmp_path, captions=captions(tmp_path / "c.jsonl", *lines)).pairs()
    assert told in str(caught.value)
    with pytest.raises(DataError, match=r"none\.jsonl: no such file; dataset\.captions is"):
        MagicBrush(tmp_path, captions=tmp_path / "none.jsonl").pairs()


def test_bad_rows_are_named(tmp_path: Path) -> None:
    make(tmp_path, "dev", [brush("7", 1), brush("7", 1, instruction=" "), brush("", 1), brush("7", 1)])
    with pytest.raises(ErrorList, match="3 faults") as caught:
        MagicBrush(tmp_path).pairs()
    for told in ("row 1: instruction: is empty", "row 2: img_id: is empty", "row 3: id '7-1' is taken"):
        assert told in str(caught.value)
    with pytest.raises(DataError, match=r"no file data/train-\*\.parquet"):
        MagicBrush(tmp_path, split="train").pairs()


def test_an_edit_without_a_number_has_no_id(tmp_path: Path) -> None:
    make(tmp_path, "validation", [emu(1), {**emu(2), "idx": None}])
    with pytest.raises(DataError, match="row 1: idx: expected a number or text, got null"):
        EmuEdit(tmp_path).pairs()


def test_bad_pictures_are_errors_of_their_pairs(tmp_path: Path) -> None:
    rows = [
        brush("7", 1),
        brush("7", 2, mask_img=cell(3)),
        brush("7", 3, source_img={"bytes": b"x", "path": ""}),
    ]
    make(tmp_path, "dev", rows)
    file = captions(tmp_path / "c.jsonl", *(line(f"7-{turn}") for turn in (1, 2, 3)))
    dataset = MagicBrush(tmp_path, captions=file)
    errors = [load_pair(dataset, pair, SIZE).error for pair in dataset.pairs()]
    assert errors[0] is None
    assert "row 1, mask_img: the mask has colours" in str(errors[1])
    assert "row 2, source_img: not an image" in str(errors[2])


def test_tedbench(tmp_path: Path) -> None:
    make(tmp_path, "val", [ted(TARGET), ted("a square")])
    with pytest.raises(DataError, match=r"tedbench has captions of the target only.*dataset\.captions=FILE"):
        TEdBench(tmp_path).pairs()
    sides = [{"id": "0", "source": SOURCE}, {"id": "1", "source": "a circle", "target": "a square"}]
    dataset = TEdBench(tmp_path, captions=captions(tmp_path / "c.jsonl", *sides))
    pairs = dataset.pairs()
    assert [(pair.source_prompt, pair.target_prompts) for pair in pairs] == [
        (SOURCE, (TARGET,)),
        ("a circle", ("a square",)),
    ]
    assert load_pair(dataset, pairs[1], SIZE).error is None
    captions(tmp_path / "c.jsonl", {"id": "0", "source": SOURCE, "target": "a cow"})
    with pytest.raises(DataError, match=f"id '0': the data set has a target prompt of its own, '{TARGET}'"):
        dataset.pairs()
    (tmp_path / "data" / "val-00000-of-00001.parquet").unlink()
    make(tmp_path, "val", [ted(TARGET)], [ted(TARGET)])
    with pytest.raises(DataError, match="expected one file"):
        dataset.pairs()


def test_emu_edit(tmp_path: Path) -> None:
    make(tmp_path, "validation", [emu(1), emu(2, output_caption="a red circle on grass", task=None)])
    dataset = EmuEdit(tmp_path)
    pairs = dataset.pairs()
    assert [(pair.id, pair.category) for pair in pairs] == [("1-h1", "color"), ("2-h2", "")]
    assert load_pair(dataset, pairs[0], SIZE).error is None
    file = captions(tmp_path / "c.jsonl", line("2-h2", target="a green circle"))
    assert EmuEdit(tmp_path, captions=file).pairs()[1].target_prompts == ("a green circle",)
    make(tmp_path, "test", [emu(1, input_caption=" "), emu(2)])
    with pytest.raises(
        DataError, match=r"1 of 2 edits have no prompts \('1-h1'\); emu_edit has blank captions"
    ):
        EmuEdit(tmp_path, split="test").pairs()
    assert [pair.id for pair in EmuEdit(tmp_path, split="test", captioned_only=True).pairs()] == ["2-h2"]


@pytest.mark.parametrize("name", ["magicbrush", "tedbench", "emu_edit"])
def test_a_run(command: Any, name: str) -> None:
    folder = command.folder / "set"
    if name == "magicbrush":
        make(folder, "dev", [brush("7", 1), brush("7", 2, mask_img=cell(1))])
        file, ids = captions(folder / "c.jsonl", line("7-1"), line("7-2")), ("7-1", "7-2")
    elif name == "tedbench":
        make(folder, "val", [ted(TARGET), ted(TARGET, original_image={"bytes": b"", "path": ""})])
        sides = ({"id": id, "source": SOURCE} for id in "01")
        file, ids = captions(folder / "c.jsonl", *sides), ("0", "1")
    else:
        make(folder, "validation", [emu(1), emu(2, output_caption=SOURCE)])
        file, ids = captions(folder / "c.jsonl", line("1-h1")), ("1-h1", "2-h2")
    chosen = (f"dataset={name}", f"dataset.path={folder}")
    if name != "emu_edit":
        refused = planned(command, *chosen)
        assert refused.code == 2
        assert "dataset.captions=FILE" in refused.err
    assert planned(command, *chosen, f"dataset.captions={file}").code == 0
    outcome, rows = ran(command, *chosen, f"dataset.captions={file}")
    assert outcome.code == 1, outcome.err
    assert {key: row["status"] for key, row in rows.items()} == dict(zip(ids, ("ok", "error"), strict=True))
    assert rows[ids[0]]["inversion"] == "ddim"
    assert rows[ids[0]]["target_prompt"] == TARGET


@pytest.mark.parametrize(
    ("parts", "lost", "told"),
    [
        (
            3,
            0,
            r"1 of 3 files of one table are not there.* data/dev-00000-of-00003\.parquet; fetch",
        ),
        (3, 1, r"1 of 3 files .* data/dev-00001-of-00003\.parquet"),
        (3, 2, r"1 of 3 files .* data/dev-00002-of-00003\.parquet"),
        (2, None, "files of several editions of one table, such as dev-00000-of-00001"),
    ],
)
def test_files_that_are_lacking_are_not_left_out(
    tmp_path: Path, parts: int, lost: int | None, told: str
) -> None:
    if lost is None:
        make(tmp_path, "dev", [brush("9", 1)])
    make(tmp_path, "dev", *([brush("7", part)] for part in range(parts)))
    if lost is not None:
        (tmp_path / "data" / f"dev-{lost:05d}-of-{parts:05d}.parquet").unlink()
    with pytest.raises(DataError, match=told):
        MagicBrush(tmp_path).pairs()


@pytest.mark.parametrize("kind", [MagicBrush, EmuEdit, TEdBench])
def test_a_table_without_pictures_is_refused_at_once(tmp_path: Path, kind: type[Any]) -> None:
    rows = {"dev": [brush("7", 1)], "validation": [emu(1)], "val": [ted(TARGET)]}
    for split, (row,) in rows.items():
        texts = {key: value for key, value in row.items() if not isinstance(value, dict)}
        make(tmp_path, split, [texts])
    with pytest.raises(DataError, match=r"no column '(source_img|image|original_image)'"):
        kind(tmp_path).pairs()


def test_a_page_that_was_damaged_is_no_other_text(tmp_path: Path) -> None:
    path = make(tmp_path, "val", [ted(TARGET)]) / "data" / "val-00000-of-00001.parquet"
    table = pq.read_table(path)
    pq.write_table(table, path, compression="none", write_page_checksum=True, use_dictionary=False)
    content = path.read_bytes()
    assert b"blue" in content
    path.write_bytes(content.replace(b"blue", b"glue"))
    with pytest.raises(DataError, match="not a whole table that can be read"):
        TEdBench(tmp_path).pairs()


def test_a_clone_without_its_large_files_is_told(tmp_path: Path) -> None:
    path = make(tmp_path, "val", [ted(TARGET)]) / "data" / "val-00000-of-00001.parquet"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(DataError, match="a pointer of Git LFS lies here and not the file; run git lfs pull"):
        TEdBench(tmp_path).pairs()


def test_a_line_of_no_edit_is_named(tmp_path: Path) -> None:
    make(tmp_path, "val", [ted(TARGET)])
    file = captions(tmp_path / "c.jsonl", {"id": "0", "source": SOURCE}, {"id": "1", "source": SOURCE})
    with pytest.raises(DataError, match=r"line 2: target_prompt: missing.*no edit of id '1' with one"):
        TEdBench(tmp_path, captions=file).pairs()
