"""Pictures of attention: laid out, labelled, on one scale where they are to be compared."""

import dataclasses
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image

import p2p_bench as p2p
from p2p_bench.bench.attention_pictures import (
    Cell,
    changed_places,
    component_sheet,
    save_gif,
    sheet,
    step_frames,
    step_sheet,
    token_sheet,
)
from tests.models.tiny import tiny_model

SOURCE, SWAPPED, LONGER = "a red circle", "a blue circle", "a mirror circle in fog"


@cache
def result() -> p2p.EditResult:
    record = p2p.Record(apart=("steps",), self_images=(0, 1, 2))
    return p2p.edit(
        tiny_model(), SOURCE, [SWAPPED, LONGER], [p2p.Replace(0.5), p2p.Refine(0.5)], steps=3, record=record
    )


def test_a_sheet_wraps_long_rows_and_labels_them() -> None:
    black, white = torch.zeros(3, 4, 4), torch.ones(3, 4, 4)
    cells = [Cell(f"title {place}", black) for place in range(11)]
    page = sheet([("first", cells), ("second", [Cell("white", white)])], side=20)
    # Three lines, of which two have a heading; nine cells beside one another.
    assert page.shape == (3, 2 * 26 + 3 * (18 + 20 + 8) + 8, 8 + 9 * 28)
    top = 8 + 26 + 18
    assert bool((page[:, top : top + 20, 8:28] == 0).all())
    assert bool((page[:, top + 46 : top + 66, 36:56] == 0).all())
    assert bool((page[:, top + 46 : top + 66, 64:] == 1).all())
    assert page[:, 8:28, :].min() < 0.5  # the heading
    assert page[:, top - 18 : top, :28].min() < 0.8  # a title
    assert page[:, top - 18 : top, 28:36].min() > 0.8  # cut to its cell


def test_every_token_has_a_cell() -> None:
    side = 40
    page = token_sheet(result(), [0, 1, 2], side=side)
    # "mirror" is six tokens of the tiny tokenizer: a, 6 x mirror, circle, in, fog and the picture make 11.
    columns = sum(len(word.columns) for word in result().prompts[2].words)
    assert columns > 8
    lines = 3 + 1
    assert page.shape == (3, 3 * 26 + lines * (18 + side + 8) + 8, 8 + 9 * (side + 8))
    only = token_sheet(result(), [1], side=side)
    assert torch.equal(
        only[:, :, : 8 + 4 * (side + 8)], page[:, 92 : 92 + only.shape[1], : 8 + 4 * (side + 8)]
    )


def test_images_may_have_names() -> None:
    numbered, named = (token_sheet(result(), [1], 40, names) for names in (None, ["edit"]))
    assert numbered.shape == named.shape
    assert not torch.equal(numbered[:, :26], named[:, :26])
    assert torch.equal(numbered[:, 26 + 18 + 8 :], named[:, 26 + 18 + 8 :])


def test_changed_words() -> None:
    assert changed_places(result(), 1) == [(0, "red"), (1, "blue")]
    assert changed_places(result(), 2) == [(0, "red"), (2, "mirror"), (2, "in"), (2, "fog")]
    same = p2p.edit(tiny_model(), SOURCE, SOURCE, p2p.Reweight({"red": 2.0}), steps=1)
    assert changed_places(same, 1) == [(1, "a"), (1, "red"), (1, "circle")]


def test_steps_as_strip_and_as_frames() -> None:
    page = step_sheet(result(), 1)
    assert page.shape == (3, 2 * (26 + 18 + 160 + 8) + 8, 8 + 4 * 168)
    frames = list(step_frames(result(), 1))
    assert len(frames) == 3
    assert all(frame.shape == (3, 26 + 18 + 160 + 8 + 8, 8 + 2 * 168) for frame in frames)
    assert all(not torch.equal(*pair) for pair in pairwise(frame[:, 60:] for frame in frames))
    # The last map of "red" in the strip is that of the last frame, so all have the scale of the word.
    assert torch.equal(page[:, 52:212, 8 + 3 * 168 : 168 + 3 * 168], frames[2][:, 52:212, 8:168])


def test_a_gif_has_a_frame_per_step(tmp_path: Path) -> None:
    save_gif(tmp_path / "new" / "x.gif", step_frames(result(), 2))
    with Image.open(tmp_path / "new" / "x.gif") as file:
        assert file.n_frames == 3  # type: ignore[attr-defined]  # a GIF has it
        assert file.size == (8 + 4 * 168, 26 + 18 + 160 + 8 + 8)
        durations = []
        for frame in range(3):
            file.seek(frame)
            durations.append(file.info["duration"])
    assert durations[0] == durations[1] < durations[2]


def test_components() -> None:
    page = component_sheet(result(), [0, 2], count=4)
    assert page.shape == (3, 2 * (26 + 18 + 160 + 8) + 8, 8 + 6 * 168)
    with pytest.raises(p2p.P2PError, match="no self-attention was recorded"):
        component_sheet(dataclasses.replace(result(), attention=result().attention[:1]), [0])
