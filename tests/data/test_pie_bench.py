"""PIE-Bench: masks as runs, blend words, kinds of edit, and what is refused."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from p2p_bench.data import load_pair
from p2p_bench.data.base import PairDataset
from p2p_bench.data.pie_bench import PieBench
from p2p_bench.data.pie_bench_pp import PieBenchPP
from p2p_bench.data.pie_format import CATEGORIES, decode_runs, parse_runs, with_border
from p2p_bench.errors import ConfigError, DataError, ErrorList
from tests.data.fake import pie_bench_pp
from tests.data.fake.pictures import picture
from tests.data.fake.pie_bench import LEFT_HALF, make, record, records
from tests.data.importing import planned, ran

SIZE = (64, 64)


def encode(mask: np.ndarray) -> list[int]:
    """The runs of a mask, by walking over its pixels."""
    runs: list[int] = []
    before = False
    for place, value in enumerate(mask.reshape(-1).tolist()):
        if value and not before:
            runs += [place, 0]
        if value:
            runs[-1] += 1
        before = value
    return runs


def alone(folder: Path, **changes: Any) -> PieBench:
    """A set of one record."""
    return PieBench(make(folder, {"000000000000": record(**changes)}))


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_runs_are_read_back(height: int, width: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = np.array(values).reshape(height, width)
    runs = encode(mask)
    assert np.array_equal(decode_runs(runs, height, width), mask)
    assert np.array_equal(decode_runs(parse_runs(" ".join(map(str, runs))), height, width), mask)
    pairs = data.draw(st.permutations(list(zip(runs[::2], runs[1::2], strict=True))))
    assert np.array_equal(decode_runs([number for pair in pairs for number in pair], height, width), mask)


def test_runs_go_row_by_row_and_are_clipped() -> None:
    assert decode_runs([1, 3, 6, 1], 2, 4).tolist() == [
        [False, True, True, True],
        [False, False, True, False],
    ]
    assert decode_runs([6, 5], 2, 4).tolist() == [[False] * 4, [False, False, True, True]]
    assert not decode_runs([], 2, 4).any()
    assert decode_runs([0, 8], 2, 4).all()


def test_the_border_is_set() -> None:
    assert with_border(decode_runs([5, 1], 4, 4)).astype(int).tolist() == [
        [1, 1, 1, 1],
        [1, 1, 0, 1],
        [1, 0, 0, 1],
        [1, 1, 1, 1],
    ]
    assert with_border(decode_runs([], 512, 512)).sum() == 2044


@pytest.mark.parametrize(
    ("runs", "told"),
    [
        ([1], "expected pairs of start and length, got 1 numbers"),
        ([-1, 2], "negative"),
        ([1, -2], "negative"),
        ([0, 4, 2, 2], "overlaps"),
        ([2, 2, 0, 4], "overlaps"),
        ([8, 1], "begins behind the last of 4 x 2 pixels"),
        ([0, 9], "longer than the image"),
        ([0, 6, 6, 4], "hold more than 4 x 2 pixels"),
        ([0, 10**400], "longer than the image"),
    ],
)
def test_runs_of_wrong_form_are_refused(runs: list[int], told: str) -> None:
    with pytest.raises(DataError, match=told):
        decode_runs(runs, 2, 4)


@settings(max_examples=50)
@given(st.lists(st.integers(-5, 30) | st.just(10**30), max_size=6))
def test_any_numbers_are_a_mask_or_refused(runs: list[int]) -> None:
    try:
        mask = decode_runs(runs, 3, 5)
    except DataError:
        return
    wanted = {
        at for start, length in zip(runs[::2], runs[1::2], strict=True) for at in range(start, start + length)
    }
    assert set(np.flatnonzero(mask).tolist()) == {at for at in wanted if at < 15}


@pytest.mark.parametrize(
    "value", [[1.0, 2], [True, 2], ["0", 2], None, {"a": 1}, "0 x", "0 ²", "- 1", "1" * 5000]
)
def test_masks_that_are_no_integers_are_refused(value: Any) -> None:
    with pytest.raises(DataError, match="mask: expected"):
        parse_runs(value)


def test_pairs_say_what_the_file_says(tmp_path: Path) -> None:
    pairs = PieBench(make(tmp_path)).pairs()
    assert [pair.id for pair in pairs] == list(records())
    first, deep, style = pairs
    assert (first.source_prompt, first.target_prompts) == (
        "a red circle on grass",
        ("a blue circle on grass",),
    )
    assert first.blend_words == (("red",), ("blue",))
    assert first.instruction == "make the circle blue"
    assert [pair.category for pair in pairs] == ["random", "change_object", "change_style"]
    assert style.blend_words is None
    assert deep.image is not None
    assert deep.image.is_file()
    assert [pair.id for pair in PieBench(tmp_path, limit=1).pairs()] == ["000000000000"]
    assert [pair.id for pair in PieBench(tmp_path, categories=["change_style"]).pairs()] == ["911000000000"]
    with pytest.raises(DataError, match="holds no pairs of add_object"):
        PieBench(tmp_path, categories="add_object").pairs()
    with pytest.raises(ConfigError, match="change_style"):
        PieBench(tmp_path, categories=["change_styl"])


def test_every_type_has_its_name(tmp_path: Path) -> None:
    entries = {f"{digit}": record(editing_type_id=f"{digit}") for digit in range(10)}
    assert tuple(pair.category for pair in PieBench(make(tmp_path, entries)).pairs()) == CATEGORIES


def test_kinds_that_do_not_agree_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entries = {
        "000000000000": record(),
        "111000000000": record(editing_type_id="1"),
        "own": record(image_path="2_add_object_80/a.jpg", editing_type_id="2"),
    }
    dataset = PieBench(make(tmp_path / "a", entries))
    assert [pair.category for pair in dataset.pairs()] == ["random", "change_object", "add_object"]
    (told,) = caplog.messages
    caplog.clear()
    dataset.pairs()  # of the next run
    assert caplog.messages == [told]
    assert "by editing_type_id is another than by id or folder, of 1 pairs; the first is id '111" in told
    assert "(0_random_140/000000000000.jpg), here change_object" in told
    caplog.clear()
    PieBench(make(tmp_path / "b", records())).pairs()
    assert not caplog.messages
    odd = {"3_delete_object_80": [pie_bench_pp.row("311000000000"), pie_bench_pp.row("411000000000")]}
    PieBenchPP(pie_bench_pp.make(tmp_path / "c", odd)).pairs()
    (told,) = caplog.messages
    assert "of 1 pairs; the first is id '411000000000', here delete_object" in told


def test_masks_are_brought_to_the_models_size(tmp_path: Path) -> None:
    make(tmp_path)
    bordered, bare = PieBench(tmp_path), PieBench(tmp_path, border=False)
    first, deep, style = bordered.pairs()
    half = load_pair(bare, first, SIZE)
    assert half.error is None
    assert half.image is not None
    assert half.image.shape == (3, 64, 64)
    wanted = np.zeros(SIZE)
    wanted[:, :33] = 1  # the filter of the 33rd column reaches four pixels into the left half
    assert half.mask is not None
    assert np.array_equal(half.mask.numpy(), wanted)
    wanted[[0, -1]] = 1
    wanted[:, -1] = 1
    mask = load_pair(bordered, first, SIZE).mask
    assert mask is not None
    assert np.array_equal(mask.numpy(), wanted)
    # A ragged one, of one row and a part of the third, is unioned into the pixels that it touches.
    ragged = load_pair(bare, deep, (512, 512)).mask
    assert ragged is not None
    assert (ragged.sum(), ragged[0].sum(), ragged[2, :100].sum()) == (612, 512, 100)
    assert load_pair(bordered, style, SIZE).mask_state == "full"


def test_an_empty_mask_has_its_border_only(tmp_path: Path) -> None:
    dataset = alone(tmp_path, mask=[])
    (pair,) = dataset.pairs()
    loaded = load_pair(dataset, pair, (512, 512))
    assert loaded.mask is not None
    assert loaded.mask.sum() == 2044
    assert load_pair(PieBench(tmp_path, border=False), pair, SIZE).mask_state == "empty"


def test_a_bad_mask_is_an_error_of_its_pair(tmp_path: Path) -> None:
    bad = {"odd": [1], "text": "0 x", "over": [0, 4, 2, 4], "floats": [0.5, 2], "far": [512 * 512, 1]}
    entries = {"good": record(), **{name: record(mask=mask) for name, mask in bad.items()}}
    dataset = PieBench(make(tmp_path, entries))
    loaded = {pair.id: load_pair(dataset, pair, SIZE).error for pair in dataset.pairs()}
    assert loaded.pop("good") is None
    assert set(loaded) == set(bad)
    for name, error in loaded.items():
        assert error is not None
        assert f"mapping_file.json, id '{name}': mask: " in error


def test_a_mask_of_another_size_than_its_image_is_refused(tmp_path: Path) -> None:
    dataset = PieBench(make(tmp_path, side=256))
    error = load_pair(dataset, dataset.pairs()[0], SIZE).error
    assert "id '000000000000': the image is 256 x 256 pixels, but its mask is written for 512 x 512" in str(
        error
    )


def test_blend_words_that_no_prompt_has(tmp_path: Path) -> None:
    entries = {
        "source": record(blended_word="green blue"),
        "target": record(blended_word="red green"),
        "comma": record(original_prompt="a red, round circle"),
        "neither": record(blended_word="green yellow"),
        "more": record(blended_word="red blue circle"),
        "spaces": record(blended_word="red  blue"),
    }
    dataset = PieBench(make(tmp_path, entries))
    errors = {pair.id: load_pair(dataset, pair, SIZE).error for pair in dataset.pairs()}
    assert "id 'source': blend word 'green' is not in the source prompt 'a red circle on grass'" in str(
        errors["source"]
    )
    assert "dataset.as_released=true" in str(errors["source"])
    assert "blend word 'green' is not in the target prompt" in str(errors["target"])
    assert errors["comma"] is errors["more"] is errors["spaces"] is None
    assert {pair.id: pair for pair in dataset.pairs()}["spaces"].blend_words == (("red",), ("blue",))
    released = PieBench(tmp_path, as_released=True)
    pairs = {pair.id: pair for pair in released.pairs()}
    assert pairs["source"].blend_words == ((), ("blue",))
    assert pairs["target"].blend_words == (("red",), ())
    assert pairs["comma"].blend_words == ((), ("blue",))
    assert pairs["more"].blend_words == (("red",), ("blue",))
    assert pairs["spaces"].blend_words == (("red",), ()), "there is nothing between two spaces"
    errors = {pair.id: load_pair(released, pair, SIZE).error for pair in pairs.values()}
    assert [name for name, error in errors.items() if error] == ["neither"]
    assert "hands the source back" in str(load_pair(released, pairs["neither"], SIZE).error)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"original_prompt": None}, "original_prompt: missing"),
        ({"editing_prompt": 3}, "editing_prompt: expected text, got a number"),
        ({"editing_prompt": " "}, "editing_prompt: is empty"),
        ({"editing_prompt": "[ ]"}, "editing_prompt: is empty but for its brackets"),
        ({"editing_prompt": "nan"}, "editing_prompt: 'nan' is what programs write where there is nothing"),
        ({"editing_type_id": "10"}, "editing_type_id: expected '0' to '9', got '10'"),
        ({"editing_type_id": "²"}, "editing_type_id: expected '0' to '9'"),
        ({"image_path": "../../secret.png"}, "leaves the root"),
        ({"image_path": "/etc/passwd"}, "leaves the root"),
        ({"image_path": "a\0b"}, "not a usable path"),
        ({"blended_word": "cat"}, "blended_word: expected 'source target', got 'cat' alone"),
        ({"mask": None}, "mask: missing"),
    ],
)
def test_bad_records_are_named(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    make(tmp_path, {"0": record()})
    (tmp_path / "mapping_file.json").write_text(json.dumps({"0": record(), "7": record(**changes)}))
    with pytest.raises(DataError, match=r"mapping_file\.json, id '7': ") as caught:
        PieBench(tmp_path).pairs()
    assert told in str(caught.value)


def test_blend_words_under_another_name_are_not_lost(tmp_path: Path) -> None:
    misnamed = {key.replace("blended_word", "blended_words"): value for key, value in record().items()}
    make(tmp_path, {"0": misnamed})
    with pytest.raises(DataError, match=r"blended_word: missing\. Is it 'blended_words'\?"):
        PieBench(tmp_path).pairs()
    make(tmp_path, {"0": {key: value for key, value in record().items() if key != "blended_word"}})
    assert PieBench(tmp_path).pairs()[0].blend_words is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "broken JSON"),
        (b"[1]", "expected a JSON object"),
        (b"{}", "holds no pairs"),
        (b'{"a": 1, "a": 2}', "a: given more than once"),
        (b'{"a": 1}', "id 'a': expected an object"),
        (b"\xff\xfe", "not UTF-8 text"),
        (b'{"a": ' + b"[" * 100000, "broken JSON"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: bytes, told: str) -> None:
    make(tmp_path)
    (tmp_path / "mapping_file.json").write_bytes(content)
    with pytest.raises(DataError, match=r"mapping_file\.json") as caught:
        PieBench(tmp_path).pairs()
    assert told in str(caught.value)


def test_several_faults_are_told_at_once_and_missing_parts_are_named(tmp_path: Path) -> None:
    make(tmp_path, {"a": record(editing_prompt=""), "b": record(original_prompt="")})
    with pytest.raises(ErrorList, match="2 faults"):
        PieBench(tmp_path).pairs()
    with pytest.raises(DataError, match=r"nowhere: no such folder; set dataset\.path"):
        PieBench(tmp_path / "nowhere").pairs()
    with pytest.raises(DataError, match=r"mapping_file\.json: no such file"):
        PieBench(tmp_path / "annotation_images").pairs()


def test_a_missing_image_is_an_error_of_its_pair_and_all_missing_stop(tmp_path: Path) -> None:
    dataset = PieBench(make(tmp_path))
    first, second, third = dataset.pairs()
    assert first.image is not None
    first.image.unlink()
    assert "no such image file" in str(load_pair(dataset, dataset.pairs()[0], SIZE).error)
    for pair in (second, third):
        assert pair.image is not None
        pair.image.unlink()
    with pytest.raises(DataError, match="none of its 3 images exists"):
        dataset.pairs()


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    make(tmp_path / "set")
    (tmp_path / "secret.jpg").write_bytes(b"x")
    image = tmp_path / "set" / "annotation_images" / "0_random_140" / "000000000000.jpg"
    image.unlink()
    image.symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(DataError, match="leaves the root"):
        PieBench(tmp_path / "set").pairs()


def test_a_run(command: Any) -> None:
    entries = {**records(), "bad": record(mask=[3]), "word": record(blended_word="red green")}
    folder = make(command.folder / "set", entries)
    chosen = ("dataset=pie_bench", f"dataset.path={folder}", "controller=pie")
    plan = planned(command, *chosen)
    assert plan.code == 0, plan.err
    outcome, rows = ran(command, *chosen)
    assert outcome.code == 1, outcome.err
    assert "Traceback" not in outcome.err
    assert {name: row["status"] for name, row in rows.items()} == {
        **dict.fromkeys(records(), "ok"), "bad": "error", "word": "error",
    }  # fmt: skip
    assert "id 'bad': mask: expected pairs of start and length" in rows["bad"]["error"]
    assert "'green' is not in the prompt 'a blue circle on grass'" in rows["word"]["error"]
    assert np.isnan(rows["911000000000"]["psnr_outside"])
    assert rows["911000000000"]["mask"] == "full"
    assert np.isfinite(rows["000000000000"]["psnr_outside"])
    assert rows["000000000000"]["inversion"] == "ddim"


@pytest.mark.parametrize("kind", ["mapping", "table"])
def test_an_image_that_exif_turns_has_no_known_mask(tmp_path: Path, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = BytesIO()
    picture(512).save(file, "JPEG", exif=exif)
    if kind == "mapping":
        folder = make(tmp_path, {"000000000000": record()})
        (folder / "annotation_images" / record()["image_path"]).write_bytes(file.getvalue())
        dataset: PairDataset = PieBench(folder)
    else:
        row = pie_bench_pp.row("a", image={"bytes": file.getvalue(), "path": "a.jpg"})
        dataset = PieBenchPP(pie_bench_pp.make(tmp_path, {"0_random_140": [row]}))
    error = load_pair(dataset, dataset.pairs()[0], (64, 64)).error
    assert "the image is turned by EXIF orientation 6, its mask is not" in str(error)


def test_the_left_half_is_the_left_half() -> None:
    mask = decode_runs(LEFT_HALF, 512, 512)
    assert mask[:, :256].all()
    assert not mask[:, 256:].any()


def test_a_run_as_released(command: Any) -> None:
    entries = {
        "source": record(blended_word="green blue"),
        "target": record(blended_word="red green"),
        "neither": record(blended_word="green yellow"),
    }
    make(command.folder / "set", entries)
    chosen = ("dataset=pie_bench", "dataset.path=set", "dataset.as_released=true", "controller=pie")
    outcome, rows = ran(command, *chosen)
    assert outcome.code == 1, outcome.err
    assert {name: row["status"] for name, row in rows.items()} == {
        "source": "ok", "target": "ok", "neither": "error",
    }  # fmt: skip
    # Without its target's word a pair is not weighted, as in the released code.
    assert "reweight" in rows["source"]["control"]
    assert "reweight" not in rows["target"]["control"]
