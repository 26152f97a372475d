"""What a bound controller shows of itself."""

import numpy as np
import pytest

from p2p_bench.controllers import (
    Compose,
    Controller,
    EditContext,
    InjectWords,
    LocalBlend,
    MasaCtrl,
    NoControl,
    Refine,
    Replace,
    Reweight,
    SelfAttention,
    timetable_image,
)
from p2p_bench.controllers.base import BoundController
from p2p_bench.errors import ConfigError
from tests.attention.rig import context

SOURCE, TARGET = "a circle", "a red circle in fog"


def test_printing_shows_alignment_and_steps_as_a_table() -> None:
    controller = Reweight({"fog": 2.0}, 0.4, inner=Refine((0.4, 0.8), 0.2))
    assert str(controller.bind(context(SOURCE, TARGET))).splitlines() == [
        "refine, reweight fog x 2: 'a circle' -> 'a red circle in fog', 10 steps",
        "  target          columns  from       weight  0",
        "  <begin>         0        <begin>    1       ....####..",
        "  a               1        a          1       ....####..",
        "  red             2        -          1       ..........",
        "  circle          3        circle     1       ....####..",
        "  in              4        -          1       ..........",
        "  fog             5        -          1..2    oooo......",
        "  <end>           6        <end>      1       ....####..",
        "  <padding>       7..23    <padding>  1       ....####..",
        "  self-attention                              ##........",
        "  self-attention at steps 0..1: source's maps, up to 0.5 of the latent side",
        "  # source, + both, . own, o own times a factor, blank nothing",
    ]


def test_printing_shows_mixed_and_removed_columns_and_uneven_swaps() -> None:
    swap = Replace(cross={"end": 0.8, "ramp": 0.4}, self_attn=0.0, align=True)
    text = str(swap.bind(context("a circle", "a striped")))
    assert "  striped         2..4     circle     0.333..1  ####++++.." in text.splitlines()
    removed = Compose([InjectWords("a", 0.3), Reweight({"circle": 0.0}, 1.0, inner=NoControl())])
    lines = str(removed.bind(context("a circle", "a circle"))).splitlines()
    assert lines[3:5] == [
        "  a               1        a     1       ###.......",
        "  circle          2        -     0",
    ]


def test_printing_shows_where_self_attention_is_edited() -> None:
    both = Compose([SelfAttention(0.5, fraction=1.0), MasaCtrl(start_step=8, layers=[2, 4])])
    assert str(both.bind(context(SOURCE, TARGET))).splitlines() == [
        "self_attention, masactrl: 'a circle' -> 'a red circle in fog', 10 steps",
        "                        0",
        "  self-attention        #####...##",
        "  self-attention at steps 0..4: source's maps, all sizes",
        "  self-attention at steps 8..9: source's keys and values at layers 2..3, all sizes",
        "  # source, + both, . own, o own times a factor, blank nothing",
    ]
    mixed = Compose([SelfAttention(1.0, fraction=0.25), MasaCtrl(start_step=0, layers=0.5)])
    assert (
        "steps 0..9: source's maps, up to 0.25 of the latent side; "
        "source's keys and values at layers from 0.5 to 1 of all, all sizes"
    ) in str(mixed.bind(context(SOURCE, TARGET)))


def test_no_control_shows_nothing() -> None:
    plain = NoControl().bind(context("a circle", "a star"))
    assert repr(plain) == "<none: 'a circle' -> 'a star', 10 steps>"
    assert "self-attention        .........." in str(plain)
    assert "target" not in str(plain)


def test_more_steps_are_numbered_by_tens() -> None:
    pair = context(SOURCE, TARGET)
    bound = Refine(1.0).bind(EditContext(pair.source, pair.target, 25, 0.5))
    header = str(bound).splitlines()[1]
    assert header.endswith("0         10        20")


def colours(controller: Controller, source: str = SOURCE, target: str = TARGET) -> np.ndarray:
    """Colour of the middle of each cell, (rows, steps, 3)."""
    picture = np.array(timetable_image(controller.bind(context(source, target))))
    rows, left = picture.shape[0] // 16, picture.shape[1] - 100
    return np.stack(
        [[picture[16 * row + 8, left + 10 * step + 4] for step in range(10)] for row in range(rows)]
    )


def test_the_picture_has_a_cell_per_token_and_step() -> None:
    # begin, a, red, circle, in, fog, end, padding, self-attention
    cells = colours(Refine(0.4, 0.2))
    assert cells.shape == (9, 10, 3)
    blue, grey = cells[0, 0], cells[2, 0]
    assert blue[2] > blue[0] + 50
    assert abs(int(grey[2]) - int(grey[0])) < 10
    for row in (0, 1, 3, 6, 7):
        assert (cells[row, :4] == blue).all()
        assert (cells[row, 4:] == grey).all()
    for row in (2, 4, 5):
        assert (cells[row] == grey).all()
    assert (cells[8, :2] == blue).all()
    assert (cells[8, 2:] == grey).all()


def test_the_picture_shows_smooth_gates_and_factors() -> None:
    ramp = colours(Replace(cross={"end": 1.0, "ramp": 1.0}, self_attn=0.0), SOURCE, "a square")
    assert (np.diff(ramp[2, :, 0].astype(int)) > 0).all()
    factors = [colours(Reweight({"fog": c}), TARGET, TARGET)[5, 0].astype(int) for c in (1.0, 3.0, 0.0, -2.0)]
    once, more, nothing, negative = factors
    assert more.sum() < once.sum()
    assert nothing.tolist() == [255, 255, 255]
    assert negative[0] > negative[2] + 50


def test_the_picture_shows_the_edit_under_a_blend() -> None:
    blended = LocalBlend(Refine(0.4), words=["circle"])
    assert (colours(blended) == colours(Refine(0.4))).all()


def test_only_timetables_have_a_picture() -> None:
    class Other(BoundController):
        def site_edit(self, step: int, site: object) -> None:
            return None

        def signature(self, step: int) -> int:
            return 0

    with pytest.raises(ConfigError, match="timetable_image: expected an edit of columns"):
        timetable_image(Other())
