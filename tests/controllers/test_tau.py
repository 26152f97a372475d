import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p_bench.attention.sites import Site
from p2p_bench.controllers import LocalBlend, MasaCtrl, Refine
from p2p_bench.controllers.tau import (
    PerWord,
    Ramp,
    cross_gate,
    cross_steps,
    parse_interval,
    parse_tau,
    self_steps,
)
from p2p_bench.errors import ConfigError, PromptError
from p2p_bench.prompts.words import tokenize
from p2p_bench.tau import part_of, tau_text
from tests.attention.rig import WIDTH, context, tokenizer
from tests.oracle import released_gate

fractions = st.floats(0, 1)


def test_published_schedules() -> None:
    assert cross_steps(0.4, 50) == (0, 20)
    assert self_steps(0.6, 50) == (0, 30)
    assert cross_steps(0.8, 50) == (0, 40)
    assert cross_steps(1.0, 50) == (0, 50)
    assert cross_steps((0.2, 0.8), 50) == (10, 40)
    assert self_steps((0.5, 1.0), 50) == (25, 50)
    # steps + 1 entries: one step more than a share of the steps would give
    assert (cross_steps(0.5, 9), self_steps(0.5, 9)) == ((0, 5), (0, 4))


def test_schedules_are_cut_as_in_the_released_code_and_other_shares_lose_no_step() -> None:
    assert self_steps(0.58, 50) == (0, int(0.58 * 50)) == (0, 28)
    assert cross_steps(1 - 0.9, 9) == (0, 0)
    assert part_of(0.58, 50) == 29
    assert part_of(float(torch.tensor(0.7)), 10) == 7, "a share in float32"
    for steps in (1, 50, 1000):
        assert (part_of(1e-6, steps), part_of(1.0, steps)) == (0, steps)
    pair = context("a red circle", "a blue circle")
    assert LocalBlend(Refine(), "circle", start=0.29).bind(pair).blend.start == int(0.29 * pair.steps)
    assert MasaCtrl(1 - 0.9).bind(pair).site_edit(1, Site("x", "self", 0, "up", 1, 1, 15, 16)) is not None


@given(fractions, fractions, st.integers(1, 100))
@settings(deadline=None)
def test_schedules_lie_within_the_steps_and_grow_with_tau(a: float, b: float, steps: int) -> None:
    low, high = sorted((a, b))
    for schedule in (cross_steps, self_steps):
        start, end = schedule((low, high), steps)
        assert 0 <= start <= end <= steps
        assert schedule(low, steps)[1] <= schedule(high, steps)[1]
        assert schedule(high, steps) == schedule((0.0, high), steps)
        assert schedule(0.0, steps) == (0, 0)
        assert schedule(1.0, steps) == (0, steps)


def test_parsing() -> None:
    assert parse_tau(1) == 1.0
    assert parse_tau([0, 0.5]) == (0.0, 0.5)
    assert parse_tau((0.25, 0.5)) == (0.25, 0.5)
    ramp = Ramp(end=0.8, ramp=0.3, shape="cosine")
    assert parse_tau({"end": 0.8, "ramp": 0.3, "shape": "cosine"}) == ramp
    assert parse_tau(ramp) is ramp
    words = parse_tau(
        {"default_": 0.8, "circle": [0, 0.3], "red": {"end": 0.8, "ramp": 0.3, "shape": "cosine"}}
    )
    assert words == PerWord((("circle", (0.0, 0.3)), ("red", ramp)), 0.8)
    assert parse_tau(words) is words
    assert parse_tau({"circle": 0.3}) == PerWord((("circle", 0.3),), (0.0, 1.0))
    # What has no words of its own is the schedule of all.
    assert parse_tau({"default_": (0.2, 0.8)}) == (0.2, 0.8)
    # A word that is called "ramp", told from a gate by `default_`.
    assert parse_tau({"default_": 1, "ramp": 0.5}) == PerWord((("ramp", 0.5),), 1.0)
    assert parse_tau({"end": 0.5}) == PerWord((("end", 0.5),), (0.0, 1.0))
    assert parse_interval([0, 0.5]) == (0.0, 0.5)


BAD: list[tuple[object, str]] = [
    (1.5, r"cross: expected values in \[0, 1\] \(a share of the steps\), got 1.5"),
    (-0.1, r"\[0, 1\]"),
    (float("nan"), r"\[0, 1\]"),
    ((0.5, 1.2), r"\[0, 1\]"),
    ((0.8, 0.2), "ends before it starts"),
    ((0.1, 0.2, 0.3), "a number or an interval of two numbers"),
    ((), "a number or an interval"),
    ((0.5,), "a number or an interval"),
    ("0.5", "a number or an interval"),
    (True, "a number or an interval"),
    (None, "a number or an interval"),
]


