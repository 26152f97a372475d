"""Pixel errors inside and outside the mask, each over its own pixels alone: L1, MSE, PSNR, SSIM."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import max_pool2d

from p2p_bench.metrics.base import UNDEFINED, EditView, MetricColumn, Undefined
from p2p_bench.metrics.masks import divided
from p2p_bench.metrics.pixel import MAX_PSNR, NO_WINDOW, SSIM_WINDOW, has_window, psnr_from_mse, ssim_map
from p2p_bench.precision import wide


def l1(a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """Mean absolute error over pixels and channels, in [0, 1] for images in [0, 1]; 0 is best.

    >>> l1(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5))
    tensor([0.5000], dtype=torch.float64)
    """
    return (wide(a) - wide(b)).abs().mean(dim=(1, 2, 3))


def region_mean(values: Float[Tensor, "c h w"], region: Bool[Tensor, "h w"]) -> float:
    """Mean of values over the pixels of a region and all channels; NaN for an empty region.

    >>> region_mean(torch.tensor([[[0.25, 1.0]]]), torch.tensor([[True, False]]))
    0.25
    """
    if not bool(region.any()):
        return UNDEFINED
    values = wide(values)
    return values[:, region.to(values.device)].mean().item()


def whole_windows(region: Bool[Tensor, "h w"]) -> Bool[Tensor, "y x"]:
    """Which windows of SSIM lie wholly in a region; there are 10 fewer than pixels either way."""
    left_out = (~region)[None, None].float()
    return max_pool2d(left_out, SSIM_WINDOW, stride=1)[0, 0] == 0


class RegionScores:
    """What `PixelScores` leaves out: L1, and errors by region, each the mean over that region's pixels.

    SSIM of a region takes the windows that lie wholly in it, so no pixel of the other region has a part.
    All but `l1` is undefined where the mask is unknown, empty or covers everything.
    """

    columns = (
        MetricColumn("l1", False, "", "L1 to the source", role="fidelity", range=(0, 1)),
        MetricColumn("l1_outside", False, "", "L1 outside the mask", role="fidelity", range=(0, 1)),
        MetricColumn("l1_inside", False, "", "L1 inside the mask", range=(0, 1)),
        MetricColumn("mse_inside", False, "", "MSE inside the mask", range=(0, 1)),
        MetricColumn("psnr_inside", True, "dB", "PSNR inside the mask", range=(0, MAX_PSNR)),
        MetricColumn("ssim_outside", True, "", "SSIM outside the mask", role="fidelity", range=(-1, 1)),
        MetricColumn("ssim_inside", True, "", "SSIM inside the mask", range=(-1, 1)),
    )

    def check(self) -> None:
        """Needs no files."""

    @torch.inference_mode()
    def __call__(self, views: Sequence[EditView]) -> list[dict[str, float]]:
        """Scores each view; see the class."""
        return [
            {"l1": l1(view.source[None], view.edited[None]).item(), **self._by_region(view)} for view in views
        ]

    def _by_region(self, view: EditView) -> dict[str, float]:
        regions = divided(view)
        if isinstance(regions, Undefined):
            return {column.name: regions for column in self.columns if column.name != "l1"}
        error = wide(view.source) - wide(view.edited)
        mse_inside = region_mean(error.square(), regions["inside"])
        similarity = ssim_map(view.source[None], view.edited[None])[0] if has_window(view) else None
        return {
            "l1_outside": region_mean(error.abs(), regions["outside"]),
            "l1_inside": region_mean(error.abs(), regions["inside"]),
            "mse_inside": mse_inside,
            "psnr_inside": psnr_from_mse(torch.tensor(mse_inside, dtype=torch.float64)[None]).item(),
            "ssim_outside": _of_windows(similarity, regions["outside"], "outside"),
            "ssim_inside": _of_windows(similarity, regions["inside"], "inside"),
        }


def _of_windows(similarity: Float[Tensor, "3 y x"] | None, region: Bool[Tensor, "h w"], name: str) -> float:
    if similarity is None:
        return Undefined(NO_WINDOW)
    windows = whole_windows(region)
    return (
        region_mean(similarity, windows) if bool(windows.any()) else Undefined(f"{NO_WINDOW} {name} the mask")
    )
