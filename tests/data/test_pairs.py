"""Reading of JSONL pairs: what a line may say, and what each fault is called."""

import json
from pathlib import Path

import pytest

from p2p_bench.data.pairs import read_pairs
from p2p_bench.errors import DataError, ErrorList
from p2p_bench.world.scenes import sample_scene

MINIMAL = {"source_prompt": "a red circle", "target_prompt": "a blue circle"}


def write(folder: Path, *lines: object) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def fault_of(folder: Path, line: object) -> str:
    """The one fault of a file with this line alone, without the place."""
    path = write(folder, line)
    with pytest.raises(DataError) as info:
        read_pairs(path)
    place, fault = str(info.value).split(", line 1: ")
    assert place == str(path)
    return fault


def test_minimal_line(tmp_path: Path) -> None:
    (pair,) = read_pairs(write(tmp_path, MINIMAL))
    assert pair.id == "1"
    assert (pair.source_prompt, pair.target_prompts) == ("a red circle", ("a blue circle",))
    assert (pair.image, pair.mask, pair.seed, pair.blend_words, pair.has_image) == (
        None,
        None,
        None,
        None,
        False,
    )
    assert dict(pair.word_weights) == {}
    assert pair.category == ""


def test_every_key(tmp_path: Path) -> None:
    line = {
        "id": 7,
        "source": "a cat, sitting",
        "target_prompts": ["a dog, sitting", "a fox, sitting"],
        "image": "images/cat.png",
        "mask": "images/mask.png",
        "blend_words": ["cat", ["dog", "fox"]],
        "word_weights": {"dog": 2, "sitting": -1.5},
        "category": "swap",
        "seed": 3,
    }
    (pair,) = read_pairs(write(tmp_path, line))
    assert pair.id == "7"
    assert pair.target_prompts == ("a dog, sitting", "a fox, sitting")
    assert pair.image == (tmp_path / "images/cat.png").resolve()
    assert pair.has_image
    assert pair.mask == (tmp_path / "images/mask.png").resolve()
    assert pair.blend_words == (("cat",), ("dog", "fox"))
    assert dict(pair.word_weights) == {"dog": 2.0, "sitting": -1.5}
    assert (pair.category, pair.seed) == ("swap", 3)


def test_world_keys(tmp_path: Path) -> None:
    scene = sample_scene(5)
    edit = {"attribute": "background", "value": "sand"}
    (pair,) = read_pairs(write(tmp_path, {**MINIMAL, "scene": scene.to_dict(), "edit": edit, "real": True}))
    assert pair.scene == scene.to_dict()
    assert pair.rendered
    assert pair.has_image
    assert pair.scene_edit == {"attribute": "background", "value": "sand", "index": 0}


