"""Signatures are equal exactly where two steps, also of two controllers, do the same at every site."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p_bench.attention.sites import Site, unet_sites
from p2p_bench.controllers import (
    ByEdit,
    Compose,
    Controller,
    InjectWords,
    MasaCtrl,
    NoControl,
    Ramp,
    Refine,
    Replace,
    Reweight,
    SelfAttention,
    paper,
)
from p2p_bench.controllers.bound import BoundP2P
from tests.attention.rig import STEPS, context, tiny_unet
from tests.controllers.test_self_edit import SITES

SOURCE, TARGET = "a red circle on striped grass", "a blue circle on striped sand"

Make = Callable[[], Controller]
"""Tests make the controllers: type checks draw random items, which strategies must not."""

taus = st.sampled_from([
    0.0, 0.4, 0.8, 1.0, (0.2, 0.8), (0.0, 0.8), {"default_": 0.8}, {"default_": 0.8, "circle": 0.4},
    {"circle": 0.4}, {"end": 0.8, "ramp": 0.0}, {"end": 0.8, "ramp": 0.4},
    {"end": 0.8, "ramp": 0.4, "shape": "cosine"},
])  # fmt: skip
self_taus = st.sampled_from([0.0, 0.4, 1.0, (0.2, 0.4)])


def later(kind: Callable[..., Controller], *arguments: Any) -> st.SearchStrategy[Make]:
    """Something that makes a controller."""
    return st.tuples(*arguments).map(lambda values: lambda: kind(*values))


single = st.one_of(
    later(NoControl),
    later(Replace, taus, self_taus),
    later(lambda cross, self_attn: Replace(cross, self_attn, align=True), taus, self_taus),
    later(Refine, taus, self_taus),
    later(ByEdit, taus, self_taus),
    later(paper, taus, self_taus),
    later(InjectWords, st.sampled_from(["circle", ["circle", "on"]]), taus),
    later(Reweight, st.sampled_from([{"circle": 2.0}, {"circle": 1.0}]), taus, self_taus),
    later(lambda cross, inner: Reweight({"sand": 2.0}, cross, inner=Refine(inner, 0.4)), taus, taus),
    later(SelfAttention, self_taus, st.sampled_from([None, 0.5, 1.0, 0.3])),
    later(MasaCtrl, st.sampled_from([0, 0.5, 4]), st.sampled_from([0.625, 0.0, (0.5, 0.75)])),
)
composed = st.lists(single, min_size=1, max_size=3).map(
    lambda parts: lambda: Compose([make() for make in parts])
)
controllers = st.one_of(single, composed)


@cache
def sites() -> tuple[Site, ...]:
    return (
        *unet_sites(tiny_unet()),
        *(s for s in SITES if s.layers == 16 and (s.level == 1 or s.layer > 14)),
    )


def bind(controller: Controller) -> BoundP2P:
    made = controller.bind(context(SOURCE, TARGET))
    assert isinstance(made, BoundP2P)
    return made


@given(controllers, controllers, st.lists(st.integers(0, STEPS - 1), min_size=2, max_size=6))
@settings(deadline=None, max_examples=60)
def test_signatures_are_equal_exactly_where_edits_are(one: Make, other: Make, steps: list[int]) -> None:
    first, second = bind(one()), bind(other())
    for a, b in pairwise(steps):
        for left, right in ((first, second), (first, first)):
            same = all(left.site_edit(a, site) == right.site_edit(b, site) for site in sites())
            assert (left.signature(a) == right.signature(b)) == same
            if same:
                assert hash(left.signature(a)) == hash(right.signature(b))


@pytest.mark.parametrize(
    ("one", "other", "step"),
    [
        (Replace(Ramp(end=0.8, ramp=0.4)), Replace(0.8), 0),
        (Replace(Ramp(end=0.8, ramp=0.4)), NoControl(), 9),
        (Refine(Ramp(end=0.8, ramp=0.0, shape="cosine")), Refine(0.8), 5),
        (Replace(0.8), Replace({"default_": 0.8, "circle": 0.8}), 3),
        (Replace(0.8), Replace({"default_": 0.8, "circle": 0.5}), 0),
        (Replace(1.0, align=True), Replace(1.0), 0),
        (SelfAttention(0.4), SelfAttention(0.4, fraction=0.5), 0),
        (SelfAttention(0.4, fraction=0.5), SelfAttention(0.4, fraction=0.7), 0),
        (Compose([Refine(0.8, 0.4), Replace(0.8, 0.4)]), Replace(0.8, 0.4), 0),
        (Compose([NoControl(), Refine(0.8), NoControl()]), Refine(0.8), 0),
        (Reweight({"circle": 1.0}, inner=Refine(0.8)), Refine(0.8), 0),
        (Compose([SelfAttention(0.4), MasaCtrl(0, 0.0)]), MasaCtrl(0, 0), 0),
    ],
)
def test_what_is_written_differently_but_does_the_same(one: Controller, other: Controller, step: int) -> None:
    assert bind(one).signature(step) == bind(other).signature(step)


def test_inside_a_ramp_every_step_is_different() -> None:
    soft, hard = bind(Replace(Ramp(end=0.8, ramp=0.4), 0.0)), bind(Replace(0.8, 0.0))
    assert len({soft.signature(step) for step in range(STEPS)}) == 1 + 4 + 1
    assert [soft.signature(step) == hard.signature(step) for step in range(STEPS)] == (
        [True] * 4 + [False] * 4 + [True] * 2
    )


@settings(deadline=None, max_examples=60)
@given(single)
def test_signatures_change_only_where_they_say(make: Make) -> None:
    bound = bind(make())
    changed = [step for step in range(1, STEPS) if bound.signature(step) != bound.signature(step - 1)]
    assert set(changed) <= set(bound.changes())
    assert bind(make()).changes() == bound.changes()
