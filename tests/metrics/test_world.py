"""Exact answers and oracle readings of the embedded world."""

import dataclasses
import json
import math
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from p2p_bench.errors import MissingWeightsError
from p2p_bench.metrics import EditView, WorldAnswer, WorldAttributes
from p2p_bench.metrics.base import Undefined
from p2p_bench.metrics.oracle import (
    CONFIG,
    LABELS,
    WEIGHTS,
    AttributeOracle,
    OracleConfig,
    OracleReading,
    load_oracle,
)
from p2p_bench.metrics.pixel import MAX_PSNR, psnr
from p2p_bench.metrics.world import attribute_changed, others_kept, unread
from p2p_bench.world.scenes import (
    BACKGROUNDS,
    COLOURS,
    PATTERNS,
    SHAPES,
    STYLES,
    Scene,
    changed_mask,
    render,
    sample_scene,
)

SCENE = sample_scene(3, two_objects=0.0, styled=0.0, weathered=0.0)
TWO = sample_scene(4, two_objects=1.0, styled=0.0, weathered=0.0)


def view_of(scene: Scene, edit: dict[str, object], edited: torch.Tensor | None = None) -> EditView:
    after = scene.with_attribute(str(edit["attribute"]), edit["value"], int(str(edit["index"])))
    source, answer = render([scene, after]).images
    return EditView(
        source=source,
        edited=source if edited is None else edited,
        source_prompt="a",
        target_prompt="b",
        mask=changed_mask(scene, after).float(),
        answer=answer,
        scene=scene.to_dict(),
        scene_edit=edit,
    )


def test_answer() -> None:
    colour = "blue" if SCENE.objects[0].colour != "blue" else "red"
    view = view_of(SCENE, {"attribute": "colour", "value": colour, "index": 0})
    assert view.answer is not None
    assert view.mask is not None
    noise = 0.1 * (1 - view.mask)
    perfect = dataclasses.replace(view, edited=view.answer)
    noisy = dataclasses.replace(view, edited=view.answer + noise)
    unknown = dataclasses.replace(view, answer=None)
    rows = WorldAnswer()([view, perfect, noisy, unknown])
    assert rows[0]["answer_psnr"] == psnr(view.source[None], view.answer[None]).item()
    assert rows[0]["background_error"] == 0
    assert rows[1] == {"answer_psnr": MAX_PSNR, "background_error": 0.0}
    assert rows[2]["background_error"] == pytest.approx(0.01, rel=1e-5)
    assert math.isnan(rows[3]["answer_psnr"])
    assert math.isnan(rows[3]["background_error"])


def test_an_edit_everywhere_has_no_background() -> None:
    row = WorldAnswer()([view_of(SCENE, {"attribute": "style", "value": "sketch", "index": 0})])[0]
    assert math.isnan(row["background_error"])
    assert row["answer_psnr"] < MAX_PSNR


def reading(scene: Scene, **values: str) -> OracleReading:
    """A faultless reading of a scene, with some values replaced."""
    item = scene.objects[0]
    seen = {
        "shape": item.shape,
        "colour": item.colour,
        "pattern": item.pattern,
        "background": scene.background,
        "style": scene.style,
        "weather": scene.weather,
        **values,
    }
    pairs = tuple((thing.shape, thing.colour) for thing in scene.objects)
    return OracleReading(seen, dict.fromkeys(LABELS, 1.0), 0.0, pairs)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("shape", "star"),
        ("colour", "white"),
        ("pattern", "dotted"),
        ("background", "wood"),
        ("weather", "fog"),
    ],
)
def test_one_object(attribute: str, value: str) -> None:
    edit = {"attribute": attribute, "value": value, "index": 0}
    scene = SCENE.to_dict()
    before, after = reading(SCENE), reading(SCENE.with_attribute(attribute, value))
    assert before != after
    assert attribute_changed(after, scene, edit) == 1
    assert attribute_changed(before, scene, edit) == 0
    assert others_kept(before, after, scene, edit) == 1
    assert others_kept(before, before, scene, edit) == 1
    spoilt = reading(SCENE.with_attribute(attribute, value), style="mosaic")
    assert attribute_changed(spoilt, scene, edit) == 1
    assert others_kept(before, spoilt, scene, edit) == 0


