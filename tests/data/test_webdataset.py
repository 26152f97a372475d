"""WebDataset shards, read where they lie."""

import io
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch

from p2p_bench import raster
from p2p_bench.data import load_pair
from p2p_bench.data.base import content_checksum
from p2p_bench.data.webdataset import WebDataset
from p2p_bench.errors import DataError, ErrorList
from tests.data.fake.pictures import encoded, picture
from tests.data.fake.tables import captions
from tests.data.fake.webdataset import PROMPTS, make, sample, write

SIZE = (64, 64)


def test_each_sample_has_its_own_prompts_and_picture(tmp_path: Path) -> None:
    dataset = WebDataset(make(tmp_path))
    pairs = dataset.pairs()
    assert [pair.id for pair in pairs] == ["one", "in/two", "three"]
    assert {pair.source_prompt for pair in pairs} == {PROMPTS["source_prompt"]}
    for number, pair in enumerate(pairs, 1):
        loaded = load_pair(dataset, pair, SIZE)
        assert loaded.image is not None, loaded.error
        content = raster.read_encoded(encoded(picture(64, number)), "x")
        assert torch.equal(loaded.image, torch.from_numpy(raster.rgb(content)))
        assert loaded.mask_state == ("" if pair.id == "in/two" else "part")
    mask = load_pair(dataset, pairs[0], SIZE).mask
    assert mask is not None
    assert mask[:, :32].all()
    assert not mask[:, 32:].any()
    assert len({content_checksum(dataset, pair) for pair in pairs}) == 3
    assert [pair.id for pair in WebDataset(tmp_path, files="*1.tar").pairs()] == ["three"]
    assert not list(tmp_path.rglob("*.png")), "nothing is extracted"


def test_what_a_sample_may_say(tmp_path: Path) -> None:
    said = {
        "caption": "a cat", "edited": ["a dog", "a fox"], "edit": "change it", "category": "swap", "seed": 3,
        "blend_words": [["cat"], []], "word_weights": {"dog": 2},
    }  # fmt: skip
    said["blend_words"] = [["cat"], ["dog"]]
    write(tmp_path / "a.tar", sample("k", 1, **{"meta.json": said, "json": None, "cover.png": b"none"}))
    named = {"json": "meta.json", "source": "caption", "target": "edited", "instruction": "edit"}
    (pair,) = WebDataset(tmp_path, **named).pairs()  # type: ignore[arg-type]  # all are texts
    assert (pair.source_prompt, pair.target_prompts) == ("a cat", ("a dog", "a fox"))
    assert (pair.category, pair.seed, pair.instruction) == ("swap", 3, "change it")
    assert (pair.blend_words, dict(pair.word_weights)) == ((("cat",), ("dog",)), {"dog": 2.0})


@pytest.mark.parametrize(
    ("names", "lacking"),
    [
        (("s-000", "s-001"), ""),
        (("s-000", "s-003", "s-004"), "files are not there .*: 2, the first is s-001.tar"),
        (("00001", "00003"), "files are not there .*: 1, the first is 00002.tar"),  # counted from 1
        (("00002", "00003"), "files are not there .*: 1, the first is 00001.tar"),
        (("2019", "2021"), ""),  # years
        (("s-01", "s-11"), ""),  # all that the pattern asks for
    ],
)
def test_shards_that_lack_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, names: tuple[str, ...], lacking: str
) -> None:
    for number, name in enumerate(names):
        write(tmp_path / f"{name}.tar", sample(name, number))
    pattern = "*1.tar" if names == ("s-01", "s-11") else "**/*.tar"
    assert len(WebDataset(tmp_path, files=pattern).pairs()) == len(names)
    assert re.search(lacking, caplog.text) if lacking else not caplog.text


def test_prompts_of_a_side_file(tmp_path: Path) -> None:
    members = {**sample("one", 1, json=None), **sample("two", 2, json={"target_prompt": "a dog"})}
    write(tmp_path / "a.tar", members)
    with pytest.raises(DataError, match="2 of 2 edits have no prompts"):
        WebDataset(tmp_path).pairs()
    lines = [{"id": "one", "source": "a cat", "target": "a fox"}, {"id": "two", "source": "a cat"}]
    pairs = WebDataset(tmp_path, captions=captions(tmp_path / "c.jsonl", *lines)).pairs()
    assert [pair.target_prompts for pair in pairs] == [("a fox",), ("a dog",)]


