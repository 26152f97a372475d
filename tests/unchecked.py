"""Values that the types of a test session forbid, as a user makes them, whose types nobody checks."""

import copy
from typing import Any, TypeVar

_T = TypeVar("_T")


def unchecked(made: _T, **values: Any) -> _T:
    """A copy of a frozen dataclass with other values, whatever they are.

    Args:
        made: A proper instance.
        values: By name of the field.
    """
    odd = copy.copy(made)
    for name, value in values.items():
        object.__setattr__(odd, name, value)
    return odd