def test_what_the_source_really_shows_counts() -> None:
    edit = {"attribute": "colour", "value": "white", "index": 0}
    wrong_source = reading(SCENE, background="stone")
    wrong_edit = reading(SCENE.with_attribute("colour", "white"), background="stone")
    assert others_kept(wrong_source, wrong_edit, SCENE.to_dict(), edit) == 1


def test_two_objects() -> None:
    scene, other = TWO.to_dict(), TWO.objects[0]
    colour = next(c for c in ("white", "black", "pink") if c not in (o.colour for o in TWO.objects))
    edit = {"attribute": "colour", "value": colour, "index": 1}
    before, after = reading(TWO), reading(TWO.with_attribute("colour", colour, 1))
    assert attribute_changed(after, scene, edit) == 1
    assert attribute_changed(before, scene, edit) == 0
    assert others_kept(before, after, scene, edit) == 1
    # The shape, colour and pattern of "the" object mean nothing here.
    assert (
        others_kept(before, dataclasses.replace(after, values={**after.values, "shape": "ring"}), scene, edit)
        == 1
    )
    wrong_one = reading(TWO.with_attribute("colour", colour, 0))
    assert attribute_changed(wrong_one, scene, edit) == 0
    assert others_kept(before, wrong_one, scene, edit) == 0
    gone = dataclasses.replace(after, pairs=after.pairs[1:])
    assert (other.shape, other.colour) not in gone.pairs
    assert others_kept(before, gone, scene, edit) == 0


def test_what_the_oracle_cannot_tell() -> None:
    strength = {"attribute": "weather_strength", "value": 0.9, "index": 0}
    foggy = SCENE.with_attribute("weather", "fog")
    assert math.isnan(attribute_changed(reading(foggy), foggy.to_dict(), strength))
    assert others_kept(reading(foggy), reading(SCENE), foggy.to_dict(), strength) == 1
    pattern = {"attribute": "pattern", "value": "dotted", "index": 1}
    assert math.isnan(attribute_changed(reading(TWO), TWO.to_dict(), pattern))


FAINT = {
    "photo": {"pattern": 0.02, "pairs": 0.06},
    "sketch": {"shape": 0.0, "colour": 0.08, "pattern": 0.27, "pairs": 0.3},
    "fog": {"pattern": 0.21},
}


def test_what_a_style_hides_is_not_asked() -> None:
    to_sketch = {"attribute": "style", "value": "sketch", "index": 0}
    hidden = unread(FAINT, SCENE.to_dict(), to_sketch)
    assert list(hidden) == ["pattern", "pairs"]
    before, after = reading(SCENE), reading(SCENE.with_attribute("style", "sketch"), pattern="unread")
    assert others_kept(before, after, SCENE.to_dict(), to_sketch) == 0
    assert others_kept(before, after, SCENE.to_dict(), to_sketch, unread=hidden) == 1
    assert attribute_changed(after, SCENE.to_dict(), to_sketch, unread=hidden) == 1
    lost = reading(SCENE.with_attribute("style", "sketch"), shape="unread")
    assert others_kept(before, lost, SCENE.to_dict(), to_sketch, unread=hidden) == 0


def test_a_hidden_attribute_has_no_value_but_a_reason() -> None:
    sketch, foggy = SCENE.with_attribute("style", "sketch"), SCENE.with_attribute("weather", "fog")
    edit = {"attribute": "pattern", "value": "dotted", "index": 0}
    for scene, words in ((sketch, "27% of faultless pictures (sketch)"), (foggy, "21% .* (fog)")):
        value = attribute_changed(
            reading(scene), scene.to_dict(), edit, unread=unread(FAINT, scene.to_dict(), edit)
        )
        assert isinstance(value, Undefined)
        assert math.isnan(value)
        assert re.search(words.replace("(", r"\(").replace(")", r"\)"), value.reason)
    assert attribute_changed(reading(SCENE, pattern="dotted"), SCENE.to_dict(), edit) == 1
    bare = {"objects": SCENE.to_dict()["objects"], "background": SCENE.background}
    assert unread(FAINT, bare, edit) == {}


