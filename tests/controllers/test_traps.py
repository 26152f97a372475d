"""What is not in the paper but in its code, one by one: as released in the presets, correct by default."""

from dataclasses import replace

import pytest
import torch

from p2p_bench.attention.columns import as_matrix
from p2p_bench.attention.sites import Site
from p2p_bench.attention.terms import NO_EDIT
from p2p_bench.controllers import (
    ByEdit,
    Compose,
    EditContext,
    InjectWords,
    LocalBlend,
    Refine,
    Released,
    Replace,
    Reweight,
    notebook,
    paper,
    pie,
)
from p2p_bench.controllers.base import BoundController
from p2p_bench.controllers.bound import BoundP2P
from p2p_bench.controllers.self_edit import NO_SELF_EDIT
from p2p_bench.errors import ConfigError, PromptError
from tests.attention.rig import WIDTH, context

PRESETS = {"paper": paper, "notebook": notebook, "pie": pie}
SOURCE, SWAP = "a red circle on grass", "a blue circle on grass"


def at_50(source: str, target: str, self_fraction: float = 0.125) -> EditContext:
    return replace(context(source, target), steps=50, self_fraction=self_fraction)


def timetable(bound: BoundController) -> BoundP2P:
    assert isinstance(bound, BoundP2P)
    return bound


def steps_of(bound: BoundP2P) -> tuple[list[int], list[int]]:
    """Steps with an edit of cross-attention, and of self-attention."""
    cross = [step for step, edit in enumerate(bound.cross) if edit != NO_EDIT]
    return cross, [step for step, edit in enumerate(bound.self_edits) if edit != NO_SELF_EDIT]


def taken(bound: BoundController, step: int = 0) -> torch.Tensor:
    return as_matrix(timetable(bound).cross[step].L, WIDTH)


def own(bound: BoundController, step: int = 0) -> torch.Tensor:
    return as_matrix(timetable(bound).cross[step].R, WIDTH)


@pytest.mark.parametrize(
    ("name", "cross", "self_attn", "fraction"),
    [("paper", 40, 20, 0.25), ("notebook", 40, 25, 0.5), ("pie", 20, 30, 0.5)],
)
def test_schedules_and_size_limits(name: str, cross: int, self_attn: int, fraction: float) -> None:
    """`int(tau * 51)` cross and `int(tau * 50)` self steps; the preset's limit, whatever the model's."""
    bound = timetable(PRESETS[name]().bind(at_50(SOURCE, SWAP)))
    assert steps_of(bound) == (list(range(cross)), list(range(self_attn)))
    for level in range(5):
        site = Site(f"self{level}", "self", level, "down", 2, 8)
        assert (bound.site_edit(0, site) is not None) == (2.0**-level <= fraction)


def test_a_cross_schedule_has_one_entry_more_than_steps() -> None:
    pair = replace(context(SOURCE, SWAP), steps=9)
    assert [len(steps) for steps in steps_of(Replace(0.5, 0.5).bind(pair))] == [5, 4]


def test_without_default_other_words_are_on_all_the_time() -> None:
    bound = Replace({"circle": 0.4}, 0.0).bind(at_50(SOURCE, SWAP))
    circle = 3
    assert steps_of(bound)[0] == list(range(50))
    assert [step for step in range(50) if own(bound, step)[circle, circle] == 0] == list(range(20))
    assert not any(own(bound, step)[column, column] for step in range(50) for column in (0, 1, 2, 4, 5))


def test_words_of_schedules_are_looked_up_in_the_target() -> None:
    Replace({"blue": 0.4}).bind(context(SOURCE, SWAP))
    with pytest.raises(PromptError, match="'red' is not in the prompt 'a blue circle on grass'"):
        Replace({"red": 0.4}).bind(context(SOURCE, SWAP))


UNEVEN = ("a circle on grass", "a striped on grass")


