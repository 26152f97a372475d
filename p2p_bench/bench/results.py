"""A look at what an editor, which is anybody's, gives back."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from p2p_bench.editing import EditRequest, EditResult
from p2p_bench.errors import P2PError

_ROUNDING = 1e-3


def checked_results(made: object, requests: Sequence[EditRequest], editor: str) -> list[EditResult]:
    """The results of a batch; an image that cannot be scored has its error.

    Args:
        made: What the editor gave.
        requests: What it was asked for.
        editor: Its name, for messages.

    Raises:
        ValueError: There is not a result per request, in order, with an image and an error or None for the
            source and each target; or a reconstruction is of another size.
    """
    if not isinstance(made, Sequence) or not all(isinstance(result, EditResult) for result in made):
        odd = made
        if isinstance(made, list | tuple):
            odd = next(one for one in made if not isinstance(one, EditResult))
        raise ValueError(f"{editor}.edit gave a {type(odd).__name__}; expected a list of EditResult")
    ids, asked = [result.id for result in made], [request.id for request in requests]
    if ids != asked:
        raise ValueError(
            f"{editor}.edit gave results of {ids} for requests {asked}; expected one each, in order"
        )
    return [_checked(*one, editor) for one in zip(made, requests, strict=True)]


def _checked(result: EditResult, request: EditRequest, editor: str) -> EditResult:
    count = 1 + len(request.targets)
    if (len(result.images), len(result.errors)) != (count, count):
        raise ValueError(
            f"{editor}.edit gave {len(result.images)} images and {len(result.errors)} errors for a source "
            f"and {len(request.targets)} targets; expected {count} each, the source first, an error or None"
        )
    again = [one for one in (*(result.reconstructions or ()), result.vae_reconstruction) if one is not None]
    odd = next((one for one in again if one.shape != result.images.shape[1:]), None)
    if odd is not None:
        raise ValueError(
            f"{editor}.edit gave a reconstruction of the shape {tuple(odd.shape)}; expected that of its "
            f"images, {tuple(result.images.shape[1:])}"
        )
    errors = list(result.errors)
    for place, image in enumerate(result.images):
        absent = place == 0 and not result.has_source
        fault = "" if errors[place] or absent else _fault(image, request.image)
        if fault:
            role = "the source" if place == 0 else f"target {place}"
            errors[place] = P2PError(f"{editor}.edit made an image of {role} with {fault}")
    if errors != list(result.errors):
        result = replace(result, errors=tuple(errors))
    return replace(result, reconstructions=[None] * (count - 1)) if _hands_back(result, request) else result


def _hands_back(result: EditResult, request: EditRequest) -> bool:
    """Whether the source image is the one that was given, so that nothing is known of a reconstruction."""
    if request.image is None or result.reconstructions is not None or result.inversion_rows:
        return False
    return torch.equal(result.images[0], request.image.to(result.images))


def _fault(image: Tensor, source: Tensor | None) -> str:
    """What is wrong with an image, in words; "" if nothing is."""
    if image.dim() != 3 or len(image) != 3 or (source is not None and image.shape != source.shape):
        expected = "(3, height, width)" if source is None else tuple(source.shape)
        return f"the shape {tuple(image.shape)}; expected {expected}"
    if not bool(image.isfinite().all()):
        return "values that are not finite; give it an error that says why"
    low, high = (float(value) for value in torch.aminmax(image))
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        return f"values from {low:g} to {high:g}; expected [0, 1]"
    return ""