def test_two_objects_in_a_sketch_are_not_asked() -> None:
    scene = TWO.with_attribute("style", "sketch")
    edit = {"attribute": "colour", "value": "white", "index": 0}
    hidden = unread(FAINT, scene.to_dict(), edit)
    before, empty = reading(scene), dataclasses.replace(reading(scene), pairs=())
    assert math.isnan(attribute_changed(empty, scene.to_dict(), edit, unread=hidden))
    assert others_kept(before, empty, scene.to_dict(), edit) == 0
    assert others_kept(before, empty, scene.to_dict(), edit, unread=hidden) == 1


def test_what_is_misread_in_the_exact_answer_is_not_asked() -> None:
    edit = {"attribute": "colour", "value": "white", "index": 0}
    changed = SCENE.with_attribute("colour", "white")
    before, blind = reading(SCENE), reading(changed, colour="black", pattern="unread")
    value = attribute_changed(reading(changed), SCENE.to_dict(), edit, answer=blind)
    assert isinstance(value, Undefined)
    assert "colour in the exact answer" in value.reason
    assert others_kept(before, reading(changed, pattern="unread"), SCENE.to_dict(), edit, answer=blind) == 1
    assert others_kept(before, reading(changed, shape="unread"), SCENE.to_dict(), edit, answer=blind) == 0


def make_oracle(folder: Path, **settings: object) -> AttributeOracle:
    config = OracleConfig(widths=(4, 6, 8), depth=1, kernel=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        oracle = AttributeOracle(config).eval()
    (folder / CONFIG).write_text(json.dumps({**dataclasses.asdict(config), **settings}))
    save_file(oracle.state_dict(), folder / WEIGHTS)
    return oracle


def test_metric_reads_with_its_oracle(tmp_path: Path) -> None:
    make_oracle(tmp_path)
    metric = WorldAttributes(tmp_path)
    metric.check()
    edit: dict[str, object] = {"attribute": "background", "value": "wood", "index": 0}
    view = view_of(SCENE, edit, edited=render([TWO]).images[0])
    no_scene = dataclasses.replace(view, scene=None)
    large = dataclasses.replace(
        view,
        mask=None,
        answer=None,
        source=view.source.repeat_interleave(2, 1).repeat_interleave(2, 2),
        edited=view.edited.repeat_interleave(2, 1).repeat_interleave(2, 2),
    )
    rows = metric([no_scene, view])
    assert math.isnan(rows[0]["attribute_changed"])
    assert math.isnan(rows[0]["others_kept"])
    assert view.answer is not None
    source, edited = load_oracle(tmp_path).read(torch.stack([view.source, view.edited]))
    (answer,) = load_oracle(tmp_path).read(view.answer[None])
    scene = SCENE.to_dict()
    for name, expected in {
        "attribute_changed": attribute_changed(edited, scene, edit, answer),
        "others_kept": others_kept(source, edited, scene, edit, answer),
    }.items():
        assert rows[1][name] == pytest.approx(expected, nan_ok=True)
    assert metric([large])[0].keys() == rows[1].keys()
    assert metric([]) == []


def test_each_image_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_oracle(tmp_path)
    metric, read = WorldAttributes(tmp_path), []
    known = AttributeOracle.read

    def counted(self: AttributeOracle, images: torch.Tensor) -> list[OracleReading]:
        read.append(len(images))
        return known(self, images)

    edit: dict[str, object] = {"attribute": "background", "value": "wood", "index": 0}
    view = view_of(SCENE, edit, edited=render([TWO]).images[0])
    alone = metric([view])
    monkeypatch.setattr(AttributeOracle, "read", counted)
    other = dataclasses.replace(view, edited=view.edited.flip(-1))
    rows = WorldAttributes(tmp_path)([view, other, dataclasses.replace(view)])
    assert read == [4], "a source, its answer and two edits, which three variants share"
    assert rows[0] == pytest.approx(alone[0], nan_ok=True)
    assert rows[2] == pytest.approx(alone[0], nan_ok=True)
    assert metric([view, other])
    assert read == [4, 1], "what was read before is remembered"


EDITS = {"shape": SHAPES, "colour": COLOURS, "pattern": PATTERNS, "background": BACKGROUNDS, "style": STYLES}


@pytest.fixture(scope="module")
def unreliable(tmp_path_factory: pytest.TempPathFactory) -> WorldAttributes:
    folder = tmp_path_factory.mktemp("oracle")
    make_oracle(folder)
    return WorldAttributes(folder)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), st.sampled_from(list(EDITS)), st.data())