def test_the_slip_of_uneven_swaps() -> None:
    """After the last swapped word: column j to j as released, the source's next column by default."""
    for controller in (paper(), notebook(), Replace(preset="paper")):
        M = taken(controller.bind(context(*UNEVEN)))
        assert M[5, 5] == 1
        assert not M[3].any()
    for controller in (Replace(), ByEdit(), Replace(align=True), Replace(words={"circle": "striped"})):
        M = taken(controller.bind(context(*UNEVEN)))
        assert M[3, 5] == 1
        assert M[:, 5].sum() == 1


def test_an_uneven_swap_gives_every_column_to_every_other() -> None:
    pair = context("a striped on grass", "a orange on grass")
    for controller in (paper(), Replace(), Replace(align=True), Replace(words={"striped": "orange"})):
        M = taken(controller.bind(pair))
        assert torch.equal(M[2:5, 2:4], torch.full((3, 2), 0.5, dtype=torch.float64))
        assert M[:, 2:4].sum() == 3


def test_an_even_swap_maps_one_to_one() -> None:
    pair = context("a orange on grass", "a hexagon on grass")
    for controller in (paper(), Replace(), Replace(align=True), Replace(words={"orange": "hexagon"})):
        assert torch.equal(taken(controller.bind(pair)), torch.eye(WIDTH, dtype=torch.float64))


def test_replacement_by_position_needs_equal_word_counts() -> None:
    pair = context(SOURCE, "a circle on grass")
    for controller in (Replace(), Replace(preset="paper"), Released(0.8, 0.4, 0.25, 0.0, "replace")):
        with pytest.raises(PromptError, match="replace needs equally many words"):
            controller.bind(pair)
    assert timetable(Replace(align=True).bind(pair)).cross[0] != NO_EDIT
    assert timetable(paper().bind(pair)) == Refine(0.8, 0.4, "paper").bind(replace(pair, self_fraction=0.25))


def test_padding_of_a_shorter_target() -> None:
    """As released it takes maps of the source's words, by default it keeps its own."""
    pair = context(SOURCE, "a circle")
    for controller in (paper(), notebook(), pie(), Refine(preset="paper")):
        assert taken(controller.bind(pair))[5, 5] == 1  # grass -> padding
    for controller in (Refine(), ByEdit()):
        bound = controller.bind(pair)
        assert not taken(bound)[:, 4:7].any()
        assert own(bound).diagonal()[4:7].tolist() == [1, 1, 1]
        assert taken(bound).diagonal()[7:].tolist() == [1] * (WIDTH - 7)


def test_reweighting_scales_own_columns_of_new_tokens_inside_tau_only() -> None:
    pair = context("a circle", "a circle in fog")
    for controller in (
        Reweight({"fog": 3.0, "circle": 2.0}, 0.4, inner=Refine(0.4, 0.0)),
        ByEdit(0.4, 0.0, {"fog": 3.0, "circle": 2.0}),
        paper(0.4, 0.0, weights={"fog": 3.0, "circle": 2.0}),
        pie(0.4, 0.0).for_pair({"fog": 3.0, "circle": 2.0}),
    ):
        bound = controller.bind(pair)
        assert own(bound)[4, 4] == 3
        assert taken(bound)[2, 2] == 2
        assert timetable(bound).cross[4] == NO_EDIT


def test_pie_always_refines_and_doubles_the_targets_blend_word() -> None:
    pair = at_50(SOURCE, SWAP)
    limited = replace(pair, self_fraction=0.5)
    assert pie().bind(pair) == Refine(0.4, 0.6, "paper").bind(limited)
    assert timetable(notebook().bind(pair)).cross == timetable(Replace(0.8, preset="paper").bind(pair)).cross
    blended = pie().for_pair({}, (("red",), ("blue",))).bind(pair)
    inner = Reweight({"blue": 2.0}, 0.4, 0.0, Refine(0.4, 0.6, "paper"))
    assert blended == LocalBlend(inner, words=["red"], target_words=["blue"], start=0.2).bind(limited)
    # Weights of the pair count instead; a pair with neither is left alone.
    own = pie().for_pair({"circle": 3.0}, (("red",), ("blue",))).bind(pair)
    inner = Reweight({"circle": 3.0}, 0.4, 0.0, Refine(0.4, 0.6, "paper"))
    assert own == LocalBlend(inner, words=["red"], target_words=["blue"], start=0.2).bind(limited)
    assert pie().for_pair({}, None).bind(pair) == pie().bind(pair)


