from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from p2p_bench.attention.columns import Identity, Zero, as_matrix, diagonal
from p2p_bench.attention.sites import Site
from p2p_bench.attention.terms import NO_EDIT, mutual_attention, p2p_terms, self_injection
from p2p_bench.controllers import (
    ByEdit,
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
    notebook,
    paper,
    pie,
)
from p2p_bench.controllers.base import BoundController
from p2p_bench.controllers.bound import BoundP2P
from p2p_bench.controllers.reweight import word_factors
from p2p_bench.controllers.self_edit import NO_SELF_EDIT
from p2p_bench.errors import ConfigError, PromptError
from tests.attention.rig import WIDTH, context, tokenizer
from tests.oracle import Refinement, Scaling, refinement_mapper

SOURCE, SWAPPED, ADDED = "a red circle on grass", "a blue circle on grass", "a red circle on grass in fog"
CROSS = Site("cross", "cross", 0, "down", 2, 8)
SELF = [Site(f"self{level}", "self", level, "down", 2, 8) for level in range(3)]


def maps() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(2, 5, WIDTH, generator=generator, dtype=torch.float64) for _ in range(2))


def edited(controller: BoundP2P, step: int) -> Tensor:
    """The target's maps after the edit of a step."""
    (A_s, A_t), edit = maps(), controller.cross[step]
    return A_s @ as_matrix(edit.L, WIDTH) + A_t @ as_matrix(edit.R, WIDTH)


def test_no_control_edits_nothing() -> None:
    bound = NoControl().bind(context(SOURCE, ADDED))
    for step in range(10):
        assert all(bound.site_edit(step, site) is None for site in (CROSS, *SELF))


def test_each_tau_bounds_its_edit() -> None:
    bound = Replace((0.2, 0.5), (0.1, 0.3)).bind(context(SOURCE, SWAPPED))
    assert [step for step in range(10) if bound.site_edit(step, CROSS)] == [2, 3, 4]
    assert [step for step in range(10) if bound.site_edit(step, SELF[1])] == [1, 2]


def test_self_attention_is_injected_up_to_the_size_limit() -> None:
    bound = Replace(0.0, 1.0).bind(context(SOURCE, SWAPPED))
    assert [bound.site_edit(0, site) for site in SELF] == [None, self_injection(), self_injection()]
    assert bound.site_edit(0, CROSS) is None


def test_identical_prompts_take_the_sources_maps() -> None:
    for controller in (Replace(1.0), Refine(1.0)):
        bound = controller.bind(context(SOURCE, SOURCE))
        assert bound.cross[9] == (Identity(), Zero())
        assert bound.site_edit(9, CROSS) == self_injection()


def test_refinement_needs_no_source_columns_for_new_words() -> None:
    bound = Refine().bind(context(SOURCE, ADDED))
    L, R = (as_matrix(part, WIDTH) for part in bound.cross[0])
    new = [6, 7]  # in fog
    assert torch.equal(R.diagonal().nonzero().flatten(), torch.tensor(new))
    assert not L[:, new].any()
    assert len(bound.site_edit(0, CROSS) or ()) == 2


def test_reweighting_around_an_edit_lets_each_keep_its_tau() -> None:
    # Of 10 steps: refinement at 0..3, re-weighting at 2..7.
    bound = Reweight({"fog": 3.0}, (0.2, 0.75), inner=Refine(0.4, 0.0)).bind(context(SOURCE, ADDED))
    (A_s, A_t) = maps()
    ids = [tokenizer()(text).input_ids for text in (SOURCE, ADDED)]
    refinement = Refinement(*refinement_mapper(*ids, WIDTH))
    equalizer = torch.ones(WIDTH, dtype=torch.float64)
    equalizer[7] = 3.0
    expected = {
        1: refinement(A_s, A_t),
        3: Scaling(equalizer, refinement)(A_s, A_t),
        5: A_t * equalizer,
        8: A_t,
    }
    for step, result in expected.items():
        torch.testing.assert_close(edited(bound, step), result, rtol=0, atol=1e-12)


