"""LPIPS as the released evaluator of PIE-Bench computes it."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from p2p_bench.metrics.base import LOADING, EditView, MetricColumn, Undefined
from p2p_bench.metrics.lpips import locate_trunk, lpips_files, shared_lpips
from p2p_bench.metrics.pie import NOTE, released_images, unedited

NET = "squeeze"


class PieLpips:
    """`pie_lpips`: SqueezeNet, both images black inside the mask, the mean over the WHOLE image.

    Masked pixels are 0 before images are scaled to [-1, 1], so they are black and not grey. Without a mask,
    and with a full one, there is no value. For the published table, times 1000.

    Args:
        trunk: Weights of torchvision's SqueezeNet 1.1, see `locate_trunk`.
        jpeg: Whether the edited image goes through the JPEG of the released code first.
    """

    columns = (
        MetricColumn(
            "pie_lpips", False, "", f"PIE-Bench LPIPS ({NET})", 1, NET, "fidelity", note=NOTE, range=(0, None)
        ),
    )

    def __init__(self, trunk: str | Path | None = None, jpeg: bool = True) -> None:
        self.trunk = trunk
        self.jpeg = jpeg
        self._network: nn.Module | None = None

    def check(self) -> None:
        """Looks for the trunk's file.

        Raises:
            MissingWeightsError: It is not there.
        """
        locate_trunk(NET, self.trunk)

    def files(self) -> tuple[Path, ...]:
        """The trunk's file."""
        return lpips_files(NET, self.trunk)

    def load(self) -> None:
        """Loads the trunk.

        Raises:
            MissingWeightsError: Its file is absent, or not the trunk's.
        """
        self._load()

    @torch.inference_mode()
    def __call__(self, views: Sequence[EditView]) -> list[dict[str, float]]:
        """Scores each view; see the class."""
        return [{"pie_lpips": self._score(view)} for view in views]

    def _score(self, view: EditView) -> float:
        kept = unedited(view)
        if isinstance(kept, Undefined):
            return kept
        network = self._load().to(view.edited.device)
        source, edited = (image[None] * kept for image in released_images(view, self.jpeg))
        distance: float = network(source * 2 - 1, edited * 2 - 1).item()
        return distance

    def _load(self) -> nn.Module:
        with LOADING:
            if self._network is None:
                self._network = shared_lpips(NET, self.trunk)
            return self._network
