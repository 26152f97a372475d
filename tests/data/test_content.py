"""What a pair's pixels are decoded from has a checksum: other bytes change it, other pairs do not."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from p2p_bench.data.base import PairDataset, content_checksum, load_pair
from p2p_bench.data.gedit import GEdit
from p2p_bench.data.jsonl import JsonlPairs
from p2p_bench.data.pie_bench import PieBench
from p2p_bench.data.pie_bench_pp import PieBenchPP
from p2p_bench.data.tedbench import TEdBench
from tests.data.fake import gedit, pie_bench, pie_bench_pp
from tests.data.fake.pictures import save
from tests.data.fake.tables import captions, cell, make, ted

LINE = {"source": "a red circle", "target": "a blue circle"}


def jsonl(folder: Path, seed: int) -> PairDataset:
    for name, one in (("a", seed), ("b", 5)):
        save(folder / f"{name}.png", seed=one)
    Image.new("L", (64, 64), 255).save(folder / "mask.png")
    lines = [{"id": name, "image": f"{name}.png", "mask": "mask.png", **LINE} for name in ("a", "b")]
    return JsonlPairs(captions(folder / "pairs.jsonl", *lines))


def pie(folder: Path, seed: int) -> PairDataset:
    """The mask of the first pair changes, its picture does not."""
    entries = pie_bench.records()
    first = next(iter(entries))
    entries[first] = pie_bench.record(mask=[seed, 3])
    return PieBench(pie_bench.make(folder, entries))


def pie_pp(folder: Path, seed: int) -> PairDataset:
    rows = [pie_bench_pp.row("000000000000", mask=f"{seed} 3"), pie_bench_pp.row("000000000001")]
    return PieBenchPP(pie_bench_pp.make(folder, {"0_random_140": rows}))


def ted_bench(folder: Path, seed: int) -> PairDataset:
    make(folder, "val", [ted("a cat", original_image=cell(seed)), ted("a dog")])
    lines = [{"id": name, "source": "a fox"} for name in ("0", "1")]
    return TEdBench(folder, captions=captions(folder / "captions.jsonl", *lines))


def g_edit(folder: Path, seed: int) -> PairDataset:
    gedit.make(folder, [gedit.row("one", input_image=cell(seed)), gedit.row("two")])
    lines = [{"id": name, **LINE} for name in ("one", "two")]
    return GEdit(folder, captions=captions(folder / "captions.jsonl", *lines))


@pytest.mark.parametrize("written", [jsonl, pie, pie_pp, ted_bench, g_edit])
def test_other_bytes_under_the_same_names_are_seen(
    tmp_path: Path, written: Callable[[Path, int], PairDataset]
) -> None:
    before = written(tmp_path, 1)
    first, second = [content_checksum(before, pair) for pair in before.pairs()[:2]]
    assert first
    assert second
    assert load_pair(before, before.pairs()[0], (64, 64)).checksum == first
    after = written(tmp_path, 2)
    assert content_checksum(after, after.pairs()[0]) != first
    assert content_checksum(after, after.pairs()[1]) == second
    again = written(tmp_path, 1)
    assert content_checksum(again, again.pairs()[0]) == first


def test_a_key_of_two_languages_has_the_picture_of_its_own(tmp_path: Path) -> None:
    chinese = gedit.row("k", instruction_language="cn", input_image=cell(3))
    gedit.make(tmp_path, [chinese, gedit.row("k", input_image=cell(4))])
    side = captions(tmp_path / "captions.jsonl", {"id": "k", **LINE})
    english = GEdit(tmp_path, captions=side)
    (pair,) = english.pairs()
    assert english.content(pair) == [cell(4)["bytes"]]


def test_pairs_without_pixels_have_none(tmp_path: Path) -> None:
    dataset = JsonlPairs(captions(tmp_path / "pairs.jsonl", LINE))
    assert content_checksum(dataset, dataset.pairs()[0]) == ""