def test_line_numbers_skip_blank_lines_and_accept_windows_files(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf" + json.dumps(MINIMAL).encode() + b"\r\n\r\n" + json.dumps(MINIMAL).encode()
    )
    assert [pair.id for pair in read_pairs(path)] == ["1", "3"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source_prompt": "  "}, "source_prompt: is empty"),
        ({"target_prompt": ""}, "target_prompt: is empty"),
        ({"source_prompt": 3}, "source_prompt: expected text, got a number"),
        ({"target_prompt": "\ud800"}, "target_prompt: is not valid Unicode text"),
        ({"target_prompts": ["x"]}, "target_prompt and target_prompts: give one of the two"),
        ({"target_prompt": None}, "target_prompt: missing; a line needs it or target_prompts."),
        ({"target_prompt": None, "target_prompts": []}, "target_prompts: the list is empty"),
        (
            {"target_prompt": None, "target_prompts": "x"},
            "target_prompts: expected a list of texts, got text",
        ),
        ({"source_prompt": None}, "source_prompt: missing"),
        ({"blend_word": ["a", "b"]}, "blend_word: unknown key. Did you mean 'blend_words'?"),
        ({"blend_words": ["cat"]}, "blend_words: expected [source words, target words]"),
        ({"word_weights": {"cat": "2"}}, "word_weights: the factor of 'cat' must be a finite number"),
        (
            {"word_weights": {"cat": float("nan")}},
            "word_weights: the factor of 'cat' must be a finite number",
        ),
        ({"word_weights": ["cat"]}, 'word_weights: expected {"word": factor}, got a list'),
        ({"seed": -1}, "seed: expected an integer in [0, 2**63), got -1"),
        ({"seed": True}, "seed: expected an integer"),
        ({"id": ""}, "id: is empty"),
        ({"category": 4}, "category: expected text, got a number"),
        ({"real": True}, "real: true needs a scene to render"),
        ({"mask": "m.png"}, "mask: given without an image"),
        ({"edit": {"attribute": "style", "value": "photo"}}, "edit: needs a usable scene"),
        ({"scene": {"objects": []}}, "scene: "),
        ({"image": "../cat.png"}, "leaves the root"),
        ({"image": "/etc/passwd"}, "leaves the root"),
        ({"image": "a\0b"}, "is not a usable path"),
    ],
)
def test_one_fault(tmp_path: Path, change: dict[str, object], message: str) -> None:
    assert message in fault_of(tmp_path, {**MINIMAL, **change})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"source_prompt": "a", "target_prompt": }', "broken JSON: Expecting value at column 41"),
        ("[1, 2]", "expected a JSON object {...}, got a list"),
        ('{"id": 1, "id": 2, "source": "a", "target": "b"}', "id: given more than once"),
        ('{"source": "a", "source_prompt": "b", "target": "c"}', "source_prompt: given more than once"),
        ("[" * 100_000, "broken JSON"),
    ],
)
def test_broken_line(tmp_path: Path, line: str, message: str) -> None:
    assert message in fault_of(tmp_path, line)


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(json.dumps(MINIMAL).encode() + b'\n{"source": "caf\xe9", "target": "b"}')
    with pytest.raises(DataError, match=r"pairs\.jsonl, line 2: not UTF-8 text"):
        read_pairs(path)


def test_misspelt_required_key_is_suggested(tmp_path: Path) -> None:
    path = write(tmp_path, {"source_promt": "a", "target_prompt": "b"})
    with pytest.raises(ErrorList) as info:
        read_pairs(path)
    assert "source_prompt: missing; a line needs one. Did you mean 'source_promt'?" in str(info.value)


def test_all_faults_are_listed(tmp_path: Path) -> None:
    path = write(
        tmp_path, {**MINIMAL, "seed": "x", "real": 1}, MINIMAL, "{", {**MINIMAL, "image": "../a.png"}
    )
    with pytest.raises(ErrorList) as info:
        read_pairs(path)
    places = [str(error).split(": ")[0] for error in info.value.errors]
    assert places == [f"{path}, line {number}" for number in (1, 1, 3, 4)]


def test_ids_are_unique(tmp_path: Path) -> None:
    path = write(tmp_path, {**MINIMAL, "id": "x"}, {**MINIMAL, "id": "x"})
    with pytest.raises(DataError, match="line 2: id: 'x' is taken by line 1"):
        read_pairs(path)


def test_no_symbolic_link_out_of_the_root(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    (outside / "cat.png").touch()
    (root / "inner.png").touch()
    (root / "link").symlink_to(outside)
    (root / "good.png").symlink_to(root / "inner.png")
    assert "leaves the root" in fault_of(root, {**MINIMAL, "image": "link/cat.png"})
    (pair,) = read_pairs(write(root, {**MINIMAL, "image": "good.png"}))
    assert pair.image == (root / "inner.png").resolve()


def test_root_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (pair,) = read_pairs(write(tmp_path, {**MINIMAL, "image": "cat.png"}), root=tmp_path / "images")
    assert pair.image == (tmp_path / "images/cat.png").resolve()


def test_missing_empty_and_rootless_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        read_pairs(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="holds no pairs"):
        read_pairs(write(tmp_path, ""))
    with pytest.raises(DataError, match=r"no such folder; dataset\.root"):
        read_pairs(write(tmp_path, MINIMAL), root=tmp_path / "none")