def test_reweighting_adds_its_self_injection_to_the_inner_ones() -> None:
    bound = Reweight({"fog": 3.0}, self_attn=(0.5, 0.7), inner=Refine(0.4, 0.2)).bind(context(SOURCE, ADDED))
    assert [step for step in range(10) if bound.self_edits[step] != NO_SELF_EDIT] == [0, 1, 5, 6]


def test_a_weight_of_one_changes_nothing() -> None:
    inner = Refine(0.4, 0.2)
    pair = context(SOURCE, ADDED)
    assert Reweight({"fog": 1.0}, inner=inner).bind(pair).cross == inner.bind(pair).cross


def test_weights_reach_all_columns_of_a_word() -> None:
    prompt = "a striped circle on grass"
    bound = Reweight({"striped circle": -2.0, "grass": 0.5}).bind(context(prompt, prompt))
    factors = as_matrix(bound.cross[0].L, WIDTH).diagonal()
    assert factors[:9].tolist() == [1, 1, -2, -2, -2, -2, 1, 0.5, 1]
    assert (factors[9:] == 1).all()


def test_a_missing_weighted_word_is_refused() -> None:
    with pytest.raises(PromptError, match=r"'frog' is not in the prompt 'a red .*'. Did you mean 'fog'\?"):
        Reweight({"frog": 2.0}).bind(context(SOURCE, ADDED))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "at least one word"),
        ({"fog": float("nan")}, "finite number for 'fog', got nan"),
        ({"fog": True}, "finite number"),
    ],
)
def test_bad_weights_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Reweight(weights)


def test_an_inner_controller_must_edit_columns() -> None:
    class Other(Controller):
        def bind(self, context: EditContext) -> BoundController:
            return Bound()

    class Bound(BoundController):
        def site_edit(self, step: int, site: Site) -> None:
            return None

        def signature(self, step: int) -> str:
            return ""

    with pytest.raises(ConfigError, match="expected an edit of columns"):
        Reweight({"fog": 2.0}, inner=Other()).bind(context(SOURCE, ADDED))


def test_by_edit_follows_word_counts_and_weights() -> None:
    by_edit = ByEdit(0.4, 0.2)
    swap, added = context(SOURCE, SWAPPED), context(SOURCE, ADDED)
    assert by_edit.bind(swap) == Replace(0.4, 0.2).bind(swap)
    assert by_edit.bind(added) == Refine(0.4, 0.2).bind(added)
    weighted = by_edit.for_pair({"fog": 2.0})
    assert weighted.bind(added) == Reweight({"fog": 2.0}, 0.4, inner=Refine(0.4, 0.2)).bind(added)
    assert by_edit.for_pair({}) is by_edit
    swap_words = Replace()
    assert swap_words.for_pair({"fog": 2.0}) is swap_words


def test_paper_preset_has_the_released_slip() -> None:
    pair = context("a circle on grass", "a striped on grass")
    correct, released = (Replace(preset=preset).bind(pair).cross[0].L for preset in ("correct", "paper"))
    assert correct != released
    assert as_matrix(released, WIDTH)[5, 5] == 1
    assert as_matrix(correct, WIDTH)[3, 5] == 1
    with pytest.raises(ConfigError, match="expected 'correct' or 'paper', got 'papers'"):
        Replace(preset="papers")  # type: ignore[arg-type]  # the fault under test


@pytest.mark.parametrize(
    "make",
    [
        *(Replace, Refine, ByEdit, paper, notebook, pie),
        lambda **taus: Reweight({"fog": 2.0}, **taus),
        lambda **taus: InjectWords("fog", **taus),
    ],
)
@pytest.mark.parametrize("name", ["cross", "self_attn"])
def test_taus_are_checked(make: type[Controller], name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}: expected values in \[0, 1\]"):
        make(**{name: 1.2})


def test_signatures_tell_steps_apart_and_controllers_together() -> None:
    pair = context(SOURCE, SWAPPED)
    short, long = Replace(0.4, 0.2).bind(pair), Replace(0.8, 0.2).bind(pair)
    assert short.signature(0) == long.signature(0)
    assert hash(short.signature(0)) == hash(long.signature(0))
    assert short.signature(5) != long.signature(5)
    assert short.signature(0) != short.signature(2)
    assert short.signature(9) == NoControl().bind(pair).signature(0)
    assert short.cross[9] == NO_EDIT


