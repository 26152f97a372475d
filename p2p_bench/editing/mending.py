"""Carries out a `Repair`: the source's pixels are put back outside the mask of an edit."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d, pad

from p2p_bench.editing.masks import attention_mask
from p2p_bench.editing.repair import Repair
from p2p_bench.editing.result import EditResult
from p2p_bench.errors import P2PError
from p2p_bench.prompts.changes import changed_words
from p2p_bench.prompts.words import places_of


def repaired(result: EditResult, repair: Repair, image: Float[Tensor, "3 h w"] | None) -> EditResult:
    """A result whose edited images are the source outside the mask of the edit.

    Args:
        result: The edit; with recorded attention unless the repair brings its mask.
        repair: What is kept of it.
        image: The real source image; None takes the source as it was generated.

    Returns:
        The result with new `images` and the masks in `repair_masks`; images with an error are left alone,
        and one whose mask cannot be made gets one.
    """
    images, errors, masks = result.images.clone(), list(result.errors), {}
    source = images[0] if image is None else image.to(images)
    for index in range(1, len(images)):
        if errors[index] is not None or errors[0] is not None:
            continue
        try:
            mask = _mask(result, repair, index)
        except P2PError as error:
            errors[index] = error
            continue
        if not bool((mask > 0).any()):
            errors[index] = P2PError(
                "repair: the mask is empty, so nothing of the edit would be left; give another mask, "
                "or a lower threshold"
            )
            continue
        masks[index] = feathered(mask, repair.feather)
        images[index] = torch.lerp(source, images[index], masks[index])
    return replace(result, images=images, errors=tuple(errors), repair_masks=masks)


def feathered(mask: Float[Tensor, "h w"], deviation: float) -> Float[Tensor, "h w"]:
    """A mask under a Gaussian of some standard deviation in pixels; the border is continued outward."""
    if deviation == 0:
        return mask
    reach = max(1, round(3 * deviation))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=mask.dtype) / deviation).square())
    kernel = kernel / kernel.sum()
    soft = pad(mask[None, None], (reach,) * 4, mode="replicate")
    return conv2d(conv2d(soft, kernel[None, None, None]), kernel[None, None, :, None])[0, 0].clamp(0, 1)


def _mask(result: EditResult, repair: Repair, index: int) -> Float[Tensor, "h w"]:
    """1 where the edited image is kept."""
    size = (result.images.shape[-2], result.images.shape[-1])
    if repair.mask is not None:
        if tuple(repair.mask.shape) != size:
            raise P2PError(
                f"repair: the mask has {repair.mask.shape[-1]} x {repair.mask.shape[-2]} pixels, the images "
                f"{size[1]} x {size[0]}; resize the mask"
            )
        return repair.mask.float().cpu().clamp(0, 1)
    mask = torch.zeros(size, dtype=torch.bool)
    for at, words in ((0, _words(result, repair, 0, index)), (index, _words(result, repair, index, 0))):
        for word in words:
            mask |= attention_mask(result.heatmap(word, at), size, repair.pool, repair.threshold)
    return mask.float()


def _words(result: EditResult, repair: Repair, at: int, other: int) -> list[str]:
    """The words to look at in one of two images."""
    here, there = result.prompts[at], result.prompts[other]
    if repair.words is None:
        only_here, only_there = changed_words(here, there)
        if not only_here and not only_there:
            raise P2PError(
                f"repair: {here.text!r} and {there.text!r} have the same words; name those that the edit is "
                "about, as in Repair(words=('fog',))"
            )
        return list(only_here)
    for word in repair.words:
        if not places_of(here, word) and not places_of(there, word):
            raise P2PError(f"repair: word {word!r} is neither in {here.text!r} nor in {there.text!r}")
    return [word for word in repair.words if places_of(here, word)]
