"""Reading of JSONL pairs: what a line may say, and what each fault is called."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2p_bench.data.pairs import KEYS, read_pairs
from p2p_bench.errors import DataError, ErrorList
from p2p_bench.world.scenes import sample_scene

SCENE = sample_scene(5, two_objects=0.0).to_dict()
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
        ({"source_prompt": " nan "}, "source_prompt: 'nan' is what programs write where there is nothing"),
        ({"target_prompt": "None"}, "target_prompt: 'None' is what programs write"),
        ({"target_prompt": None, "target_prompts": ["a", "null"]}, "target_prompts: 'null' is what programs"),
        ({"category": "NaN"}, "category: 'NaN' is what programs write"),
        ({"image": "nan"}, "image: 'nan' is what programs write"),
        ({"blend_words": [["nan"], ["cat"]]}, "blend_words: 'nan' is what programs write"),
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
        (
            {"word_weights": {"cat": 10**400}},
            "word_weights: the factor of 'cat' must be a finite number, got 1000",
        ),
        (
            {"word_weights": {"cat": [2]}},
            "word_weights: the factor of 'cat' must be a finite number, got a list",
        ),
        ({"seed": 10**400}, "seed: expected an integer in [0, 2**63), got 1000"),
        ({"seed": {"a": 1}}, "seed: expected an integer in [0, 2**63), got an object"),
        ({"wörd\nline\ud800": 1}, "w\\xf6rd\\nline\\ud800: unknown key."),
        ({"k" * 5000: 1}, "kkk: unknown key."),
        (
            {"edit": {"attribute": "seed", "value": 1}, "scene": SCENE},
            "edit: attribute: expected what a prompt",
        ),
        (
            {"edit": {"attribute": ["x"], "value": 1}, "scene": SCENE},
            "edit: attribute: expected what a prompt",
        ),
        (
            {"edit": {"attribute": "size", "value": None}, "scene": SCENE},
            "edit: size: expected a number in [0.01",
        ),
        ({"edit": {"attribute": "shape", "value": ["x"]}, "scene": SCENE}, "edit: unknown shape ['x']"),
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


def with_object(**change: object) -> dict[str, object]:
    return {**SCENE, "objects": [{**SCENE["objects"][0], **change}]}


@pytest.mark.parametrize(
    ("scene", "message"),
    [
        (with_object(size=None), "scene: objects[0]: size: expected a number in [0.01, 1], got None"),
        (with_object(size=-0.2), "scene: objects[0]: size: expected a number in [0.01, 1], got -0.2"),
        (with_object(x=float("nan")), "scene: objects[0]: x: expected a number in [0, 1], got nan"),
        (with_object(y=1e308), "scene: objects[0]: y: expected a number in [0, 1], got 1e+308"),
        (
            with_object(angle=10**400),
            "scene: objects[0]: angle: expected a number in [-6.283, 6.283], got an int",
        ),
        (with_object(size=True), "scene: objects[0]: size: expected a number in [0.01, 1], got True"),
        (with_object(x="0.5"), "scene: objects[0]: x: expected a number in [0, 1], got '0.5'"),
        (with_object(shape=None), "scene: objects[0]: unknown shape None, expected one of circle"),
        (with_object(colour={"red": 1}), "scene: objects[0]: unknown colour {'red': 1}, expected one of red"),
        (with_object(depth=1), "scene: objects[0]: unknown key 'depth', known are shape"),
        ({**SCENE, "objects": None}, "scene: objects: expected a list of objects, got None"),
        ({**SCENE, "objects": "circle"}, "scene: objects: expected a list of objects, got 'circle'"),
        ({**SCENE, "objects": [3]}, "scene: objects[0]: expected an object {...}, got 3"),
        ({**SCENE, "objects": [{}]}, "scene: objects[0]: shape, colour, pattern, x, y, size, angle missing"),
        ({**SCENE, "seed": -1}, "scene: seed: expected an integer in [0, 2**63), got -1"),
        ({**SCENE, "seed": 0.5}, "scene: seed: expected an integer in [0, 2**63), got 0.5"),
        (
            {**SCENE, "weather_strength": None},
            "scene: weather_strength: expected a number in [0, 1], got None",
        ),
        ({**SCENE, "weather": "rain"}, "scene: unknown weather 'rain'"),
        ({**SCENE, "wind": 3}, "scene: scene: unknown key 'wind'"),
    ],
)
def test_values_of_a_scene_are_checked(tmp_path: Path, scene: object, message: str) -> None:
    """Infinite, absent or negative places would be drawn as something else, or break the run."""
    assert message in fault_of(tmp_path, {**MINIMAL, "scene": scene, "real": True})


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.just(10**400)
    | st.floats() | st.text(max_size=9)
    | st.sampled_from(["\ud800", "a\nb", "\0", "x" * 5000, "../x", "/etc/passwd", "\u202e", " "]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["attribute", "value", "objects", "\ud800"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from([*KEYS, "source", "target", "odd\ud800"]), JUNK, max_size=5))
def test_junk_is_refused_in_sentences(tmp_path: Path, junk: dict[str, object]) -> None:
    """Property: whatever a line holds, it is a pair or a list of faults; nothing else is raised."""
    path = write(tmp_path, json.dumps({**MINIMAL, "scene": SCENE, **junk}))
    try:
        (pair,) = read_pairs(path)
    except DataError as error:
        faults = [str(error)]
    except ErrorList as errors:
        faults = [str(error) for error in errors.errors]
    else:
        assert all(abs(factor) < float("inf") for factor in pair.word_weights.values())
        return
    for fault in faults:
        assert fault.startswith(f"{path}, line 1: ")
        fault.encode()
        assert len(fault) < len(str(path)) + 1500


def test_files_that_are_no_text_of_pairs(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    line = json.dumps(MINIMAL) + "\n"
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        content = line.encode(encoding)
        path.write_bytes(content if encoding != "utf-16-le" else b"\xff\xfe" + content)
        with pytest.raises(DataError, match="the file is UTF-16 text; save it as UTF-8"):
            read_pairs(path)
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    with pytest.raises((DataError, ErrorList), match=r"not UTF-8 text|broken JSON"):
        read_pairs(path)
    path.unlink()
    os.mkfifo(path)
    for absent in (path, tmp_path, tmp_path / ("x" * 5000), tmp_path / "a\0b"):
        with pytest.raises(DataError, match="no such file"):
            read_pairs(absent)
