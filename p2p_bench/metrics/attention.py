"""How well the attention to what an edit changes covers the mask of where it may change."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate

from p2p_bench.errors import ConfigError
from p2p_bench.metrics.base import EditView, MetricColumn, Undefined
from p2p_bench.metrics.masks import divided

NO_ATTENTION = "no attention to the words that the edit changes was recorded"


def attention_mask(
    heat: Float[Tensor, "s t"], size: tuple[int, int], threshold: float = 0.3
) -> Bool[Tensor, "h w"]:
    """Where an image attends to some words: more than a share of the map's maximum, as local blend takes it.

    Args:
        heat: Attention to the words, of any scale.
        size: Height and width of the mask; the map is brought to it bilinearly.
        threshold: The share.

    >>> attention_mask(torch.tensor([[0.2, 1.0]]), (1, 2))
    tensor([[False,  True]])
    """
    large = interpolate(heat[None, None].float(), size=size, mode="bilinear", align_corners=False)[0, 0]
    return large > threshold * heat.max()


def intersection_over_union(a: Bool[Tensor, "h w"], b: Bool[Tensor, "h w"]) -> float:
    """Pixels in both masks over those in either, in [0, 1]; 0 for two empty masks.

    >>> intersection_over_union(torch.tensor([[True, True]]), torch.tensor([[True, False]]))
    0.5
    """
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 0.0


class AttentionIou:
    """`attention_iou`: attention to the changed words, cut at a share of its maximum, against the given mask.

    The words are those that the target prompt has and the source's lacks, in the edited image; where it only
    loses words, these, in the source. Undefined without a mask that divides the image, and where no
    attention was recorded: for images that were made elsewhere, and models and editors without.

    Args:
        threshold: Share of the map's maximum.

    Raises:
        ConfigError: The threshold is no share.
    """

    needs_attention = True
    columns = (MetricColumn("attention_iou", True, "", "IoU of attention and the given mask", range=(0, 1)),)

    def __init__(self, threshold: float = 0.3) -> None:
        if isinstance(threshold, bool) or not 0 <= threshold < 1:
            raise ConfigError(f"metrics.attention.threshold: expected a share in [0, 1), got {threshold!r}")
        self.threshold = threshold

    def check(self) -> None:
        """Needs no files."""

    @torch.inference_mode()
    def __call__(self, views: Sequence[EditView]) -> list[dict[str, float]]:
        """Scores each view; see the class."""
        return [{"attention_iou": self._score(view)} for view in views]

    def _score(self, view: EditView) -> float:
        regions = divided(view)
        if isinstance(regions, Undefined):
            return regions
        if view.attention is None or not bool(view.attention.max() > 0):
            return Undefined(NO_ATTENTION)
        inside = regions["inside"]
        found = attention_mask(view.attention, (inside.shape[0], inside.shape[1]), self.threshold)
        return intersection_over_union(found, inside)