@pytest.mark.parametrize(("value", "message"), BAD)
def test_what_is_no_tau_is_refused(value: object, message: str) -> None:
    for parse in (parse_tau, parse_interval):
        with pytest.raises(ConfigError, match=message):
            parse(value, "cross")
    with pytest.raises(ConfigError, match=f"'circle': .*{message.removeprefix('cross: ')}"):
        parse_tau({"circle": value}, "cross")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "cross: expected words with their schedules, got none"),
        ({"ramp": 0.5, "end": 1.2}, r"ramp end: expected a number in \[0, 1\]"),
        ({"ramp": True}, "ramp ramp: expected a number"),
        ({"ramp": 0.5, "end": 0.4}, "0.5 of the steps do not fit between start 0 and end 0.4"),
        ({"ramp": 0.1, "end": 0.4, "start": 0.5}, "ends at 0.4 before it starts at 0.5"),
        ({"ramp": 0.1, "shape": "round"}, "ramp shape: expected 'linear' or 'cosine', got 'round'"),
        ({"circle": {"end": 0.5}}, "cross 'circle': expected a number, an interval or a ramp"),
        ({"circle": {"square": 0.5}}, "cross 'circle': expected a number, an interval or a ramp"),
    ],
)
def test_bad_schedules_by_word_and_bad_gates_are_refused(value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_tau(value, "cross")


def test_self_attention_takes_numbers_and_intervals_alone() -> None:
    for value in ({"circle": 0.5}, Ramp(), {"end": 0.5, "ramp": 0.1}):
        with pytest.raises(ConfigError, match="self_attn: expected a number or an interval of two numbers"):
            parse_interval(value, "self_attn")


def gate(tau: object, target: str = "a red circle on grass", steps: int = 10) -> torch.Tensor:
    return cross_gate(tau, tokenize(target, tokenizer()), steps)  # type: ignore[arg-type]  # any of them


def test_a_smooth_gate_step_by_step() -> None:
    # 11 entries: full before int(0.5 * 11) = 5, off from int(0.8 * 11) = 8; thirds of the way between.
    linear = gate({"end": 0.8, "ramp": 0.3})[:, 0]
    assert linear.tolist() == pytest.approx([1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0, 0])
    cosine = gate({"end": 0.8, "ramp": 0.3, "shape": "cosine"})[:, 0]
    assert cosine.tolist() == pytest.approx([1, 1, 1, 1, 1, 0.8535534, 0.5, 0.1464466, 0, 0])
    late = gate({"start": 0.2, "end": 0.8, "ramp": 0.3})[:, 0]
    assert late.tolist() == pytest.approx([0, 0, 1, 1, 1, 0.75, 0.5, 0.25, 0, 0])
    # 0.3 - 0.1 is a little less than 0.2, which must not move the ramp: int(0.2 * 10) = 2.
    assert gate({"end": 0.3, "ramp": 0.1}, steps=9)[:, 0].tolist() == pytest.approx([1, 1, 0.5] + [0] * 6)


@given(fractions, fractions, fractions, st.integers(1, 60), st.sampled_from(["linear", "cosine"]))
@settings(deadline=None)
def test_smooth_gates_only_go_down_and_end_where_the_hard_one_does(
    a: float, b: float, share: float, steps: int, shape: str
) -> None:
    start, end = sorted((a, b))
    soft = gate({"start": start, "end": end, "ramp": share * (end - start), "shape": shape}, steps=steps)
    hard = gate((start, end), steps=steps)
    assert torch.equal(soft > 0, hard > 0)
    assert ((soft >= 0) & (soft <= 1)).all()
    on = soft[:, 0][hard[:, 0] > 0]
    assert (on.diff() <= 0).all()
    assert torch.equal(gate({"start": start, "end": end, "ramp": 0.0, "shape": shape}, steps=steps), hard)


def test_words_have_schedules_of_their_own() -> None:
    target = "a striped circle, on grass"
    alpha = gate({"default_": 0.4, "striped circle": (0.3, 1.0), "grass": {"end": 1.0, "ramp": 1.0}}, target)
    # begin 0, a 1, striped 2 3 4, circle 5, comma 6, on 7, grass 8
    for column in (0, 1, 6, 7, *range(9, 24)):
        assert alpha[:, column].tolist() == [1] * 4 + [0] * 6
    for column in (2, 3, 4, 5):
        assert alpha[:, column].tolist() == [0] * 3 + [1] * 7
    assert alpha[:, 8].tolist() == pytest.approx([1 - (step + 1) / 11 for step in range(10)])


@given(
    st.one_of(fractions, st.tuples(fractions, fractions).map(lambda p: tuple(sorted(p)))), st.integers(1, 60)
)
@settings(deadline=None)
def test_hard_gates_are_those_of_the_released_code(tau: object, steps: int) -> None:
    target = "a red circle on grass"
    for schedule in (tau, {"default_": tau, "red": 0.3}, {"grass": tau, "on": (0.2, 0.6)}):
        expected = released_gate(schedule, target, tokenizer(), WIDTH, steps)  # type: ignore[arg-type]  # any
        assert torch.equal(gate(schedule, target, steps), expected)


def test_a_word_that_the_target_lacks_is_refused() -> None:
    with pytest.raises(
        PromptError, match=r"'circel' is not in the prompt 'a red .*'. Did you mean 'circle'\?"
    ):
        gate({"circel": 0.5})


def test_schedules_as_text() -> None:
    ramp = {"end": 0.8, "ramp": 0.3, "shape": "cosine"}
    assert tau_text(None) == ""
    assert tau_text(0.8) == "0.8"
    assert tau_text([0.2, 0.8]) == "0.2-0.8"
    assert tau_text(ramp) == "0-0.8 cosine 0.3"
    assert tau_text({"default_": 0.8, "circle": ramp}) == "0.8, circle 0-0.8 cosine 0.3"
    assert tau_text({"circle": 0.3}) == "0-1, circle 0.3"
