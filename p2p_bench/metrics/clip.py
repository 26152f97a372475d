"""CLIP scores: does the edited image agree with a prompt, and did it move as the prompt did?"""

from collections.abc import Sequence
from math import isnan
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from p2p_bench.errors import ConfigError
from p2p_bench.metrics.base import EditView, MetricColumn, Undefined
from p2p_bench.metrics.clip_backbone import ClipNetwork, locate_clip, shared_clip
from p2p_bench.metrics.embedded import WORLD
from p2p_bench.metrics.networks import NetworkMetric


def clip_score(images: Float[Tensor, "n d"], texts: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """100 x cosine of image and text features (Hessel et al. 2021, not clamped at 0), in [-100, 100].

    >>> clip_score(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])).round(decimals=3)
    tensor([60.])
    """
    return 100 * cosine_similarity(images, texts, dim=-1)


def directional_similarity(
    source_images: Float[Tensor, "n d"],
    edited_images: Float[Tensor, "n d"],
    source_texts: Float[Tensor, "n d"],
    target_texts: Float[Tensor, "n d"],
) -> Float[Tensor, " n"]:
    """Cosine between the change of the image and the change of the text (Gal et al. 2021), in [-1, 1].

    Args:
        source_images: Features of unit length, as all others.
        edited_images: Features of the edited images.
        source_texts: Features of the source prompts.
        target_texts: Features of the target prompts.

    Returns:
        NaN where image or text did not change, since no direction exists.

    >>> a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> directional_similarity(a, b, a, b).round(decimals=3), directional_similarity(a, b, a, a)
    (tensor([1.]), tensor([nan]))
    """
    image_change = edited_images - source_images
    text_change = target_texts - source_texts
    length = image_change.norm(dim=-1) * text_change.norm(dim=-1)
    cosine: Tensor = (image_change * text_change).sum(dim=-1) / length
    return cosine


UNMOVED = "the images or the prompts are equal, so there is no direction"

OPENAI, _OPENAI_MODEL = "openai-ViT-L-14", "ViT-L-14-quickgelu"
"""Label of OpenAI's ViT-L/14, whose scores papers compare, and its architecture in open_clip."""


def check_backbone(where: str, backbone: str, model: str | None, weights: str | Path | None) -> None:
    """Refuses a label of a network that does not go with its weights.

    Raises:
        ConfigError: The label "world" with other weights, another label without any, or `OPENAI` with another
            architecture or tag; what a file or a folder holds is not asked.
    """
    tag = model is not None and not str(weights).endswith(".safetensors")
    if backbone == OPENAI and (model not in (None, _OPENAI_MODEL) or (tag and weights != "openai")):
        raise ConfigError(
            f"{where}: backbone {backbone!r} with model={model!r}, weights={weights!r}; the label stands for "
            f"{_OPENAI_MODEL} with weights=openai (or their file): give another network a label of its own"
        )
    if (backbone == WORLD) != (model is None and weights is None):
        raise ConfigError(
            f"{where}: backbone {backbone!r} with model={model!r}, weights={weights!r}; "
            "the label 'world' stands for the embedded network alone, every other label needs weights"
        )


class ClipScore(NetworkMetric[ClipNetwork]):
    """CLIP agreement of the edited image with both prompts, and directional similarity.

    `clip_target` scores the edited image against the target prompt and rises as the edit takes;
    `clip_source` scores it against the source prompt and falls; `clip_direction` compares the change
    of the image with the change of the prompt and is NaN where prompts or images are equal. What a prompt
    takes part in is undefined where the network cannot read it to its end.

    Args:
        backbone: Label of the network in results. "world" is the embedded one and takes no other argument.
        model: Architecture of open_clip; see `locate_clip`.
        weights: Folder, safetensors file or tag of open_clip; see `locate_clip`.

    Raises:
        ConfigError: The label "world" with other weights, or another label without any.
    """

    def __init__(
        self, backbone: str = WORLD, model: str | None = None, weights: str | Path | None = None
    ) -> None:
        check_backbone("metrics.clip", backbone, model, weights)
        self.backbone = backbone
        self.model = model
        self.weights = weights

    @property
    def columns(self) -> tuple[MetricColumn, ...]:
        """`clip_source`, `clip_target` and `clip_direction`."""
        name = self.backbone
        source, target, direction = (
            f"CLIP {what} ({name})" for what in ("to source", "to target", "direction")
        )
        return (
            MetricColumn(
                "clip_source",
                False,
                "100 x cosine",
                source,
                1,
                name,
                "other",
                range=(-100, 100),
                needs_source=False,
            ),
            MetricColumn(
                "clip_target",
                True,
                "100 x cosine",
                target,
                1,
                name,
                "editability",
                range=(-100, 100),
                needs_source=False,
            ),
            MetricColumn("clip_direction", True, "cosine", direction, 1, name, "editability", range=(-1, 1)),
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
        if not views:
            return []
        network = self.network(views[0].edited.device)
        count = len(views)
        images = [view.source for view in views] + [view.edited for view in views]
        prompts = [view.source_prompt for view in views] + [view.target_prompt for view in views]
        source_images, edited_images = torch.split(network.image_features(images), count)
        source_texts, target_texts = torch.split(network.text_features(prompts), count)
        moved = directional_similarity(source_images, edited_images, source_texts, target_texts).tolist()
        values = zip(
            clip_score(edited_images, source_texts).tolist(),
            clip_score(edited_images, target_texts).tolist(),
            [Undefined(UNMOVED) if isnan(value) else value for value in moved],
            strict=True,
        )
        cut, context = network.cuts(prompts), network.context
        return [
            _of_whole_prompts(
                {"clip_source": s, "clip_target": t, "clip_direction": d}, cut[i], cut[count + i], context
            )
            for i, (s, t, d) in enumerate(values)
        ]


def _of_whole_prompts(
    values: dict[str, float], source_cut: bool, target_cut: bool, context: int
) -> dict[str, float]:
    """Scores of an edit without those for which a prompt was not read to its end."""
    cut = {"clip_source": source_cut, "clip_target": target_cut, "clip_direction": source_cut or target_cut}
    reason = Undefined(f"the prompt is longer than the {context - 2} tokens that CLIP reads")
    return {name: reason if cut[name] else value for name, value in values.items()}
