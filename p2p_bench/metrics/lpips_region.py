"""LPIPS inside and outside the mask."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from p2p_bench.fields import fault_of
from p2p_bench.metrics.base import LOADING, EditView, MetricColumn, Undefined
from p2p_bench.metrics.lpips import Net, distance_map, locate_lpips, lpips_files, shared_lpips
from p2p_bench.metrics.region import divided, region_mean


def region_distance(
    network: nn.Module,
    source: Float[Tensor, "3 h w"],
    edited: Float[Tensor, "3 h w"],
    region: Bool[Tensor, "h w"],
) -> float:
    """Mean of the map of LPIPS over the pixels of a region, in [0, inf); 0 where they are equal there.

    Features of a pixel see its surroundings, so the other region's pixels would have a part. Therefore the
    edited image is compared with the source's pixels put in there: what differs is of the region alone.

    Args:
        network: By `shared_lpips`.
        source: The source.
        edited: The edited image.
        region: The pixels; not empty.
    """
    composed = torch.where(region, edited, source)
    return region_mean(distance_map(network, source[None], composed[None]), region)


class LpipsRegions:
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
        self._network: nn.Module | None = None

    @property
    def columns(self) -> tuple[MetricColumn, ...]:
        """`lpips_outside` and `lpips_inside`."""
        outside, inside = (f"LPIPS {side} the mask ({self.net})" for side in ("outside", "inside"))
        return (
            MetricColumn("lpips_outside", False, "", outside, 1, self.net, "fidelity", range=(0, None)),
            MetricColumn("lpips_inside", False, "", inside, 1, self.net, range=(0, None)),
        )

    def check(self) -> None:
        """Looks for the trunk's file.

        Raises:
            MissingWeightsError: It is not there.
        """
        locate_lpips(self.net, self.trunk)

    def files(self) -> tuple[Path, ...]:
        """The trunk's file."""
        return lpips_files(self.net, self.trunk)

    def load(self) -> None:
        """Loads the trunk.

        Raises:
            MissingWeightsError: Its file is absent, or not the trunk's.
        """
        self._load()

    @torch.inference_mode()
    def __call__(self, views: Sequence[EditView]) -> list[dict[str, float]]:
        """Scores each view; see the class."""
        return [self._score(view) for view in views]

    def _score(self, view: EditView) -> dict[str, float]:
        regions = divided(view)
        if isinstance(regions, Undefined):
            return {column.name: regions for column in self.columns}
        network = self._load().to(view.edited.device)
        return {
            f"lpips_{side}": region_distance(network, view.source, view.edited, regions[side])
            for side in ("outside", "inside")
        }

    def _load(self) -> nn.Module:
        with LOADING:
            if self._network is None:
                self._network = shared_lpips(self.net, self.trunk)
            return self._network
