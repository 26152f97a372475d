"""DINO-I: how like the source an edited image is (Ruiz et al. 2023), by the class token of DINO."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from p2p_bench.metrics.base import EditView, MetricColumn
from p2p_bench.metrics.dino_backbone import DinoNetwork, dino_files, dino_input, shared_dino
from p2p_bench.metrics.networks import NetworkMetric

BACKBONE = "dino-vitb8"


def token_similarity(a: Float[Tensor, " d"], b: Float[Tensor, " d"]) -> float:
    """Cosine of two class tokens, in [-1, 1]; 1 is equal."""
    return cosine_similarity(a, b, dim=0).clamp(-1, 1).item()


class DinoImage(NetworkMetric[DinoNetwork]):
    """Cosine of the class tokens of source and edited image.

    The network is the one of the structure distance, ViT-B/8, and so is its input; the paper's own is
    ViT-S/16 on a crop, so values are not to be compared with its table.

    Args:
        weights: Folder with DINO ViT-B/8, see `locate_dino`; None looks in the Hugging Face cache.
    """

    columns = (
        MetricColumn(
            "dino_image",
            True,
            "cosine",
            f"DINO-I to the source ({BACKBONE})",
            1,
            BACKBONE,
            "fidelity",
            range=(-1, 1),
        ),
    )

    def __init__(self, weights: str | Path | None = None) -> None:
        self.weights = weights

    def files(self) -> tuple[Path, ...]:
        """The network's files."""
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
        return {"dino_image": token_similarity(source.token, edited.token)}
