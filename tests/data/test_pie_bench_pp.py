"""PIE-Bench++: Parquet files by kind of edit."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from p2p_bench.data import load_pair
from p2p_bench.data.pie_bench_pp import PieBenchPP, blend_words
from p2p_bench.errors import DataError
from tests.data.fake.pie_bench_pp import NAME, make, row
from tests.data.importing import planned, ran

FULL = (512, 512)


def test_pairs_and_pixels(tmp_path: Path) -> None:
    dataset = PieBenchPP(make(tmp_path), border=False)
    pairs = dataset.pairs()
    assert [pair.id for pair in pairs] == ["000000000000", "000000000001", "111000000000"]
    assert [pair.category for pair in pairs] == ["random", "random", "change_object"]
    assert [pair.blend_words for pair in pairs] == [
        (("red",), ("blue",)),
        None,
        (("circle", "sand"), ("square", "snow")),
    ]
    assert pairs[0].source_prompt == "a red circle on grass"
    loaded = [load_pair(dataset, pair, FULL) for pair in pairs]
    assert [one.error for one in loaded] == [None] * 3
    assert [one.mask_state for one in loaded] == ["part", "empty", "part"]
    mask = loaded[0].mask
    assert mask is not None
    assert (mask.sum(), mask[0].sum(), mask[2, :100].sum()) == (612, 512, 100)
    assert [pair.id for pair in PieBenchPP(tmp_path, categories="change_object").pairs()] == ["111000000000"]
    one = PieBenchPP(tmp_path / "1_change_object_80").pairs()
    assert [(pair.id, pair.category) for pair in one] == [("111000000000", "change_object")]


def test_each_pair_has_its_own_picture(tmp_path: Path) -> None:
    rows = [row("a"), row("bb"), row("ccc")]
    dataset = PieBenchPP(make(tmp_path, {"0_random_140": rows}))
    for pair, content in zip(dataset.pairs(), rows, strict=True):
        alone = make(tmp_path / pair.id, {"0_random_140": [content]})
        (only,) = PieBenchPP(alone).pairs()
        loaded, wanted = dataset.load(pair, FULL).image, PieBenchPP(alone).load(only, FULL).image
        assert loaded is not None
        assert wanted is not None
        assert torch.equal(loaded, wanted)
    first, second = (dataset.load(pair, FULL).image for pair in dataset.pairs()[:2])
    assert first is not None
    assert second is not None
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('["cat,dog"]', (("cat",), ("dog",))),
        ("['cat, dog', 'cat,cow']", (("cat",), ("dog", "cow"))),
        ('[",dog"]', ((), ("dog",))),
        ("[]", None),
        ("", None),
        (None, None),
    ],
)
def test_blend_words(text: str | None, words: Any) -> None:
    assert blend_words({"blended_words": text}) == words


@pytest.mark.parametrize(
    "text", ["cat", "[1]", '["a,b,c"]', '["cat"]', "{}", "[", "(" * 5000, "__import__('os')"]
)
def test_what_is_no_list_of_blend_words_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="blended_words: expected"):
        blend_words({"blended_words": text})


def test_bad_rows_are_errors_alone(tmp_path: Path) -> None:
    rows = [
        row("good"),
        row("odd", mask="1 2 3"),
        row("letters", mask="1 x"),
        row("none", mask=None),
        row("words", blended_words="cat"),
        row("absent", blended_words='["cat,blue"]'),
        row("small", side=64),
        row("cut", image={"bytes": row("x")["image"]["bytes"][:300], "path": None}),
        row("gone", image={"bytes": None, "path": "x.jpg"}),
    ]
    dataset = PieBenchPP(make(tmp_path, {"0_random_140": rows}))
    errors = {pair.id: load_pair(dataset, pair, FULL).error for pair in dataset.pairs()}
    assert errors.pop("good") is None
    for name, told in {
        "odd": "id 'odd': mask: expected pairs",
        "letters": "id 'letters': mask: expected integers, got 'x'",
        "none": "id 'none': mask: expected",
        "words": "id 'words': blended_words: expected a list",
        "absent": "id 'absent': blend word 'cat' is not in the source prompt",
        "small": "id 'small': the image is 64 x 64",
        "cut": "row 7, image: ",
        "gone": "row 8, image: expected the bytes of an image",
    }.items():
        assert told in str(errors[name])
        assert "cannot be loaded" not in str(errors[name])
    released = {pair.id: pair for pair in PieBenchPP(tmp_path, as_released=True).pairs()}
    assert released["absent"].blend_words == ((), ("blue",))


def test_bad_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file \*/V1-\*\.parquet"):
        PieBenchPP(tmp_path).pairs()
    make(tmp_path, {"0_random_140": [row("a"), row("b", target_prompt=None)]})
    with pytest.raises(DataError, match=rf"{NAME}, row 1: target_prompt: missing"):
        PieBenchPP(tmp_path).pairs()
    make(tmp_path, {"0_random_140": [row("a", source_prompt="[]")]})
    with pytest.raises(DataError, match=rf"{NAME}, row 0: source_prompt: is empty but for its brackets"):
        PieBenchPP(tmp_path).pairs()
    make(tmp_path, {"0_random_140": [row("a")], "1_change_object_80": [row("a")]})
    with pytest.raises(DataError, match="id 'a' is taken by an earlier one"):
        PieBenchPP(tmp_path).pairs()
    path = tmp_path / "0_random_140" / NAME
    pq.write_table(pa.table({"id": ["a"], "source": ["b"]}), path)
    with pytest.raises(DataError, match=r"no column 'source_prompt'\. Did you mean"):
        PieBenchPP(tmp_path).pairs()
    for content in (b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="not a whole table"):
            PieBenchPP(tmp_path).pairs()
    path.unlink()
    for name in ("other", "10_style_80"):
        make(tmp_path, {name: [row("a")]})
        with pytest.raises(DataError, match=f"{name}/{NAME}: its folder has to begin with the digit"):
            PieBenchPP(tmp_path).pairs()
        (tmp_path / name / NAME).unlink()


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    make(tmp_path / "elsewhere")
    (tmp_path / "set" / "0_random_140").mkdir(parents=True)
    (tmp_path / "set" / "0_random_140" / NAME).symlink_to(tmp_path / "elsewhere" / "0_random_140" / NAME)
    with pytest.raises(DataError, match="leaves the root"):
        PieBenchPP(tmp_path / "set").pairs()


def test_a_run(command: Any) -> None:
    folder = make(command.folder / "set", {"0_random_140": [row("a"), row("b", mask="7")]})
    chosen = ("dataset=pie_bench_pp", f"dataset.path={folder}", "controller=pie")
    plan = planned(command, *chosen)
    assert plan.code == 0, plan.err
    outcome, rows = ran(command, *chosen)
    assert outcome.code == 1, outcome.err
    assert {name: row["status"] for name, row in rows.items()} == {"a": "ok", "b": "error"}
    assert "id 'b': mask: expected pairs" in rows["b"]["error"]
    assert rows["a"]["inversion"] == "ddim"
    assert rows["a"]["mask"] == "part"
