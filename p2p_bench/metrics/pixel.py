"""Pixel-wise agreement of two images: MSE, PSNR, SSIM.

The functions take batches and give one value per image; nothing is pooled over a batch.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d

from p2p_bench.metrics.base import UNDEFINED, EditView, MetricColumn, Undefined
from p2p_bench.metrics.masks import divided
from p2p_bench.precision import wide

MAX_PSNR = 100.0
"""PSNR of (nearly) identical images, in dB.

Infinity would turn every mean infinite, and leaving such pairs out would drop the best results from
it. 100 dB lies far above the 59 dB that rounding to 8 bits leaves, so no real difference is hidden.
"""

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
NO_WINDOW = f"no window of {SSIM_WINDOW} x {SSIM_WINDOW} pixels fits"
_C_1, _C_2 = 0.01**2, 0.03**2


def mse(a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """Mean squared error over pixels and channels, in [0, 1] for images in [0, 1]; 0 is best.

    >>> mse(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5))
    tensor([0.2500], dtype=torch.float64)
    """
    return (wide(a) - wide(b)).square().mean(dim=(1, 2, 3))


def mse_outside(
    a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"], mask: Float[Tensor, "n h w"]
) -> Float[Tensor, " n"]:
    """Mean squared error over the pixels where `mask` is 0; NaN where it is 0 nowhere or everywhere.

    The mean runs over the kept pixels alone, so it does not depend on the size of the mask. A mask without
    an inside divides nothing: the whole picture is no background.

    >>> a = torch.zeros(1, 3, 1, 2)
    >>> mse_outside(a, torch.tensor([0.5, 1.0]).expand(1, 3, 1, 2), torch.tensor([[[0.0, 1.0]]]))
    tensor([0.2500], dtype=torch.float64)
    """
    kept = wide(mask < 0.5)
    error = (wide(a) - wide(b)).square().mean(dim=1)
    number = kept.sum(dim=(1, 2))
    mean = (error * kept).sum(dim=(1, 2)) / number
    return mean.where(number < kept.shape[1] * kept.shape[2], UNDEFINED)


def psnr_from_mse(error: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Peak signal-to-noise ratio in dB for a peak of 1, at most `MAX_PSNR`; NaN stays NaN.

    >>> psnr_from_mse(torch.tensor([0.01, 0.0]))
    tensor([ 20., 100.])
    """
    return -10 * error.clamp_min(10 ** (-MAX_PSNR / 10)).log10()


def psnr(a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """Peak signal-to-noise ratio of each pair of images in dB, in [0, `MAX_PSNR`]; higher is better.

    >>> psnr(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.1)).round(decimals=3)
    tensor([20.], dtype=torch.float64)
    """
    return psnr_from_mse(mse(a, b))


def ssim(a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """Structural similarity (Wang et al. 2004), mean over channels and positions; 1 is best.

    Gaussian window of 11 x 11 pixels and standard deviation 1.5, constants 0.01 and 0.03, population
    covariance, windows inside the image only (torchmetrics pads by reflection and differs at the border).
    Values lie in [-1, 1].

    Raises:
        ValueError: The images are smaller than the window.

    >>> image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> ssim(image, image)
    tensor([1.], dtype=torch.float64)
    """
    return ssim_map(a, b).mean(dim=(1, 2, 3))


def ssim_map(a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 y x"]:
    """Structural similarity of each window that lies inside the image, 10 fewer than pixels either way.

    Raises:
        ValueError: The images are smaller than the window.
    """
    mu_x, mu_y, var_x, var_y, cov = _moments(wide(a), wide(b))
    return (2 * mu_x * mu_y + _C_1) * (2 * cov + _C_2) / ((mu_x**2 + mu_y**2 + _C_1) * (var_x + var_y + _C_2))


def contrast_map(a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 y x"]:
    """The same without its comparison of means: contrast and structure alone.

    Raises:
        ValueError: The images are smaller than the window.
    """
    _, _, var_x, var_y, cov = _moments(wide(a), wide(b))
    return (2 * cov + _C_2) / (var_x + var_y + _C_2)


def _moments(x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"]) -> tuple[Tensor, ...]:
    """Means, variances and covariance of each window."""
    if min(x.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(
            f"ssim: images must be at least {SSIM_WINDOW} pixels wide and high, got {tuple(x.shape)}"
        )
    mu_x, mu_y = _window_mean(x), _window_mean(y)
    var_x = _window_mean(x * x) - mu_x**2
    var_y = _window_mean(y * y) - mu_y**2
    cov = _window_mean(x * y) - mu_x * mu_y
    return mu_x, mu_y, var_x, var_y, cov


def _window_mean(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 y x"]:
    """Weighted mean over each Gaussian window, rows then columns."""
    offsets = torch.arange(SSIM_WINDOW, dtype=images.dtype, device=images.device) - SSIM_WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    weights = (weights / weights.sum()).expand(3, 1, -1)
    rows = conv2d(images, weights[..., None, :], groups=3)
    return conv2d(rows, weights[..., None], groups=3)


def has_window(view: EditView) -> bool:
    """Whether the images of an edit hold a window of SSIM."""
    return min(view.source.shape[-2:]) >= SSIM_WINDOW


class PixelScores:
    """MSE, PSNR and SSIM of the edited image against the source, whole and outside the mask.

    The columns outside the mask are undefined where the mask is unknown, empty or covers everything, SSIM
    where its window is larger than the images.
    """

    columns = (
        MetricColumn("mse", False, label="MSE to the source", role="fidelity", range=(0, 1)),
        MetricColumn("psnr", True, "dB", label="PSNR to the source", role="fidelity", range=(0, MAX_PSNR)),
        MetricColumn("ssim", True, label="SSIM to the source", role="fidelity", range=(-1, 1)),
        MetricColumn("mse_outside", False, "", "MSE outside the mask", 2, role="fidelity", range=(0, 1)),
        MetricColumn(
            "psnr_outside", True, "dB", "PSNR outside the mask", 2, role="fidelity", range=(0, MAX_PSNR)
        ),
    )

    def check(self) -> None:
        """Needs no files."""

    @torch.inference_mode()
    def __call__(self, views: Sequence[EditView]) -> list[dict[str, float]]:
        """Scores each view; see the class."""
        return [self._score(view) for view in views]

    def _score(self, view: EditView) -> dict[str, float]:
        source, edited = view.source[None], view.edited[None]
        error, regions = mse(source, edited), divided(view)
        whole = {
            "mse": error.item(),
            "psnr": psnr_from_mse(error).item(),
            "ssim": ssim(source, edited).item() if has_window(view) else Undefined(NO_WINDOW),
        }
        if isinstance(regions, Undefined):
            return {**whole, "mse_outside": regions, "psnr_outside": regions}
        outside = mse_outside(source, edited, regions["inside"].float()[None])
        return {
            **whole,
            "mse_outside": outside.item(),
            "psnr_outside": psnr_from_mse(outside).item(),
        }
