"""Column maps: how the columns of an attention map are mixed.

A map `A` (pixels x W columns) is edited by multiplying a column map `C` (W x W) from the right, `A C`.
Since `(A C) V = A (C V)`, a column map is applied to the values and `A` is never written out.
Most maps are trivial, so structure is kept: what is zero or the identity costs nothing.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float64
from torch import Tensor


@dataclass(frozen=True)
class Zero:
    """The map that removes every column."""


@dataclass(frozen=True)
class Identity:
    """The map that leaves every column as it is."""


class _Valued:
    """Equality and hashing by value for maps that hold a tensor."""

    values: Tensor

    def __eq__(self, other: object) -> bool:
        return self is other or (type(self) is type(other) and torch.equal(self.values, other.values))

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((type(self).__name__, self.values.numpy().tobytes()))


@dataclass(frozen=True, eq=False)
class Diagonal(_Valued):
    """Column j is multiplied by `values[j]`. Build it with `diagonal`, which finds simpler maps."""

    values: Float64[Tensor, " w"]


@dataclass(frozen=True, eq=False)
class Dense(_Valued):
    """Column i goes into column j with weight `values[i, j]`. Build it with `dense`, as above."""

    values: Float64[Tensor, "w w"]


ColumnMap = Zero | Identity | Diagonal | Dense


def diagonal(values: Float64[Tensor, " w"]) -> ColumnMap:
    """The simplest column map that multiplies column j by `values[j]`."""
    if not values.any():
        return Zero()
    if bool((values == 1).all()):
        return Identity()
    # + 0.0 turns -0.0 into 0.0, so that equal maps have equal bytes.
    return Diagonal(values + 0.0)


def dense(matrix: Float64[Tensor, "w w"]) -> ColumnMap:
    """The simplest column map equal to `matrix`."""
    values = matrix.diagonal()
    if torch.equal(matrix, torch.diag(values)):
        return diagonal(values)
    return Dense(matrix + 0.0)


def matmul(left: ColumnMap, right: ColumnMap) -> ColumnMap:
    """`left @ right`: the columns are mixed by `left` first, then by `right`."""
    match left, right:
        case (Zero(), _) | (_, Zero()):
            return Zero()
        case (Identity(), other) | (other, Identity()):
            return other
        case Diagonal(a), Diagonal(b):
            return diagonal(a * b)
        case Diagonal(a), Dense(b):
            return dense(a[:, None] * b)
        case Dense(a), Diagonal(b):
            return dense(a * b)
        case Dense(a), Dense(b):
            return dense(a @ b)
    raise TypeError(f"expected two column maps, got {left!r} and {right!r}")


def add(left: ColumnMap, right: ColumnMap) -> ColumnMap:
    """`left + right`.

    Raises:
        ValueError: Both are the identity; twice the identity has no width to be written with.
    """
    match left, right:
        case (Zero(), other) | (other, Zero()):
            return other
        case Identity(), Identity():
            raise ValueError("cannot add two identities: their width is unknown; write one as Diagonal(...)")
        case (Diagonal(a), Diagonal(b)):
            return diagonal(a + b)
        case (Identity(), Diagonal(a)) | (Diagonal(a), Identity()):
            return diagonal(1 + a)
        case (Dense(a), other) | (other, Dense(a)):
            return dense(a + as_matrix(other, len(a)))
    raise TypeError(f"expected two column maps, got {left!r} and {right!r}")


def map_fault(columns: object, width: int) -> str:
    """Why something is no column map of a prompt with so many columns, in words; "" if it is one.

    Args:
        columns: What is given for a column map.
        width: Columns W of the prompt.
    """
    if isinstance(columns, Zero | Identity):
        return ""
    if not isinstance(columns, Diagonal | Dense):
        return f"expected a column map, as diagonal(...) and dense(...) make, got a {type(columns).__name__}"
    shape = (width,) if isinstance(columns, Diagonal) else (width, width)
    if tuple(columns.values.shape) != shape:
        return f"expected values of shape {shape}, a column per token, got {tuple(columns.values.shape)}"
    return "" if bool(columns.values.isfinite().all()) else "expected finite values, got NaN or infinity"


def as_matrix(columns: ColumnMap, width: int) -> Float64[Tensor, "w w"]:
    """The column map written out."""
    match columns:
        case Zero():
            return torch.zeros(width, width, dtype=torch.float64)
        case Identity():
            return torch.eye(width, dtype=torch.float64)
        case Diagonal(values):
            return torch.diag(values)
        case Dense(values):
            return values
