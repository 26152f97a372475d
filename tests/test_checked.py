"""The checks of a test session refuse wrong types and sizes, by whichever way they are made."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from p2p_bench.models.level import Level
from p2p_bench.sampling import initial_noise
from tests.checked import checked, shapeless


def plain(a: int, *rest: str, named: Mapping[str, int] | None = None) -> list[int]:
    return [a] if named is None else ["one"]  # type: ignore[list-item]  # what is to be refused


def shaped(a: Float[Tensor, "n m"], b: Float[Tensor, " m"]) -> Tensor:
    return a @ b


def stretched(
    a: Float[Tensor, " n"], by: int, inner: Callable[[Tensor], object] = len
) -> Float[Tensor, " n"]:
    inner(torch.ones(len(a) + 1))
    return torch.ones(len(a) + by)


def nested(a: int, b: Mapping[str, Float[Tensor, " n"]] | None = None) -> None: ...


def called(a: Callable[[Float[Tensor, " n"]], int]) -> None: ...


def quoted(a: "int") -> None: ...


def generator(a: int) -> Iterator[int]:
    yield a


@dataclass
class Plain:
    a: int


@dataclass
class Shaped:
    a: Float[Tensor, "n n"]


def wrapped(made: Any) -> Any:
    return checked(made, typechecker=beartype)


def test_functions_without_shapes_are_told() -> None:
    told = [shapeless(one) for one in (plain, Plain.__init__, shaped, nested, called, quoted, generator)]
    assert told == [True, True, False, False, False, False, False]


@pytest.mark.parametrize(
    "refused",
    [
        lambda: wrapped(plain)("one"),
        lambda: wrapped(plain)(1, 2),
        lambda: wrapped(plain)(1, named={"a": "b"}),
        lambda: wrapped(plain)(1, named={}),
        lambda: wrapped(shaped)(torch.ones(2, 3), torch.ones(2)),
        lambda: wrapped(shaped)(torch.ones(2, 3), torch.ones(3).int()),
        lambda: wrapped(stretched)(torch.ones(2), 1),
        lambda: wrapped(nested)(1, {"a": torch.ones(2, 2)}),
        lambda: wrapped(quoted)("one"),
        lambda: wrapped(Plain)("one"),
        lambda: wrapped(Shaped)(torch.ones(2, 3)),
    ],
)
def test_what_does_not_fit_is_refused(refused: Callable[[], object]) -> None:
    with pytest.raises(TypeCheckError):
        refused()


def test_what_fits_is_taken() -> None:
    assert wrapped(plain)(1, "a", named=None) == [1]
    assert wrapped(shaped)(torch.ones(2, 3), torch.ones(3)).shape == (2,)
    assert list(wrapped(generator)(3)) == [3]
    assert wrapped(Plain)(1) == Plain(1)


def test_every_call_has_sizes_of_its_own() -> None:
    inner = wrapped(stretched)
    assert wrapped(stretched)(torch.ones(2), 0, lambda a: inner(a, 0)).shape == (2,)
    with pytest.raises(TypeCheckError):
        wrapped(stretched)(torch.ones(2), 0, lambda a: inner(a, 1))
    assert inner(torch.ones(5), 0).shape == (5,)


def test_a_signature_is_asked_of_the_function_itself() -> None:
    assert inspect.signature(wrapped(shaped)) == inspect.signature(shaped)


def test_the_package_is_checked() -> None:
    assert is_dataclass(Level)
    with pytest.raises(TypeCheckError):
        Level("late", 1.0, 0.0)  # type: ignore[arg-type]  # what is to be refused
    with pytest.raises(TypeCheckError):
        initial_noise("seed", (4, 8, 8))  # type: ignore[arg-type]  # likewise
    assert next(iter(inspect.signature(initial_noise).parameters)) == "seed"
