"""Structural similarity over five scales (MS-SSIM; Wang et al. 2003)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from p2p_bench.metrics.base import EditView, MetricColumn, Undefined
from p2p_bench.metrics.pixel import SSIM_WINDOW, contrast_map, ssim_map
from p2p_bench.precision import wide

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, finest first, as published."""

SMALLEST = SSIM_WINDOW * 2 ** (len(WEIGHTS) - 1)
"""The shortest side, in pixels, that leaves a window at the coarsest scale."""


def ms_ssim(a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """Product over scales of contrast and structure, times the means' comparison at the coarsest; 1 is best.

    Each factor is the mean over channels and windows inside the image, to the power of `WEIGHTS`; between
    scales images are averaged over 2 x 2 pixels. A negative factor has no such power and counts as 0, so
    values lie in [0, 1].

    Raises:
        ValueError: A side is shorter than `SMALLEST`.

    >>> image = torch.rand(1, 3, 176, 176, generator=torch.Generator().manual_seed(0))
    >>> ms_ssim(image, image)
    tensor([1.], dtype=torch.float64)
    """
    if min(a.shape[-2:]) < SMALLEST:
        raise ValueError(f"ms_ssim: images must be at least {SMALLEST} pixels wide and high")
    x, y = wide(a), wide(b)
    result = torch.ones(len(x), dtype=x.dtype, device=x.device)
    for weight in WEIGHTS[:-1]:
        result = result * contrast_map(x, y).mean(dim=(1, 2, 3)).clamp_min(0) ** weight
        x, y = avg_pool2d(x, 2), avg_pool2d(y, 2)
    return result * ssim_map(x, y).mean(dim=(1, 2, 3)).clamp_min(0) ** WEIGHTS[-1]


class MsSsim:
    """MS-SSIM of the edited image to the source; undefined for images under 176 pixels.

    There is no column by region: windows of the coarsest scale see 176 pixels each way, across any mask.
    """

    columns = (MetricColumn("ms_ssim", True, "", "MS-SSIM to the source", role="fidelity", range=(0, 1)),)

    def check(self) -> None:
        """Needs no files."""

    @torch.inference_mode()
    def __call__(self, views: Sequence[EditView]) -> list[dict[str, float]]:
        """Scores each view; see the class."""
        return [{"ms_ssim": self._score(view)} for view in views]

    def _score(self, view: EditView) -> float:
        if min(view.source.shape[-2:]) < SMALLEST:
            return Undefined(f"MS-SSIM needs images of {SMALLEST} pixels each way")
        return ms_ssim(view.source[None], view.edited[None]).item()
