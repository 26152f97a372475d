"""What the released evaluator of PIE-Bench (Ju et al. 2024, arXiv 2310.01506) is given of an edit.

Its columns begin with `pie_` and keep its quirks, so that they can stand beside the published table; those
without the prefix do what their names say. README.md lists both.
"""

import io

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from p2p_bench.metrics.base import EditView, Undefined
from p2p_bench.metrics.masks import NO_MASK

NOTE = (
    "as the released evaluator of PIE-Bench computes it, with its quirks; for comparison with its table only"
)
FULL_MASK = "the mask covers the whole image"
EQUAL = "the images are equal outside the mask, so their PSNR is infinite"


def truncated(image: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """To 8 bits by cutting off, as the released editing code does with what its decoder gives.

    >>> (truncated(torch.tensor([0.0, 0.7, 1.0]).view(3, 1, 1)) * 255).flatten()
    tensor([  0., 178., 255.])
    """
    return (image.float().clamp(0, 1) * 255).floor() / 255


def rounded(image: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """To the nearest of 8 bits: what is read from a file is on one of them already."""
    return (image.float().clamp(0, 1) * 255).round() / 255


def as_strip(
    reconstruction: Float[Tensor, "3 h w"], edited: Float[Tensor, "3 h w"]
) -> Float[Tensor, "3 h w"]:
    """The edited image, read back from the JPEG in which the released code keeps it beside others.

    Pillow's defaults (quality 75, colour at half the resolution). Only the neighbour to the left can reach
    the edited image, by the colour of its last column; what lies further left is left out here.

    Args:
        reconstruction: The neighbour, in 8-bit steps.
        edited: The edited image, in 8-bit steps.
    """
    strip = torch.cat([reconstruction, edited], dim=2)
    pixels = (strip * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG")
    read = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
    return (read[:, :, -edited.shape[2] :].float() / 255).to(edited.device)


def released_images(
    view: EditView, jpeg: bool = True
) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 h w"]]:
    """Source and edited image as the evaluator reads them, in 8-bit steps of [0, 1].

    Args:
        view: The edit.
        jpeg: Whether the edited image goes through the JPEG of `as_strip` first; one that was read from a
            file with losses has been through one and is taken as it is.
    """
    for image in (view.source, view.edited):
        if not bool(image.isfinite().all()):
            raise ValueError("PIE-Bench: an image holds values that are not finite")
    edited = truncated(view.edited)
    if jpeg and not view.lossy:
        neighbour = rounded(view.source) if view.reconstruction is None else truncated(view.reconstruction)
        edited = as_strip(neighbour, edited)
    return rounded(view.source), edited


def unedited(view: EditView) -> Float[Tensor, "h w"] | Undefined:
    """1 where the mask leaves the image alone; without a mask, or such a place, why there is none."""
    if view.mask is None:
        return Undefined(NO_MASK)
    kept = (view.mask < 0.5).float()
    return kept if bool(kept.any()) else Undefined(FULL_MASK)
