"""Folders of generated pairs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from p2p_bench.data.images import load_image
from p2p_bench.data.instruct_pix2pix import InstructPix2Pix
from p2p_bench.errors import DataError, ErrorList
from tests.data.fake.instruct_pix2pix import PROMPT, make
from tests.data.importing import planned, ran


def test_pairs_and_pixels(tmp_path: Path) -> None:
    dataset = InstructPix2Pix(make(tmp_path))
    pairs = dataset.pairs()
    assert [pair.id for pair in pairs] == ["0000000/9", "0000000/10", "0000001/9", "0000001/10"]
    assert {pair.source_prompt for pair in pairs} == {PROMPT["input"]}
    assert [pair.instruction for pair in pairs] == ["make it blue"] * 2 + ["paint it"] * 2
    pixels = dataset.load(pairs[0], (64, 64))
    assert pixels.image is not None
    assert torch.equal(pixels.image, load_image(tmp_path / "0000000" / "9_0.jpg"))
    assert pixels.mask is pixels.answer is None


def test_shards(tmp_path: Path) -> None:
    make(tmp_path / "shard-00")
    assert InstructPix2Pix(tmp_path, limit=1).pairs()[0].id == "shard-00/0000000/9"
    make(tmp_path / "shard-01")
    shards = len(InstructPix2Pix(tmp_path).pairs())
    make(tmp_path)
    assert len(InstructPix2Pix(tmp_path).pairs()) == shards * 3 // 2, "folders beside shards are not left out"


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ({**PROMPT, "input": ""}, "input: is empty"),
        ({"edit": "a", "output": "b"}, "input: missing"),
        ({**PROMPT, "output": ["b"]}, "output: expected text, got a list"),
        ([1], "expected an object"),
    ],
)
def test_bad_prompts_are_named(tmp_path: Path, prompt: Any, told: str) -> None:
    with pytest.raises(DataError, match=r"0000001/prompt\.json, ") as caught:
        InstructPix2Pix(make(tmp_path, (PROMPT, prompt))).pairs()
    assert told in str(caught.value)


@pytest.mark.parametrize("ending", [".JPG", ".jpeg", ".png"])
def test_pictures_of_another_ending_are_not_left_out(tmp_path: Path, ending: str) -> None:
    make(tmp_path)
    (tmp_path / "0000000" / "9_0.jpg").rename(tmp_path / "0000000" / f"9_0{ending}")
    with pytest.raises(DataError, match=f"9_0{ending}: pictures of a source end with _0.jpg"):
        InstructPix2Pix(tmp_path).pairs()


def test_bad_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file \*/prompt\.json"):
        InstructPix2Pix(tmp_path).pairs()
    make(tmp_path, ())
    with pytest.raises(DataError, match="the folder holds no pairs"):
        InstructPix2Pix(tmp_path).pairs()
    (tmp_path / "0000099" / "x_0.jpg").write_bytes(b"")
    (tmp_path / "0000098").mkdir()
    (tmp_path / "0000098" / "prompt.json").write_text("{")
    with pytest.raises(ErrorList, match="2 faults") as caught:
        InstructPix2Pix(tmp_path).pairs()
    assert "broken JSON" in str(caught.value)
    assert "expected the number of a seed" in str(caught.value)
    (tmp_path / "0000098" / "prompt.json").write_text(json.dumps(PROMPT))
    (tmp_path / "0000099" / "x_0.jpg").unlink()
    (tmp_path / "0000098" / "1_0.jpg").symlink_to("/etc/hostname")
    with pytest.raises(DataError, match="leaves the root"):
        InstructPix2Pix(tmp_path).pairs()


def test_a_run(command: Any) -> None:
    folder = make(command.folder / "set")
    (folder / "0000001" / "9_0.jpg").write_bytes(b"no image")
    chosen = ("dataset=instruct_pix2pix", f"dataset.path={folder}", "dataset.limit=3")
    assert planned(command, *chosen).code == 0
    outcome, rows = ran(command, *chosen)
    assert outcome.code == 1, outcome.err
    assert [row["status"] for row in rows.values()] == ["ok", "ok", "error"] or sorted(
        row["status"] for row in rows.values()
    ) == ["error", "ok", "ok"]
    assert "9_0.jpg: not an image" in rows["0000001/9"]["error"]
