"""Structure distance: how the layout of an image changed (Tumanyan et al. 2022), by the keys of DINO."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.metrics.base import EditView, MetricColumn
from p2p_bench.metrics.dino_backbone import DinoNetwork, dino_files, dino_input, shared_dino
from p2p_bench.metrics.networks import NetworkMetric

BACKBONE = "dino-vitb8"


def self_similarity(keys: Float[Tensor, "t d"]) -> Float[Tensor, "t t"]:
    """Cosine between the keys of every two tokens (Tumanyan et al. 2022, eq. 2), in [-1, 1].

    >>> self_similarity(torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
    tensor([[1., 0.],
            [0., 1.]])
    """
    length = keys.norm(dim=1, keepdim=True)
    cosine: Tensor = (keys @ keys.T) / (length @ length.T).clamp_min(1e-8)
    return cosine


def structure_distance(a: Float[Tensor, "t d"], b: Float[Tensor, "t d"]) -> float:
    """Mean squared difference of the self-similarities of two images' keys, in [0, 4]; 0 is best."""
    return (self_similarity(a) - self_similarity(b)).square().mean().item()


class StructureDistance(NetworkMetric[DinoNetwork]):
    """Distance of the self-similarities of DINO's keys in layer 11, of source and edited image; 0 is equal.

    Images are resized to a shorter side of 224 pixels with averaging, and normalised as DINO was trained.

    Args:
        weights: Folder with DINO ViT-B/8, see `locate_dino`; None looks in the Hugging Face cache.
    """

    columns = (
        MetricColumn(
            "structure_distance",
            False,
            "",
            f"structure distance ({BACKBONE})",
            1,
            BACKBONE,
            "fidelity",
            range=(0, 4),
        ),
    )

    def __init__(self, weights: str | Path | None = None) -> None:
        self.weights = weights

    def files(self) -> tuple[Path, ...]:
        """The network's file."""
        return dino_files(self.weights)

    def shared(self, device: torch.device) -> DinoNetwork:
        """See `NetworkMetric`."""
        return shared_dino(self.weights, device)

    @torch.inference_mode()
    def __call__(self, views: Sequence[EditView]) -> list[dict[str, float]]:
        """Scores each view; see the class."""
        return [self._score(view) for view in views]

    def _score(self, view: EditView) -> dict[str, float]:
        network = self.network(view.edited.device)
        source, edited = network.features([dino_input(view.source), dino_input(view.edited)])
        return {"structure_distance": structure_distance(source.keys, edited.keys)}
