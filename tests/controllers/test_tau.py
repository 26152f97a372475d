import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p_bench.controllers.tau import cross_steps, parse_tau, self_steps
from p2p_bench.errors import ConfigError

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


@given(fractions, fractions, st.integers(1, 100))
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


@pytest.mark.parametrize(
    ("value", "message"),
    [
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
    ],
)
def test_what_is_no_tau_is_refused(value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_tau(value, "cross")  # type: ignore[arg-type]  # the fault under test
