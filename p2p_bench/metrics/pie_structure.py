"""Structure distance as the released evaluator of PIE-Bench (Ju et al. 2024) computes it."""

from collections.abc import Sequence
from pathlib import Path

import torch

from p2p_bench.metrics.base import EditView, MetricColumn
from p2p_bench.metrics.dino_backbone import DinoNetwork, dino_files, dino_input, shared_dino
from p2p_bench.metrics.networks import NetworkMetric
from p2p_bench.metrics.pie import NOTE, released_images
from p2p_bench.metrics.structure import structure_distance

BACKBONE = "dino-vitb8"


class PieStructure(NetworkMetric[DinoNetwork]):
    """`pie_structure`: the whole images, 0..255 into ImageNet's normalisation, which is made for 0..1.

    Resized without averaging, as torchvision did with tensors up to 0.16, the newest when the published
    table was made. For the table, times 1000.

    Args:
        weights: Folder with DINO ViT-B/8, see `locate_dino`; None looks in the Hugging Face cache.
        jpeg: As of `released_images`.
    """

    columns = (
        MetricColumn(
            "pie_structure",
            False,
            "",
            f"PIE-Bench structure distance ({BACKBONE})",
            1,
            BACKBONE,
            "fidelity",
            note=NOTE,
            range=(0, 4),
        ),
    )

    def __init__(self, weights: str | Path | None = None, jpeg: bool = True) -> None:
        self.weights = weights
        self.jpeg = jpeg

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
        source, edited = network.features(
            [dino_input(image, antialias=False, scale=255.0) for image in released_images(view, self.jpeg)]
        )
        return {"pie_structure": structure_distance(source.keys, edited.keys)}
