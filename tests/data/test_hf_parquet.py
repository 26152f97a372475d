"""Parquet files of any data set, their columns named."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from p2p_bench import raster
from p2p_bench.data import load_pair
from p2p_bench.data.base import content_checksum
from p2p_bench.data.hf_parquet import HfParquet
from p2p_bench.errors import DataError, ErrorList
from tests.data.fake.hf_parquet import make, row
from tests.data.fake.pictures import save
from tests.data.fake.tables import captions, cell

SIZE = (64, 64)


def pixels(content: bytes) -> torch.Tensor:
    return torch.from_numpy(raster.rgb(raster.read_encoded(content, "x")))


def test_each_row_has_its_own_columns_and_picture(tmp_path: Path) -> None:
    make(tmp_path, [row(0), row(1, target_prompt="a star")], [row(2, kind=None, region=None)])
    named = HfParquet(tmp_path, id="key", mask="region", category="kind")
    assert [pair.id for pair in named.pairs()] == ["k0", "k1", "k2"]
    assert [pair.category for pair in named.pairs()] == ["colour", "colour", ""]
    assert named.pairs()[1].target_prompts == ("a star",)
    numbered = HfParquet(tmp_path)
    assert [pair.id for pair in numbered.pairs()] == ["0", "1", "2"]
    for dataset in (named, numbered):
        for number, pair in enumerate(dataset.pairs()):
            image = load_pair(dataset, pair, SIZE).image
            assert image is not None
            assert torch.equal(image, pixels(cell(number)["bytes"]))
    states = [load_pair(named, pair, SIZE).mask_state for pair in named.pairs()]
    assert states == ["part", "part", ""]
    mask = load_pair(named, named.pairs()[0], SIZE).mask
    assert mask is not None
    assert mask[:, :32].all()
    assert not mask[:, 32:].any()
    assert len({content_checksum(named, pair) for pair in named.pairs()}) == 3


def test_pictures_in_every_form(tmp_path: Path) -> None:
    save(tmp_path / "pictures" / "a.png", seed=4)
    content = (tmp_path / "pictures" / "a.png").read_bytes()
    forms: dict[str, Any] = {
        "structure": {"bytes": content, "path": None},
        "path of a structure": {"bytes": None, "path": "pictures/a.png"},
        "bytes": content,
        "path": "pictures/a.png",
    }
    for number, form in enumerate(forms.values()):
        make(tmp_path, [row(0, image=form)], split=f"s{number}x")
        dataset = HfParquet(tmp_path, files=f"data/s{number}x-*.parquet")
        image = load_pair(dataset, dataset.pairs()[0], SIZE).image
        assert image is not None
        assert torch.equal(image, pixels(content))


def test_ids_targets_and_words_of_other_types(tmp_path: Path) -> None:
    make(tmp_path, [row(0, key=7, target_prompt=["a star", "a cat"]), row(1, key=8, target_prompt=["b"])])
    table = pq.read_table(tmp_path / "data" / "test-00000-of-00001.parquet")
    place = table.column_names.index("source_prompt")
    table = table.set_column(place, "source_prompt", table["source_prompt"].dictionary_encode())
    pq.write_table(table, tmp_path / "data" / "test-00000-of-00001.parquet")
    pairs = HfParquet(tmp_path, id="key").pairs()
    assert [(pair.id, pair.source_prompt) for pair in pairs] == [
        (name, "a red circle on grass") for name in "78"
    ]
    assert [pair.target_prompts for pair in pairs] == [("a star", "a cat"), ("b",)]
    bare = HfParquet(tmp_path, id="key", image=None).pairs()
    assert [pair.image for pair in bare] == [None, None]


@pytest.mark.parametrize(
    ("settings", "rows", "told"),
    [
        ({"id": "kye"}, [row(0)], "no column 'kye'. Did you mean 'key'?"),
        ({"image": "picture"}, [row(0)], "no column 'picture'"),
        ({"id": "key"}, [row(0), row(0)], "row 1: id 'k0' is taken by an earlier one"),
        ({"id": "key"}, [row(0), row(1, key=None)], "row 1: key: missing"),
        ({"id": "key"}, [row(0, key=0.5)], "row 0: key: expected text or an integer, got a number"),
        ({"source": "image"}, [row(0)], "row 0: image: expected text, got an object"),
        ({}, [row(0, target_prompt=[])], "row 0: target_prompt: the list is empty"),
        ({}, [row(0, source_prompt="nan")], "row 0: source_prompt: 'nan' is what programs write"),
        ({}, [row(0, target_prompt=["a", "None"])], "row 0: target_prompt: 'None' is what programs write"),
        ({"id": "key"}, [row(0, key="<NA>")], "row 0: key: '<NA>' is what programs write"),
        ({}, [row(0, source_prompt=" ")], "1 of 1 edits have no prompts ('0')"),
        ({"files": "data/none-*.parquet"}, [row(0)], "no file data/none-*.parquet"),
        ({"files": "/etc/*.parquet"}, [row(0)], "is no pattern of files in it"),
        ({"files": "../*/data/*.parquet"}, [row(0)], ""),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, settings: dict[str, Any], rows: list[dict[str, Any]], told: str
) -> None:
    make(tmp_path / "other", [row(0)])
    folder = make(tmp_path / "set", rows)
    if not told:
        with pytest.raises(DataError, match="leaves the root"):
            HfParquet(folder, **settings).pairs()
        return
    with pytest.raises((DataError, ErrorList), match="set") as caught:
        HfParquet(folder, **settings).pairs()
    assert told in str(caught.value)


def test_several_splits_are_not_mixed(tmp_path: Path) -> None:
    make(tmp_path, [row(0)], [row(1)])
    make(tmp_path, [row(2)], [row(3)], split="train")
    (tmp_path / "data" / "train-00000-of-00002.parquet").unlink()  # which nobody asks for
    make(tmp_path / ".cache", [row(3)], [row(4)])
    (tmp_path / ".cache" / "data" / "test-00000-of-00002.parquet").unlink()
    with pytest.raises(DataError, match=r"there are data/test\.parquet, data/train\.parquet; set dataset"):
        HfParquet(tmp_path).pairs()
    assert len(HfParquet(tmp_path, files="data/test-*").pairs()) == 2


@pytest.mark.parametrize(
    "names", [("set1.parquet", "set2.parquet"), ("train2014.parquet", "train2017.parquet")]
)
def test_splits_whose_names_end_with_a_number_are_not_mixed(tmp_path: Path, names: tuple[str, str]) -> None:
    for number, name in enumerate(names):
        pq.write_table(pa.Table.from_pylist([row(number)]), tmp_path / name)
    with pytest.raises(DataError, match=f"there are {names[0]}, {names[1]}; set dataset"):
        HfParquet(tmp_path).pairs()


def test_a_table_is_not_read_twice_in_two_formats(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([row(0)])
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match=r"there are a\.arrow, a\.parquet; set dataset"):
        HfParquet(tmp_path).pairs()
    assert len(HfParquet(tmp_path, files="*.arrow").pairs()) == 1


def test_a_file_that_is_lacking_changes_no_number(tmp_path: Path) -> None:
    make(tmp_path, [row(0)], [row(1)], [row(2)])
    (tmp_path / "data" / "test-00000-of-00003.parquet").unlink()
    side = captions(tmp_path / "c.jsonl", {"id": "1", "source": "a cat", "target": "a dog"})
    for files in (None, "data/test-*.parquet", "**/test*"):
        with pytest.raises(DataError, match=r"1 of 3 files .* data/test-00000-of-00003\.parquet"):
            HfParquet(tmp_path, files=files, captions=side).pairs()
    asked = HfParquet(tmp_path, files="data/test-00001-of-*.parquet")  # the others are not
    assert [pair.id for pair in asked.pairs()] == ["0"]


def test_a_mask_in_another_form_is_not_taken_for_none(tmp_path: Path) -> None:
    make(tmp_path, [row(0, region={"size": [64, 64], "counts": "abc"})])
    dataset = HfParquet(tmp_path, mask="region")
    error = load_pair(dataset, dataset.pairs()[0], SIZE).error
    assert "expected a structure with bytes or path, got one with size, counts" in str(error)


def test_bad_cells_are_errors_of_their_pairs(tmp_path: Path) -> None:
    cells = {
        "there is no image in it": None,
        "not an image": b"no picture",
        "no such image file": "none.png",
        "leaves the root": "../secret.png",
    }
    for number, (told, one) in enumerate(cells.items()):
        make(tmp_path, [row(0, image=one)], split=f"s{number}x")
        dataset = HfParquet(tmp_path, files=f"data/s{number}x-*.parquet")
        assert told in str(load_pair(dataset, dataset.pairs()[0], SIZE).error)


def test_prompts_of_a_side_file(tmp_path: Path) -> None:
    make(tmp_path, [row(0), row(1)])
    line = {"id": "k1", "source": "a cat", "target": "a dog", "blend_words": [["cat"], ["dog"]]}
    side = captions(tmp_path / "c.jsonl", line)
    pairs = HfParquet(tmp_path, id="key", captions=side).pairs()
    assert (pairs[1].source_prompt, pairs[1].blend_words) == ("a cat", (("cat",), ("dog",)))
    alone = HfParquet(tmp_path, id="key", source=None, target=None, captions=side, captioned_only=True)
    assert [pair.id for pair in alone.pairs()] == ["k1"]


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").parent.mkdir(exist_ok=True)
    table = pa.table([["a"], ["b"], ["c"]], names=["source_prompt", "target_prompt", "target_prompt"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="2 columns 'target_prompt'"):
        HfParquet(tmp_path, image=None).pairs()


def test_check_does_not_take_a_table_for_a_picture(command: Any) -> None:
    make(command.folder / "set", [row(0), row(1)])
    checked = command("check", "--json", "dataset=hf_parquet", f"dataset.path={command.folder / 'set'}")
    assert checked.code == 0, checked.err
    reasons = [one["reason"] for one in json.loads(checked.out)["warnings"]]
    assert reasons == ["the same prompts as pair '0'"]