def test_controllers_are_values() -> None:
    assert Reweight({"fog": 2.0}) == Reweight({"fog": 2.0})
    assert hash(Reweight({"fog": 2.0})) == hash(Reweight({"fog": 2.0}))
    assert Replace(0.4) != Replace(0.5)
    pair = context(SOURCE, SWAPPED)
    assert hash(Replace().bind(pair)) == hash(Replace().bind(pair))
    assert p2p_terms(*Replace().bind(pair).cross[0]) == Replace().bind(pair).site_edit(0, CROSS)


NEW: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: Replace(words={"": "a"}),
        "replace words: expected words in both prompts, or null, got",
    ),
    (lambda: Replace(preset="paper", align=True), "released code swaps words by position only"),
    (lambda: Replace(preset="paper", words={"a": "b"}), "released code swaps words by position only"),
    (lambda: Refine(preset="papr"), "refine preset: expected 'correct' or 'paper', got 'papr'. Did you mean"),
    (lambda: InjectWords([]), "inject_words words: expected words such as"),
    (lambda: InjectWords({"cat": " "}), "inject_words words: expected words such as"),
    (lambda: SelfAttention(1.2), r"self_attention self_attn: expected values in \[0, 1\]"),
    (
        lambda: SelfAttention(0.4, 0.0),
        r"self_attention fraction: expected a part of the side in \(0, 1\], or null, got 0",
    ),
    (lambda: MasaCtrl(start_step=-1), "masactrl start_step: expected a share of the steps such as 0.08"),
    (lambda: MasaCtrl(start_step=1.5), "masactrl start_step"),
    (lambda: MasaCtrl(start_step=True), "masactrl start_step"),
    (lambda: MasaCtrl(layers=1.0), r"masactrl layers: expected shares in \[0, 1\], the first below the last"),
    (
        lambda: MasaCtrl(layers=[5, 3]),
        "masactrl layers: expected indices from 0 on, the first below the last",
    ),
    (lambda: MasaCtrl(layers=[0.5, 2]), r"masactrl layers: expected shares in \[0, 1\]"),
    (lambda: MasaCtrl(layers=[1, 2, 3]), "masactrl layers: expected the first layer, or the first and"),
    (lambda: Compose([]), "compose controllers: expected at least one controller, got none"),
]


@pytest.mark.parametrize(("make", "message"), NEW)
def test_bad_settings_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_only_controllers_are_composed() -> None:
    wrong = Compose([NoControl()])
    object.__setattr__(wrong, "controllers", (3,))  # the constructor's type check is for tests alone
    with pytest.raises(ConfigError, match="compose controllers: expected a controller, got 3"):
        wrong.__post_init__()
    around = Reweight({"fog": 2.0})
    object.__setattr__(around, "inner", "refine")
    with pytest.raises(ConfigError, match="reweight inner: expected a controller, got 'refine'"):
        around.__post_init__()


def test_masactrl_by_index_and_by_share() -> None:
    sites = [Site(f"self{layer}", "self", 1, "up", 2, 8, layer, 16) for layer in range(16)]
    pair = replace(context(SOURCE, SWAPPED), steps=50)
    for controller in (MasaCtrl(), MasaCtrl(4, 10), MasaCtrl(0.08, [10, 16]), MasaCtrl(4, (0.625, 1))):
        bound = controller.bind(pair)
        assert all(bound.site_edit(step, CROSS) is None for step in range(50))
        assert all(bound.site_edit(3, site) is None for site in sites)
        edited = [site.layer for site in sites if bound.site_edit(4, site) == mutual_attention()]
        assert edited == [10, 11, 12, 13, 14, 15]