def test_the_exact_answer_is_never_wrong(
    unreliable: WorldAttributes, seed: int, name: str, data: st.DataObject
) -> None:
    edit: dict[str, object] = {
        "attribute": name,
        "value": data.draw(st.sampled_from(EDITS[name])),
        "index": 0,
    }
    view = view_of(sample_scene(seed, two_objects=0.5), edit)
    assert view.answer is not None
    perfect = dataclasses.replace(view, edited=view.answer)
    asked, unasked = unreliable([perfect, dataclasses.replace(perfect, answer=None)])
    assert asked["attribute_changed"] == 1 or math.isnan(asked["attribute_changed"])
    assert asked["others_kept"] == 1
    assert unasked["attribute_changed"] in (0, 1) or math.isnan(asked["attribute_changed"])


def test_the_readers_own_errors_stand_in_its_columns(tmp_path: Path) -> None:
    unknown, known = tmp_path / "unknown", tmp_path / "known"
    for folder, settings_ in ((unknown, {}), (known, {"errors": FAINT})):
        folder.mkdir()
        make_oracle(folder, **settings_)
    for folder, errors in ((unknown, {}), (known, FAINT), (tmp_path, {})):
        columns = WorldAttributes(folder).columns
        assert [column.name for column in columns] == ["attribute_changed", "others_kept"]
        assert all(column.reader_errors == errors for column in columns)
        assert len({column.note for column in columns}) == 1
        assert len(set(columns)) == 2, "columns can be members of sets"
    note = WorldAttributes(known).columns[0].note
    assert "pattern 2.0%, pairs 6.0%" in note
    assert "not asked: pattern (sketch, 27%), pairs (sketch, 30%), pattern (fog, 21%)" in note
    assert WorldAttributes(unknown).columns[0].note == ""
    load_oracle(known)


def test_a_pair_reader_is_asked_at_several_places() -> None:
    oracle = AttributeOracle(OracleConfig(widths=(4, 6, 8), depth=1, kernel=3, own_pairs=True)).eval()
    assert oracle.pair_reader is not None
    wide = render([TWO]).images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    inner = wide[..., 2:-2, 2:-2]
    with torch.no_grad():
        places = [(2, 2), (0, 0), (0, 4), (4, 0), (4, 4)]
        signed = torch.nn.functional.pad(inner * 2 - 1, (2, 2, 2, 2), mode="reflect")
        views = [signed[..., y : y + 124, x : x + 124] for y, x in places]
        expected = sum(oracle.pair_reader(view) for view in views) / 5
        torch.testing.assert_close(oracle(inner)["pairs"], expected)
        flat = torch.full((1, 3, 64, 64), 0.3)
        torch.testing.assert_close(oracle(flat)["pairs"], oracle.pair_reader(flat * 2 - 1))


def test_absent_oracle(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match="world weights 'oracle_b'"):
        WorldAttributes(tmp_path).check()