@pytest.mark.parametrize(("name", "start"), [("paper", 0), ("notebook", 10), ("pie", 10)])
def test_local_blend_of_the_presets(name: str, start: int) -> None:
    blend = PRESETS[name]().for_pair({}, (("circle",), ("circle",))).bind(at_50(SOURCE, SWAP)).blend
    assert blend is not None
    assert (blend.start, blend.threshold, blend.pool) == (start, 0.3, 3)
    assert (blend.source, blend.target) == ((3,), (3,))
    assert PRESETS[name]().bind(at_50(SOURCE, SWAP)).blend is None


@pytest.mark.parametrize("preset", PRESETS.values())
def test_words_are_found_beside_punctuation_and_missed_with_an_error(preset: type) -> None:
    pair = context("a cat, on grass", "a dog, on grass")
    bound = preset().for_pair({}, (("cat",), ("dog",))).bind(pair)
    assert (bound.blend.source, bound.blend.target) == ((2,), (2,))
    with pytest.raises(PromptError, match="'bear' is not in the prompt 'a cat, on grass'"):
        preset().for_pair({}, (("bear",), ("dog",))).bind(pair)
    with pytest.raises(PromptError, match="'bear' is not in the prompt 'a dog, on grass'"):
        preset().for_pair({"bear": 2.0}).bind(pair)


def test_a_blend_word_that_is_weighted_away_is_refused() -> None:
    pair = context(SOURCE, SWAP)
    for factor in (0.0, -1.0):
        with pytest.raises(PromptError, match="no map to blend by"):
            paper().for_pair({"circle": factor}, (("circle",), ("circle",))).bind(pair)
        with pytest.raises(PromptError, match="no map to blend by"):
            Reweight({"circle": factor}, inner=LocalBlend(Refine(), words=["circle"])).bind(pair)
    paper().for_pair({"blue": 0.0}, (("circle",), ("circle",))).bind(pair)


@pytest.mark.parametrize("factor", [0.0, -1.0])
def test_so_is_a_word_whose_place_is_kept(factor: float) -> None:
    blend = LocalBlend(Refine(), words=["circle"], subtract=["grass"])
    for edit in (
        Compose([blend, Reweight({"grass": factor}, inner=Refine())]),
        Reweight({"grass": factor}, inner=blend),
    ):
        with pytest.raises(PromptError, match=r"'grass' .* no map to blend by, .* at step 0"):
            edit.bind(context(SOURCE, SWAP))


def test_object_preservation_leaves_other_columns_alone() -> None:
    bound = InjectWords("circle").bind(context(SOURCE, "a circle in fog"))
    expected = torch.zeros(WIDTH, WIDTH, dtype=torch.float64)
    expected[3, 2] = 1
    assert torch.equal(taken(bound), expected)
    assert own(bound).diagonal().tolist() == [1, 1, 0] + [1] * (WIDTH - 3)


def test_presets_are_checked() -> None:
    for arguments, message in (
        ((1.2, 0.4, 0.25, 0.0), r"preset cross: expected values in \[0, 1\]"),
        ((0.8, {"a": 1.0}, 0.25, 0.0), "preset self_attn: expected a number or an interval"),
        ((0.8, 0.4, 0.0, 0.0), r"preset self_fraction: expected a part in \(0, 1\]"),
        (
            (0.8, 0.4, 0.25, 0.0, "refin"),
            "preset edit: expected one of .*, got 'refin'. Did you mean 'refine'",
        ),
        ((0.8, 0.4, 0.25, 2.0), r"preset blend_start: expected a share in \[0, 1\]"),
    ):
        with pytest.raises(ConfigError, match=message):
            Released(*arguments)  # type: ignore[arg-type]  # the fault under test
