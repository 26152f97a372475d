"""LPIPS inside and outside the mask."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from p2p_bench.fields import fault_of
from p2p_bench.metrics.base import EditView, MetricColumn, Undefined
from p2p_bench.metrics.lpips import Net, locate_lpips, shared_lpips
from p2p_bench.metrics.lpips_network import LpipsNetwork
from p2p_bench.metrics.masks import divided
from p2p_bench.metrics.networks import NetworkMetric
from p2p_bench.metrics.region import region_mean


def composed(
    source: Float[Tensor, "3 h w"], edited: Float[Tensor, "3 h w"], region: Bool[Tensor, "h w"]
) -> Float[Tensor, "3 h w"]:
    """The edited image in a region and the source elsewhere, which is what a region is scored by.

    Features of a pixel see its surroundings, so the other region's pixels would have a part. Where they are
    the source's, what differs is of the region alone.
    """
    return torch.where(region, edited, source)


class LpipsRegions(NetworkMetric[LpipsNetwork]):
    """LPIPS of the edited image to the source by region, the mean over that region's pixels.

    Undefined where the mask is unknown, empty or covers everything.

    Args:
        net: "alex", "vgg", "squeeze" or "world", as of `Lpips`.
        trunk: Weights of the trunk, as of `Lpips`.

    Raises:
        ConfigError: `net` is unknown.
    """

    def __init__(self, net: Net = "world", trunk: str | Path | None = None) -> None:
        if fault := fault_of("metrics.lpips_region.net", net, Net):
            raise fault
        self.net = net
        self.trunk = trunk

    @property
    def columns(self) -> tuple[MetricColumn, ...]:
        """`lpips_outside` and `lpips_inside`."""
        outside, inside = (f"LPIPS {side} the mask ({self.net})" for side in ("outside", "inside"))
        return (
            MetricColumn("lpips_outside", False, "", outside, 1, self.net, "fidelity", range=(0, None)),
            MetricColumn("lpips_inside", False, "", inside, 1, self.net, range=(0, None)),
        )

    def files(self) -> tuple[Path, ...]:
        """The trunk's file."""
        return (locate_lpips(self.net, self.trunk),)

    def shared(self, device: torch.device) -> LpipsNetwork:
        """See `NetworkMetric`."""
        return shared_lpips(self.net, self.trunk)

    @torch.inference_mode()
    def __call__(self, views: Sequence[EditView]) -> list[dict[str, float]]:
        """Scores each view; see the class."""
        return [self._score(view) for view in views]

    def _score(self, view: EditView) -> dict[str, float]:
        regions = divided(view)
        if isinstance(regions, Undefined):
            return {column.name: regions for column in self.columns}
        sides = ("outside", "inside")
        pairs = [(view.source, composed(view.source, view.edited, regions[side])) for side in sides]
        maps = self.network(view.edited.device).maps(pairs)
        return {
            f"lpips_{side}": region_mean(by_pixel[None], regions[side])
            for side, by_pixel in zip(sides, maps, strict=True)
        }