def test_compositions_are_applied_in_order() -> None:
    pair = context(SOURCE, ADDED)
    refine, weight = Refine(0.8, 0.0), Reweight({"fog": 3.0}, 0.8, inner=NoControl())
    both = Compose([refine, weight]).bind(pair)
    assert both.cross == Reweight({"fog": 3.0}, 0.8, inner=refine).bind(pair).cross
    # Refinement mixes the weighted own columns in; replacement leaves nothing of them.
    assert Compose([weight, refine]).bind(pair).cross == both.cross
    swapped = context(SOURCE, SWAPPED)
    weight = Reweight({"blue": 3.0}, 0.8, inner=NoControl())
    replaced = Compose([weight, Replace(0.8)]).bind(swapped)
    assert replaced.cross == Replace(0.8).bind(swapped).cross
    assert replaced.lost == (
        "replace takes the source's maps anew, which leaves nothing of none, reweight blue x 3 before it",
    )
    partly = Compose([weight, Replace(0.4)]).bind(swapped)
    assert partly.cross[4:8] == weight.bind(swapped).cross[4:8]
    assert (partly.lost, both.lost) == ((), ())
    assert Compose([Replace(0.8), weight]).bind(swapped).cross != Replace(0.8).bind(swapped).cross


def test_blends_pass_through_compositions() -> None:
    pair = context(SOURCE, SWAPPED)
    blended = LocalBlend(Replace(0.8, 0.4), words="circle")
    for controller in (
        Compose([blended, MasaCtrl()]),
        Compose([NoControl(), Compose([blended])]),
        Reweight({"blue": 2.0}, inner=blended),
    ):
        assert controller.bind(pair).blend == blended.bind(pair).blend
    last = LocalBlend(NoControl(), words="grass")
    assert Compose([blended, last]).bind(pair).blend == last.bind(pair).blend
    assert Compose([Replace(), MasaCtrl()]).bind(pair).blend is None
    assert Compose([blended]).bind(pair) == blended.bind(pair)


def test_pairs_reach_the_controllers_inside() -> None:
    words = (("circle",), ("circle",))
    inside = Compose([ByEdit(), LocalBlend(NoControl())]).for_pair({"fog": 2.0}, words)
    assert inside == Compose([ByEdit(weights={"fog": 2.0}), LocalBlend(NoControl(), *words)])
    around = Reweight({"red": 2.0}, inner=LocalBlend(ByEdit())).for_pair({"fog": 2.0}, words)
    assert around == Reweight({"red": 2.0}, inner=LocalBlend(ByEdit(weights={"fog": 2.0}), *words))
    alone = Reweight({"red": 2.0})
    assert alone.for_pair({"fog": 2.0}) is alone


def test_new_controllers_are_values() -> None:
    for make in (
        lambda: InjectWords({"circle": "square"}),
        lambda: Replace(words={"circle": "square"}),
        lambda: MasaCtrl(layers=[0.5, 0.75]),
        lambda: Compose([Refine(), MasaCtrl()]),
        lambda: Refine({"circle": [0, 0.5]}),
        lambda: pie().for_pair({"circle": 2.0}),
    ):
        assert make() == make()
        assert hash(make()) == hash(make())
    assert InjectWords("circle") != InjectWords("square")


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("a red circle", "a small red circle", True),
        ("a red circle", "a red circle in fog", True),
        ("a striped circle", "a red circle", True),
        ("a red circle", "a blue circle", False),
        ("a red circle on grass", "a hexagon circle", True),
        ("a red circle", "a red circle", False),
    ],
)
def test_reweighting_alone_tells_of_words_with_others_maps(source: str, target: str, said: bool) -> None:
    # "a small red circle" gives "small" the maps of "red" and "red" those of "circle"
    alone = Reweight({"circle": 2.0}).bind(context(source, target))
    assert isinstance(alone, BoundP2P)
    assert ["share words in other columns" in note for note in alone.lost] == [True] * said
    assert all(
        diagonal(word_factors(alone.context.target, {"circle": 2.0})) == edit.L for edit in alone.cross
    )


def test_a_word_takes_the_maps_of_one() -> None:
    # the last one won, as {"red": "blue", "circle": "blue"} is written
    pair = context("a red circle on grass", "a blue circle on grass")
    for words in ({"red": "blue", "circle": "blue"}, {"red circle": "blue circle", "grass": "circle"}):
        with pytest.raises(PromptError, match="takes the maps of two words or phrases of 'a red circle"):
            InjectWords(words).bind(pair)
    twice = InjectWords({"red circle": "blue circle", "circle": "circle"}).bind(pair)
    assert twice.cross == InjectWords({"red circle": "blue circle"}).bind(pair).cross
