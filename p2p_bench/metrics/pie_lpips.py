"""LPIPS as the released evaluator of PIE-Bench computes it."""

from collections.abc import Sequence
from pathlib import Path

import torch

from p2p_bench.metrics.base import EditView, MetricColumn, Undefined
from p2p_bench.metrics.lpips import locate_lpips, shared_lpips
from p2p_bench.metrics.lpips_network import LpipsNetwork
from p2p_bench.metrics.networks import NetworkMetric
from p2p_bench.metrics.pie import NOTE, released_images, unedited

NET = "squeeze"


class PieLpips(NetworkMetric[LpipsNetwork]):
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

    def files(self) -> tuple[Path, ...]:
        """The trunk's file."""
        return (locate_lpips(NET, self.trunk),)

    def shared(self, device: torch.device) -> LpipsNetwork:
        """See `NetworkMetric`."""
        return shared_lpips(NET, self.trunk)

    @torch.inference_mode()
    def __call__(self, views: Sequence[EditView]) -> list[dict[str, float]]:
        """Scores each view; see the class."""
        return [{"pie_lpips": self._score(view)} for view in views]

    def _score(self, view: EditView) -> float:
        kept = unedited(view)
        if isinstance(kept, Undefined):
            return kept
        network = self.network(view.edited.device)
        source, edited = (image * kept for image in released_images(view, self.jpeg))
        (distance,) = network.distances([(source, edited)])
        return distance
