"""The two regions that a mask divides an image into, or why there are none."""

from jaxtyping import Bool
from torch import Tensor

from p2p_bench.metrics.base import EditView, Undefined

NO_MASK = "there is no mask"
UNDIVIDED = "the mask is empty or covers the whole image"


def divided(view: EditView) -> dict[str, Bool[Tensor, "h w"]] | Undefined:
    """The pixels inside and outside of a mask, or why there are none."""
    if view.mask is None:
        return Undefined(NO_MASK)
    inside = view.mask >= 0.5
    if bool(inside.all()) or not bool(inside.any()):
        return Undefined(UNDIVIDED)
    return {"inside": inside, "outside": ~inside}
