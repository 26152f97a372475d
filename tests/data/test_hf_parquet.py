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
    make(tmp_path, [row(2)], split="train")
    make(tmp_path / ".cache", [row(3)])
    with pytest.raises(DataError, match=r"there are data/test, data/train; set dataset\.files"):
        HfParquet(tmp_path).pairs()
    assert len(HfParquet(tmp_path, files="data/test-*").pairs()) == 2


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