@pytest.mark.parametrize("own", [{}, {"source_prompt": "", "target_prompt": "a dog"}, PROMPTS])
def test_what_a_sample_says_beside_its_prompts_stays(tmp_path: Path, own: dict[str, str]) -> None:
    # the side file has prompts alone: category, seed, words and weights of the sample were lost with them
    said = {**own, "category": "swap", "seed": 3, "blend_words": ["cat", "dog"], "word_weights": {"dog": 2}}
    write(tmp_path / "a.tar", sample("k", 1, json=said))
    line = {"id": "k", "source": "a cat", "target": "a dog"}
    (pair,) = WebDataset(tmp_path, captions=captions(tmp_path / "c.jsonl", line)).pairs()
    assert (pair.source_prompt, pair.target_prompts) == ("a cat", ("a dog",))
    assert (pair.category, pair.seed) == ("swap", 3)
    assert (pair.blend_words, dict(pair.word_weights)) == ((("cat",), ("dog",)), {"dog": 2.0})
    line |= {"blend_words": ["cat", "a dog"], "word_weights": {"a": 3}}
    (pair,) = WebDataset(tmp_path, captions=captions(tmp_path / "c.jsonl", line)).pairs()
    assert (pair.blend_words, dict(pair.word_weights)) == ((("cat",), ("a dog",)), {"a": 3.0})


@pytest.mark.parametrize(
    ("members", "told"),
    [
        (sample("k", 1, png=None), "there is no source image; its parts are mask.png, json"),
        (sample("k", 1, jpg=b"x"), "there is 2 source images, jpg, png"),
        (sample("k", 1, json=[1]), "expected an object"),
        (sample("k", 1, json=b"{"), "broken JSON"),
        (sample("k", 1, json=b"\xff"), "k.json: not UTF-8 text"),
        (sample("k", 1, json={**PROMPTS, "target_prompt": 3}), "target_prompt: expected text, got a number"),
        (sample("k", 1, json={**PROMPTS, "seed": -1, "blend_words": 3}), "seed: expected an integer"),
        (
            sample("k", 1, json={**PROMPTS, "blend_word": ["a", "b"]}),
            "blend_word: is not read; call it",
        ),
        (
            sample("k", 1, json={**PROMPTS, "Instruction": "a"}),
            "Instruction: is not read; call it i",
        ),
        (
            {"k.png": sample("k", 1)["k.png"], "k.masks.png": b""},
            "masks.png: is not read as a mask",
        ),
        ({"k.png": sample("k", 1)["k.png"], "k.mask.jpg": b""}, "mask.jpg: is not read as a mask"),
        ({**sample("../k", 1)}, "../k.png: leaves the root of the archive"),
        ({**sample("/etc/k", 1)}, "leaves the root of the archive"),
    ],
)
def test_bad_samples_are_named(tmp_path: Path, members: dict[str, bytes], told: str) -> None:
    write(tmp_path / "a.tar", members)
    with pytest.raises((DataError, ErrorList), match=r"a\.tar") as caught:
        WebDataset(tmp_path).pairs()
    assert told in str(caught.value)


def test_a_member_that_is_there_twice_is_neither(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", sample("k", 1))
    write(tmp_path / "a.tar", sample("k", 2), mode="a")
    with pytest.raises(DataError, match=r"a\.tar, k\.png: is there twice"):
        WebDataset(tmp_path).pairs()


def test_ids_are_unique_over_shards(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.tar", sample("k", 1))
    with pytest.raises(DataError, match=r"b\.tar, sample 'k': id 'k' is taken"):
        WebDataset(tmp_path).pairs()


def test_links_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("k.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(DataError, match=r"a\.tar, k\.png: is a link"):
        WebDataset(tmp_path).pairs()


@pytest.mark.parametrize(
    "damage", ["cut in a picture", "cut between members", "header", "gzip", "empty", "text"]
)
def test_damaged_shards_are_refused_and_not_read_in_part(tmp_path: Path, damage: str) -> None:
    path = write(tmp_path / "a.tar", {**sample("one", 1), **sample("two", 2)})
    whole = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        member = archive.getmember("two.png")
    if damage == "header":
        whole[member.offset : member.offset + 20] = b"\xff" * 20
    changed: dict[str, Any] = {
        "cut in a picture": whole[: member.offset_data + 10],
        "cut between members": whole[: member.offset],
        "header": whole,
        "empty": b"",
        "text": b"no archive" * 200,
    }
    if damage == "gzip":
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz") as archive:
            archive.addfile(tarfile.TarInfo("one.png"))
        changed["gzip"] = stream.getvalue()
    path.write_bytes(changed[damage])
    with pytest.raises(DataError, match=r"a\.tar"):
        WebDataset(tmp_path).pairs()
