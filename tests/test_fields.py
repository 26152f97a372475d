"""What arguments may be, in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p_bench.errors import ConfigError
from p2p_bench.fields import (
    Above,
    AtLeast,
    Between,
    Factors,
    Halving,
    NotEmpty,
    Odd,
    OneOf,
    Words,
    check_fields,
    fault_of,
)

NAN, INF = float("nan"), float("inf")
SHARE = Between(0, 1, "a share", open_low=True)
PRESET, LETTERS = OneOf(("correct", "paper")), OneOf(("a", "c", "d"))
FAULTS: list[tuple[Any, Any, str]] = [
    (0, Annotated[int, AtLeast(1)], "at least 1, got 0"),
    (0, Annotated[int | None, AtLeast(1)], "at least 1, or null, got 0"),
    (0, Annotated[int, AtLeast(1)] | None, "at least 1, or null, got 0"),
    ("many", Annotated[int | None, AtLeast(1)], "an integer or null, got 'many'"),
    (True, Annotated[int, AtLeast(0)], "an integer, got True"),
    (-1, Annotated[float, AtLeast(0)], "a finite number of at least 0, got -1"),
    (INF, Annotated[float, AtLeast(0)], "a finite number of at least 0, got inf"),
    (NAN, Annotated[float, AtLeast(0)], "a finite number of at least 0, got nan"),
    (0.0, Annotated[float, Above(0)], "a finite number above 0, got 0.0"),
    (INF, Annotated[float, Above(0)], "a finite number above 0, got inf"),
    (2, Annotated[float, Between(0, 1)], "a finite number in [0, 1], got 2"),
    (NAN, Annotated[float, Between(0, 1)], "a finite number in [0, 1], got nan"),
    (1.0, Annotated[float, Between(0, 1, open_high=True)], "a finite number in [0, 1), got 1.0"),
    (7, Annotated[int, Between(0, 6)], "an integer in [0, 6], got 7"),
    (0.0, Annotated[float | int, SHARE], "a share in (0, 1], got 0.0"),
    (2, Annotated[int, Odd(1)], "an odd number of at least 1, got 2"),
    (-1, Annotated[int, Odd(1)], "an odd number of at least 1, got -1"),
    (0.3, Annotated[float, Halving(10)], "1, 0.5, 0.25, ..., got 0.3"),
    (0.25, Annotated[float, Halving(2)], "1, 0.5, 0.25, ..., got 0.25"),
    ([], Annotated[Sequence[str], NotEmpty("a word")], "a word, got none"),
    (" ", Annotated[str, Words("words")], "words, got ' '"),
    (["a", ""], Annotated[Sequence[str], Words("words")], "words, got ['a', '']"),
    ({"a": ""}, Annotated[Mapping[str, str], Words("words")], "words, got {'a': ''}"),
    ([], Annotated[Sequence[str], Words("words", needed=True)], "words, got none"),
    ({"a": NAN}, Annotated[Mapping[str, float], Factors()], "a finite number for 'a', got nan"),
    ({"a": "b"}, Annotated[Mapping[str, float], Factors()], "a finite number for 'a', got 'b'"),
    ("papr", Annotated[str, PRESET], "'correct' or 'paper', got 'papr'. Did you mean 'paper'?"),
    (["b"], Annotated[Sequence[str], LETTERS], "a list of at least one of 'a', 'c', 'd', got ['b']."),
    ("wrd", Literal["word", "mask"], "one of 'word', 'mask', got 'wrd'. Did you mean 'word'?"),
]  # fmt: skip
KEPT: list[tuple[Any, Any]] = [
    (None, Annotated[int | None, AtLeast(1)]),
    (None, Annotated[int, AtLeast(1)] | None),
    (1, Annotated[int, AtLeast(1)]),
    (10**400, Annotated[int, AtLeast(1)]),
    (1, Annotated[float, Between(0, 1)]),
    (1, Annotated[float | int, SHARE]),
    (3, Annotated[int, Odd(1)]),
    (0.5, Annotated[float, Halving(2)]),
    ([], Annotated[Sequence[str], Words("words")]),
    ({}, Annotated[Mapping[str, float], Factors()]),
    (["a"], Annotated[str | Sequence[str], OneOf(("a", "b"))]),
    ("b", Annotated[str | Sequence[str], OneOf(("a", "b"))]),
    ({"_target_": "x"}, Annotated[int, AtLeast(1)]),
]


@pytest.mark.parametrize(("value", "hint", "said"), FAULTS)
def test_faults_in_words(value: Any, hint: Any, said: str) -> None:
    assert str(fault_of("x", value, hint)) == f"x: expected {said}"


@pytest.mark.parametrize(("value", "hint"), KEPT)
def test_what_may_stand(value: Any, hint: Any) -> None:
    assert fault_of("x", value, hint) is None


@given(st.floats(), st.floats(allow_nan=False, allow_infinity=False))
def test_ranges_hold_finite_numbers_alone(value: float, low: float) -> None:
    finite = -INF < value < INF
    assert (fault_of("x", value, Annotated[float, AtLeast(low)]) is None) == (finite and value >= low)
    assert (fault_of("x", value, Annotated[float, Above(low)]) is None) == (finite and value > low)
    within = Annotated[float, Between(low, low + 1, open_low=True)]
    assert (fault_of("x", value, within) is None) == (low < value <= low + 1)


def test_long_values_are_cut() -> None:
    assert len(str(fault_of("x", "y" * 10_000, int))) < 300


def test_a_value_of_another_kind_is_named() -> None:
    assert "got object" in str(fault_of("x", object(), int))


@dataclass(frozen=True)
class Part:
    """A component."""

    count: Annotated[int, AtLeast(1)] = 1
    share: "Annotated[float, SHARE]" = 0.5

    def __post_init__(self) -> None:
        check_fields(self, "part.")


@pytest.mark.parametrize(
    ("values", "said"), [({"count": 0}, r"part\.count: expected"), ({"share": 0.0}, r"part\.share: expected")]
)
def test_fields_are_checked_when_an_object_is_made(values: dict[str, Any], said: str) -> None:
    assert Part().count == 1
    with pytest.raises(ConfigError, match=said):
        Part(**values)


@dataclass(frozen=True)
class Numbers:
    share: Annotated[float, SHARE] = 0.5
    count: Annotated[int, AtLeast(1)] = 1
    weights: Annotated[Mapping[str, float], Factors()] | None = None

    def __post_init__(self) -> None:
        check_fields(self, "")


def test_numbers_of_numpy_are_those_of_python() -> None:
    # torch takes no numpy.float32 as an entry: weighting a word by one ended in its traceback
    made = Numbers(np.float64(0.25), np.int64(3), {"a": np.float32(2)})  # type: ignore[arg-type]  # NumPy's
    assert repr(made) == "Numbers(share=0.25, count=3, weights={'a': 2.0})"
    assert made == Numbers(0.25, 3, {"a": 2.0})
