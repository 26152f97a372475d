"""GEdit-Bench and ImgEdit-Bench: instructions, with prompts from a side file."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from p2p_bench.data import load_pair
from p2p_bench.data.gedit import GEdit
from p2p_bench.data.imgedit import ImgEdit
from p2p_bench.errors import DataError
from tests.data.fake import gedit, imgedit
from tests.data.fake.tables import captions
from tests.data.importing import planned, ran

SIZE = (64, 64)
SOURCE, TARGET = "a red circle on grass", "a blue circle on grass"


def side(path: Path, *ids: str) -> Path:
    return captions(path, *({"id": id, "source": SOURCE, "target": TARGET} for id in ids))


@pytest.mark.parametrize("footer", [False, True])
def test_gedit(tmp_path: Path, footer: bool) -> None:
    rows = [gedit.row("a"), gedit.row("cn", instruction_language="cn"), gedit.row("bbb")]
    gedit.make(tmp_path, rows, footer)
    with pytest.raises(
        DataError, match=r"2 of 2 edits have no prompts \('a', 'bbb'\); gedit has instructions"
    ):
        GEdit(tmp_path).pairs()
    dataset = GEdit(tmp_path, captions=side(tmp_path / "c.jsonl", "a", "bbb"))
    pairs = dataset.pairs()
    assert [(pair.id, pair.category, pair.instruction) for pair in pairs] == [
        ("a", "color_alter", "make it blue"),
        ("bbb", "color_alter", "make it blue"),
    ]
    first, second = (load_pair(dataset, pair, SIZE).image for pair in pairs)
    assert first is not None
    assert second is not None
    assert not torch.equal(first, second)
    raw = GEdit(tmp_path, captions=tmp_path / "c.jsonl", image="input_image_raw")
    one, two = (raw.load(pair, SIZE).image for pair in raw.pairs())
    assert one is not None
    assert two is not None
    assert torch.equal(one, two)


@pytest.mark.parametrize("language", ["EN", "zh", "en ", "english"])
def test_a_language_of_another_name_leaves_no_edit_out(tmp_path: Path, language: str) -> None:
    gedit.make(tmp_path, [gedit.row("a"), gedit.row("b", instruction_language=language)])
    with pytest.raises(DataError, match=f"row 1: .* expected 'en' or 'cn', got '{language}'"):
        GEdit(tmp_path).pairs()


def test_a_stream_that_ends_between_its_batches_is_no_whole_one(tmp_path: Path) -> None:
    path = gedit.make(tmp_path, [gedit.row("a"), gedit.row("b")]) / "data-00000-of-00001.arrow"
    with pa.memory_map(str(path)) as source:
        pa.ipc.open_stream(source).read_next_batch()
        end = source.tell()
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(DataError, match="the stream is cut off: its end mark is not there"):
        GEdit(tmp_path).pairs()


def test_a_table_without_the_pictures_is_refused_at_once(tmp_path: Path) -> None:
    gedit.make(tmp_path, [{key: value for key, value in gedit.row("a").items() if key != "input_image_raw"}])
    with pytest.raises(DataError, match=r"no column 'input_image_raw'\. Did you mean 'input_image'"):
        GEdit(tmp_path, image="input_image_raw").pairs()


def test_bad_arrow_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file \*\.arrow"):
        GEdit(tmp_path).pairs()
    gedit.make(tmp_path, [gedit.row("a"), gedit.row("a")])
    with pytest.raises(DataError, match="row 1: id 'a' is taken"):
        GEdit(tmp_path).pairs()
    path = tmp_path / "data-00000-of-00001.arrow"
    whole = path.read_bytes()
    for content in (b"", b"ARROW1\0\0", b"x" * 100, whole[:200]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"\.arrow: not a whole table"):
            GEdit(tmp_path).pairs()


def test_imgedit(tmp_path: Path) -> None:
    imgedit.make(tmp_path)
    with pytest.raises(DataError, match=r"2 of 2 edits have no prompts \('1082', '673'\); imgedit has instr"):
        ImgEdit(tmp_path).pairs()
    dataset = ImgEdit(tmp_path, captions=side(tmp_path / "c.jsonl", "673", "1082"))
    pairs = dataset.pairs()
    assert [(pair.id, pair.category) for pair in pairs] == [("1082", "adjust"), ("673", "background")]
    assert [load_pair(dataset, pair, SIZE).error for pair in pairs] == [None, None]
    below = ImgEdit(tmp_path, captions=tmp_path / "c.jsonl", images="animal")
    with pytest.raises(DataError, match="none of its 2 images exists"):
        below.pairs()
    for record, told in (
        ({"id": "../a.jpg", "prompt": "a", "edit_type": "b"}, "leaves the root"),
        ({"id": "a.jpg", "edit_type": "b"}, "prompt: missing"),
        ([], "expected an object"),
    ):
        imgedit.make(tmp_path, {**imgedit.RECORDS, "x": record})
        with pytest.raises(DataError, match=rf"basic_edit\.json, key 'x': .*{told}"):
            ImgEdit(tmp_path).pairs()


@pytest.mark.parametrize("name", ["gedit", "imgedit"])
def test_a_run(command: Any, name: str) -> None:
    folder = command.folder / "set"
    if name == "gedit":
        gedit.make(folder, [gedit.row("1082"), gedit.row("673", input_image={"bytes": b"x", "path": ""})])
    else:
        second = {"673": {**imgedit.RECORDS["673"], "id": "animal/none.jpg"}}
        imgedit.make(folder, {**imgedit.RECORDS, **second})
    chosen = (f"dataset={name}", f"dataset.path={folder}")
    refused = planned(command, *chosen)
    assert refused.code == 2
    assert "dataset.captions=FILE" in refused.err
    file = side(folder / "c.jsonl", "1082", "673")
    assert planned(command, *chosen, f"dataset.captions={file}").code == 0
    outcome, rows = ran(command, *chosen, f"dataset.captions={file}")
    assert outcome.code == 1, outcome.err
    assert {key: row["status"] for key, row in rows.items()} == {"1082": "ok", "673": "error"}
