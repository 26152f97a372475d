"""Structure distance as the released evaluator of PIE-Bench (Ju et al. 2024) computes it."""

from collections.abc import Sequence
from pathlib import Path

import torch

from p2p_bench.metrics.base import LOADING, EditView, MetricColumn
from p2p_bench.metrics.dino_backbone import DinoNetwork, dino_input, locate_dino, shared_dino
from p2p_bench.metrics.pie import NOTE, released_images
from p2p_bench.metrics.structure import structure_distance

BACKBONE = "dino-vitb8"


class PieStructure:
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
        self._network: DinoNetwork | None = None

    def check(self) -> None:
        """Looks for the network's files.

        Raises:
            MissingWeightsError: They are not there.
        """
        locate_dino(self.weights)

    def files(self) -> tuple[Path, ...]:
        """The network's file."""
        return (locate_dino(self.weights),)

    def load(self) -> None:
        """Loads the network.

        Raises:
            MissingWeightsError: Its file is absent, or not the network's.
        """
        self._load(torch.device("cpu"))

    @torch.inference_mode()
    def __call__(self, views: Sequence[EditView]) -> list[dict[str, float]]:
        """Scores each view; see the class."""
        return [self._score(view) for view in views]

    def _score(self, view: EditView) -> dict[str, float]:
        network = self._load(view.edited.device)
        source, edited = network.features(
            [dino_input(image, antialias=False, scale=255.0) for image in released_images(view, self.jpeg)]
        )
        return {"pie_structure": structure_distance(source.keys, edited.keys)}

    def _load(self, device: torch.device) -> DinoNetwork:
        with LOADING:
            if self._network is None:
                self._network = shared_dino(self.weights, device)
            self._network.to(device)
            return self._network
