"""The TI2I sets, as YAML files and as a mapping file."""

import json
from pathlib import Path
from typing import Any

import pytest

from p2p_bench.data import load_pair
from p2p_bench.data.ti2i import TI2I
from p2p_bench.errors import DataError
from tests.data.fake.pictures import save
from tests.data.fake.tables import captions
from tests.data.fake.ti2i import GENERATED, MAPPED, REAL, make, make_mapped
from tests.data.importing import planned, ran

SIZE = (64, 64)


def test_pairs_and_pixels(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(
        DataError, match=r"1 of 2 edits have no prompts \('0'\); ti2i has no source prompt for"
    ):
        TI2I(tmp_path).pairs()
    dataset = TI2I(tmp_path, captions=captions(tmp_path / "c.jsonl", {"id": "0", "source": "a circle"}))
    first, second = dataset.pairs()
    assert (first.source_prompt, first.target_prompts) == ("a circle", ("a blue circle", "a red circle"))
    assert (second.source_prompt, second.target_prompts) == ("a star", ("a star in fog",))
    assert first.image == (tmp_path / "circle" / "toy_1.jpg").resolve()
    assert [load_pair(dataset, pair, SIZE).error for pair in (first, second)] == [None, None]
    assert [pair.id for pair in TI2I(tmp_path, captioned_only=True).pairs()] == ["1"]


def test_generated_sources_start_from_noise(tmp_path: Path) -> None:
    dataset = TI2I(make(tmp_path, GENERATED))
    (pair,) = dataset.pairs()
    assert (pair.seed, pair.image, pair.has_image) == (50, None, False)
    assert dataset.load(pair, SIZE).image is None


def test_the_mapping_file(tmp_path: Path) -> None:
    make_mapped(tmp_path)
    dataset = TI2I(tmp_path, captions=captions(tmp_path / "c.jsonl", {"id": "0", "source": "a circle"}))
    pairs = dataset.pairs()
    assert [pair.target_prompts for pair in pairs] == [("a blue circle",), ("a star in fog",)]
    assert [load_pair(dataset, pair, SIZE).error for pair in pairs] == [None, None]


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"target_prompts": ["a"]}, "init_img: missing"),
        ({"target_prompts": ["a"], "source_prompt": "b"}, "init_img: missing"),
        ({"target_prompts": ["a"], "source_prompt": "b", "seed": "x"}, "seed: expected an integer, got text"),
        ({"target_prompts": ["a"], "source_prompt": "b", "seed": -1}, "seed: expected an integer in"),
        ({"init_img": "a.png"}, "target_prompts: expected a list of texts"),
        ({"init_img": "a.png", "target_prompts": [""]}, "target_prompts: is empty"),
        ({"init_img": "a.png", "target_prompts": [3]}, "target_prompts: expected text, got a number"),
        ({"init_img": "../../a.png", "target_prompts": ["a"]}, "leaves the root"),
        (["a"], "expected an object"),
        (
            {"init_image": "a.png", "target_prompts": ["a"], "source_prompt": "b", "seed": 5},
            "init_image: is not read; call it init_img",
        ),
        ({"Init_img": "a.png", "target_prompts": ["a"]}, "Init_img: is not read; call it init_img"),
        ({"init_img": "a.png", "target_prompt": "a"}, "target_prompt: is not read; call it target_prompts"),
        (
            {"init_img": "a.png", "sourceprompt": "b", "target_prompts": ["a"]},
            "sourceprompt: is not read; call it source_prompt",
        ),
    ],
)
def test_bad_records_are_named(tmp_path: Path, record: Any, told: str) -> None:
    with pytest.raises(DataError, match=r"imnetr-ti2i\.yaml, record '2': ") as caught:
        TI2I(make(tmp_path, (*REAL, record))).pairs()
    assert told in str(caught.value)


def test_an_image_that_is_missing_is_no_other_one(tmp_path: Path) -> None:
    lost = {"init_img": "star/gone.jpg", "source_prompt": "a star", "target_prompts": ["a star in fog"]}
    make(tmp_path, (*REAL, lost))
    save(tmp_path / "gone.jpg", seed=9)
    dataset = TI2I(tmp_path, captioned_only=True)
    assert "star/gone.jpg: no such image file" in str(load_pair(dataset, dataset.pairs()[1], SIZE).error)


def test_a_source_prompt_of_its_own_is_not_replaced(tmp_path: Path) -> None:
    make(tmp_path)
    side = [{"id": "0", "source": "a circle"}, {"id": "1", "source": "a cow"}]
    with pytest.raises(DataError, match="id '1': the data set has a source prompt of its own, 'a star'"):
        TI2I(tmp_path, captions=captions(tmp_path / "c.jsonl", *side)).pairs()
    captions(tmp_path / "c.jsonl", side[0], {"id": "1", "source": "a star"})
    assert len(TI2I(tmp_path, captions=tmp_path / "c.jsonl").pairs()) == 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"mask": [0, 5]}, "mask: is not read"),
        ({"blended_word": "star fog"}, "blended_word: is not read"),
        ({"mask": [], "blended_word": ""}, ""),
        ({"image_path": "both.png"}, "are both there, so which is meant is not known"),
    ],
)
def test_what_the_mapping_file_says_besides_is_not_left_out(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    make_mapped(tmp_path)
    for folder in (".", "ti2i_benchmark"):
        save(tmp_path / "annotation_images" / folder / "both.png", seed=len(folder))
    record = {**MAPPED["1"], **changes}
    (tmp_path / "mapping_file_ti2i_benchmark.json").write_text(json.dumps({"1": record}))
    if not told:
        assert len(TI2I(tmp_path).pairs()) == 1
        return
    with pytest.raises(DataError, match=f"record '1': .*{told}"):
        TI2I(tmp_path).pairs()


def test_bad_files_are_named(tmp_path: Path) -> None:
    make(tmp_path)
    path = tmp_path / "imnetr-ti2i.yaml"
    for content, told in (
        (b"a: [", "broken YAML"),
        (b"!!python/object/apply:os.getcwd []", "broken YAML"),
        (b"a: 1", "expected a list of images"),
        (b"[]", "holds no pairs"),
        (b"\xff", "not UTF-8"),
        (b"- {x: 2001-99-99}", "broken YAML"),
        (b"- {init_img: a, source_prompt: b, source_prompt: c}", "'source_prompt' is given more than once"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"imnetr-ti2i\.yaml.*{told}"):
            TI2I(tmp_path).pairs()
    make(tmp_path, name="wild.yaml")
    with pytest.raises(DataError, match=r"there are imnetr-ti2i\.yaml, wild\.yaml; set dataset\.file"):
        TI2I(tmp_path).pairs()
    assert len(TI2I(tmp_path, file="wild.yaml", captioned_only=True).pairs()) == 1


def test_a_run(command: Any) -> None:
    folder = make(command.folder / "set")
    (folder / "star" / "toy_2.jpg").write_bytes(b"no image")
    chosen = ("dataset=ti2i", f"dataset.path={folder}")
    refused = planned(command, *chosen)
    assert refused.code == 2
    assert "dataset.captions=FILE" in refused.err
    file = captions(folder / "c.jsonl", {"id": "0", "source": "a green circle"})
    assert planned(command, *chosen, f"dataset.captions={file}").code == 0
    outcome, rows = ran(command, *chosen, f"dataset.captions={file}")
    assert outcome.code == 1, outcome.err
    assert {name: row["status"] for name, row in rows.items()} == {"0": "ok", "1": "error"}
