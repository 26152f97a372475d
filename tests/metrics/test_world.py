"""Exact answers and oracle readings of the embedded world."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from p2p_bench.errors import MissingWeightsError
from p2p_bench.metrics import EditView, WorldAnswer, WorldAttributes
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
from p2p_bench.metrics.world import attribute_changed, others_kept
from p2p_bench.world.scenes import Scene, changed_mask, render, sample_scene

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


def make_oracle(folder: Path) -> AttributeOracle:
    config = OracleConfig(widths=(4, 6, 8), depth=1, kernel=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        oracle = AttributeOracle(config).eval()
    (folder / CONFIG).write_text(json.dumps(dataclasses.asdict(config)))
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
    source, edited = load_oracle(tmp_path).read(torch.stack([view.source, view.edited]))
    assert rows[1]["attribute_changed"] == attribute_changed(edited, SCENE.to_dict(), edit)
    assert rows[1]["others_kept"] == others_kept(source, edited, SCENE.to_dict(), edit)
    assert metric([large])[0].keys() == rows[1].keys()
    assert metric([]) == []


def test_absent_oracle(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match="world weights 'oracle_b'"):
        WorldAttributes(tmp_path).check()
