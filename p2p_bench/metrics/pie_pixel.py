"""PSNR, MSE and SSIM as the released evaluator of PIE-Bench computes them."""

from collections.abc import Sequence

import torch

from p2p_bench.metrics.base import EditView, MetricColumn, Undefined
from p2p_bench.metrics.pie import EQUAL, NOTE, released_images, unedited
from p2p_bench.metrics.pixel import NO_WINDOW, has_window, mse, ssim


class PiePixels:
    """`pie_psnr`, `pie_mse` and `pie_ssim`: both images black inside the mask, the mean over the WHOLE image.

    So a larger mask gives better values. SSIM takes the windows inside the image, as torchmetrics did up to
    1.4.1. The evaluator writes an infinite PSNR for images that are equal; here it is undefined, and counted,
    since no mean can hold it. Without a mask, and with a full one, there is no value, and no SSIM of images
    that are smaller than its window. For the published table, MSE times 10,000 and SSIM times 100.

    Args:
        jpeg: Whether the edited image goes through the JPEG of the released code first.
    """

    columns = (
        MetricColumn("pie_psnr", True, "dB", "PIE-Bench PSNR", role="fidelity", note=NOTE, range=(0, None)),
        MetricColumn("pie_mse", False, "", "PIE-Bench MSE", role="fidelity", note=NOTE, range=(0, 1)),
        MetricColumn("pie_ssim", True, "", "PIE-Bench SSIM", role="fidelity", note=NOTE, range=(-1, 1)),
    )

    def __init__(self, jpeg: bool = True) -> None:
        self.jpeg = jpeg

    def check(self) -> None:
        """Needs no files."""

    @torch.inference_mode()
    def __call__(self, views: Sequence[EditView]) -> list[dict[str, float]]:
        """Scores each view; see the class."""
        return [self._score(view) for view in views]

    def _score(self, view: EditView) -> dict[str, float]:
        kept = unedited(view)
        if isinstance(kept, Undefined):
            return {column.name: kept for column in self.columns}
        source, edited = (image[None] * kept for image in released_images(view, self.jpeg))
        error = mse(source, edited)
        value = -10 * error.log10().item()
        return {
            "pie_psnr": Undefined(EQUAL) if error.item() == 0 else value,
            "pie_mse": error.item(),
            "pie_ssim": ssim(source, edited).item() if has_window(view) else Undefined(NO_WINDOW),
        }
