"""How well an inverted real image is reproduced, and the best its model could do."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.metrics.base import UNDEFINED, EditView, MetricColumn
from p2p_bench.metrics.pixel import MAX_PSNR, psnr


class Reconstruction:
    """PSNR against the real source image of what the model makes of it.

    `recon_psnr` is that of the source row after inversion and sampling. `vae_psnr` is that of the
    image encoded and decoded without any sampling: no inversion in this latent space can show more,
    so it stands beside the first as its bound. Both are NaN where there is no real image.
    """

    columns = (
        MetricColumn("recon_psnr", True, "dB", label="PSNR of the reconstruction", range=(0, MAX_PSNR)),
        MetricColumn("vae_psnr", True, "dB", label="PSNR of the VAE alone (bound)", range=(0, MAX_PSNR)),
    )

    def check(self) -> None:
        """Needs no files."""

    @torch.inference_mode()
    def __call__(self, views: Sequence[EditView]) -> list[dict[str, float]]:
        """Scores each view; see the class."""
        return [
            {
                "recon_psnr": _psnr_or_nan(view.reconstruction, view.source),
                "vae_psnr": _psnr_or_nan(view.vae_reconstruction, view.source),
            }
            for view in views
        ]


def _psnr_or_nan(image: Float[Tensor, "3 h w"] | None, reference: Float[Tensor, "3 h w"]) -> float:
    return UNDEFINED if image is None else psnr(image[None], reference[None]).item()
