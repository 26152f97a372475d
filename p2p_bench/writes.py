"""How often tensors were written to: what is handed to anybody's code is to come back as it was."""

from collections.abc import Iterable

from torch import Tensor


def writes(tensors: Iterable[Tensor]) -> list[int]:
    """A count for each tensor; 0 where torch does not count."""
    return [0 if tensor.is_inference() else tensor._version for tensor in tensors]
