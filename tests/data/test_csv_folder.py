"""A folder of images with a CSV file."""

from pathlib import Path
from typing import Any

import pytest

from p2p_bench.data import load_pair
from p2p_bench.data.csv_folder import CsvFolder
from p2p_bench.errors import DataError, ErrorList
from tests.data.fake.csv_folder import LINES, make
from tests.data.importing import planned, ran

HEADER = "id,image,source,target"


def test_pairs_and_pixels(tmp_path: Path) -> None:
    dataset = CsvFolder(make(tmp_path / "mine"))
    assert dataset.name == "mine"
    one, two = dataset.pairs()
    assert (one.id, one.seed, one.category, one.blend_words) == ("one", 7, "colour", (("red",), ("blue",)))
    assert one.target_prompts == ("a blue, round circle",)
    assert (two.id, two.seed, two.category, two.mask) == ("two", None, "", None)
    first, second = (load_pair(dataset, pair, (64, 64)) for pair in (one, two))
    assert first.mask is not None
    assert first.mask.sum() == 64 * 32
    assert (first.mask_state, second.mask_state) == ("part", "")
    assert second.image is not None
    assert [pair.id for pair in CsvFolder(tmp_path / "mine", limit=1).pairs()] == ["one"]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ((HEADER, "x,b.jpg,a,b,c"), "line 2: 5 cells, but the header has 4 columns"),
        ((HEADER, "x,b.jpg,a"), "line 2: 3 cells"),
        ((HEADER, "x,,a,b"), "line 2: image: missing"),
        ((HEADER, "x,b.jpg,a,"), "line 2: target_prompt: missing"),
        ((HEADER, "x,../c.jpg,a,b"), "leaves the root"),
        ((HEADER, "x,b.jpg,a,b", "x,b.jpg,a,c"), "line 3: id 'x' is taken"),
        ((HEADER, '"x,b.jpg,a,b'), "no CSV"),
        ((HEADER, 'x,b.jpg,"a"a,b'), "no CSV"),
        (("id,image,source,targt", "x,b.jpg,a,b"), "'targt': unknown column. Did you mean 'target'?"),
        (("id;image;source;target", "x;b.jpg;a;b"), "line 1: columns stand between semicolons"),
        (("id\timage\tsource\ttarget", "x\tb.jpg\ta\tb"), "line 1: columns stand between tabs"),
        ((HEADER, "x,b.jpg,a,nan"), "line 2: target: 'nan' is what programs write where there is nothing"),
        ((f"{HEADER},category", "x,b.jpg,a,b,NaN"), "line 2: category: 'NaN'"),
        (("id,id,image,source", "x,b.jpg,a,b"), "column 'id' is given more than once"),
        (("id,image,source,source_prompt", "x,b.jpg,a,b"), "source_prompt: given more than once"),
        ((f"{HEADER},seed", "x,b.jpg,a,b,1.5"), "line 2: seed: expected an integer"),
        ((f"{HEADER},blend_words", "x,b.jpg,a,b,cat"), "line 2: blend_words: broken JSON"),
        ((f"{HEADER},word_weights", 'x,b.jpg,a,b,"{""b"": 1, ""b"": 2}"'), "b: given more than once"),
        ((HEADER,), "holds no pairs"),
        (("",), "holds no pairs"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, lines: tuple[str, ...], told: str) -> None:
    with pytest.raises((DataError, ErrorList), match=r"edits\.csv") as caught:
        CsvFolder(make(tmp_path, lines)).pairs()
    assert told in str(caught.value)


def test_bad_bytes_are_named(tmp_path: Path) -> None:
    make(tmp_path)
    for content, told in ((b"id\xff", "not UTF-8"), (b"id,image\n\0,b\n", "")):
        (tmp_path / "edits.csv").write_bytes(content)
        with pytest.raises((DataError, ErrorList), match=rf"edits\.csv.*{told}"):
            CsvFolder(tmp_path).pairs()


def test_which_file(tmp_path: Path) -> None:
    make(tmp_path, name="a.csv")
    make(tmp_path, LINES[:2], name="b.CSV")
    with pytest.raises(
        DataError, match=r"expected one CSV file, there are a\.csv, b\.CSV; set dataset\.file"
    ):
        CsvFolder(tmp_path).pairs()
    assert len(CsvFolder(tmp_path, file="a.csv").pairs()) == 2
    assert len(CsvFolder(tmp_path, file="b.CSV").pairs()) == 1
    for file, told in (("c.csv", "no such file"), ("../c.csv", "leaves the root")):
        with pytest.raises(DataError, match=told):
            CsvFolder(tmp_path, file=file).pairs()
    with pytest.raises(DataError, match="there is none"):
        CsvFolder(tmp_path / "in").pairs()


def test_a_run(command: Any) -> None:
    folder = make(command.folder / "set", (*LINES, "bad,none.png,,a circle,a square,,,"))
    chosen = ("dataset=csv_folder", f"dataset.path={folder}")
    assert planned(command, *chosen).code == 0
    outcome, rows = ran(command, *chosen)
    assert outcome.code == 1, outcome.err
    assert {name: row["status"] for name, row in rows.items()} == {"one": "ok", "two": "ok", "bad": "error"}
    assert rows["one"]["mask"] == "part"
    assert rows["one"]["seed"] == 7
    assert "none.png is missing" in rows["bad"]["error"]
