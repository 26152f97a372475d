"""CLIP scores as the released evaluator of PIE-Bench computes them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.metrics.base import EditView, MetricColumn, Undefined
from p2p_bench.metrics.clip import check_backbone, clip_score
from p2p_bench.metrics.clip_backbone import ClipNetwork, locate_clip, shared_clip
from p2p_bench.metrics.masks import NO_MASK
from p2p_bench.metrics.networks import NetworkMetric
from p2p_bench.metrics.pie import NOTE, released_images

EMPTY_MASK = "the mask is empty"


def clamped_score(images: Float[Tensor, "n d"], texts: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """100 x cosine, negative ones 0, as torchmetrics has it; in [0, 100].

    >>> a = torch.tensor([[1.0, 0.0]])
    >>> clamped_score(a, -a)
    tensor([0.])
    """
    return clip_score(images, texts).clamp_min(0)


class PieClip(NetworkMetric[ClipNetwork]):
    """`pie_clip_whole` and `pie_clip_edited`, and `pie_clip_source`, which no method should change.

    The edited image against the target prompt, whole and black outside the mask, and the source image
    against the SOURCE prompt. Captions are cut where CLIP's context ends and scored all the same.

    Args:
        backbone: Label of the network; the published table is of "openai-ViT-L-14".
        model: Architecture of open_clip; see `locate_clip`.
        weights: Folder, safetensors file or tag of open_clip; see `locate_clip`.
        jpeg: Whether the edited image goes through the JPEG of the released code first.

    Raises:
        ConfigError: A label that does not go with the weights.
    """

    def __init__(
        self,
        backbone: str = "openai-ViT-L-14",
        model: str | None = "ViT-L-14-quickgelu",
        weights: str | Path | None = "openai",
        jpeg: bool = True,
    ) -> None:
        check_backbone("metrics.pie_clip", backbone, model, weights)
        self.backbone = backbone
        self.model = model
        self.weights = weights
        self.jpeg = jpeg

    @property
    def columns(self) -> tuple[MetricColumn, ...]:
        """`pie_clip_whole`, `pie_clip_edited` and `pie_clip_source`."""
        labels = {"whole": "whole", "edited": "edited region", "source": "of the source image"}
        return tuple(
            MetricColumn(
                name=f"pie_clip_{name}",
                higher_is_better=True,
                unit="100 x cosine",
                label=f"PIE-Bench CLIP {label} ({self.backbone})",
                backbone=self.backbone,
                role="other" if name == "source" else "editability",
                note=NOTE,
                range=(0, 100),
            )
            for name, label in labels.items()
        )

    def files(self) -> tuple[Path, ...]:
        """The network's files."""
        return locate_clip(self.model, self.weights).files

    def shared(self, device: torch.device) -> ClipNetwork:
        """See `NetworkMetric`."""
        return shared_clip(self.model, self.weights, device)

    @torch.inference_mode()
    def __call__(self, views: Sequence[EditView]) -> list[dict[str, float]]:
        """Scores each view; see the class."""
        return [self._score(view) for view in views]

    def _score(self, view: EditView) -> dict[str, float]:
        network = self.network(view.edited.device)
        source, edited = released_images(view, self.jpeg)
        images = [edited, source] if view.mask is None else [edited, source, edited * (view.mask >= 0.5)]
        texts = network.text_features([view.target_prompt, view.source_prompt, view.target_prompt])
        scores = clamped_score(network.image_features(images), texts[: len(images)]).tolist()
        region = Undefined(NO_MASK) if view.mask is None else scores[2]
        if view.mask is not None and not bool((view.mask >= 0.5).any()):
            region = Undefined(EMPTY_MASK)
        return {"pie_clip_whole": scores[0], "pie_clip_edited": region, "pie_clip_source": scores[1]}
