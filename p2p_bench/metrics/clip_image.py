"""CLIP of pictures: how like the source the edited image is, and how like the prompt what was edited is."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from p2p_bench.metrics.base import EditView, MetricColumn, Undefined
from p2p_bench.metrics.clip import check_backbone, clip_score
from p2p_bench.metrics.clip_backbone import ClipNetwork, locate_clip, shared_clip
from p2p_bench.metrics.embedded import WORLD
from p2p_bench.metrics.masks import divided
from p2p_bench.metrics.networks import NetworkMetric


class ClipImage(NetworkMetric[ClipNetwork]):
    """CLIP-I, and CLIP of the edited region.

    `clip_image` is the cosine between the features of source and edited image. `clip_target_inside` scores
    the edited image, black outside the mask, against the target prompt; it is undefined where the mask is
    unknown, empty or covers everything, and where the prompt is too long.

    Args:
        backbone: Label of the network, as of `ClipScore`.
        model: Architecture of open_clip; see `locate_clip`.
        weights: Folder, safetensors file or tag of open_clip; see `locate_clip`.

    Raises:
        ConfigError: The label "world" with other weights, or another label without any.
    """

    def __init__(
        self, backbone: str = WORLD, model: str | None = None, weights: str | Path | None = None
    ) -> None:
        check_backbone("metrics.clip_image", backbone, model, weights)
        self.backbone = backbone
        self.model = model
        self.weights = weights

    @property
    def columns(self) -> tuple[MetricColumn, ...]:
        """`clip_image` and `clip_target_inside`."""
        name = self.backbone
        image, inside = f"CLIP-I to the source ({name})", f"CLIP to target inside the mask ({name})"
        return (
            MetricColumn("clip_image", True, "cosine", image, 1, name, "fidelity", range=(-1, 1)),
            MetricColumn(
                "clip_target_inside", True, "100 x cosine", inside, 1, name, "editability", range=(-100, 100)
            ),
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
        images = [view.source for view in views] + [view.edited for view in views]
        source, edited = torch.split(network.image_features(images), len(views))
        alike = cosine_similarity(source, edited, dim=-1).clamp(-1, 1).tolist()
        inside = self._inside(network, views)
        return [
            {"clip_image": image, "clip_target_inside": region}
            for image, region in zip(alike, inside, strict=True)
        ]

    def _inside(self, network: ClipNetwork, views: Sequence[EditView]) -> list[float]:
        regions = [divided(view) for view in views]
        cut = network.cuts([view.target_prompt for view in views])
        long = Undefined(f"the prompt is longer than the {network.context - 2} tokens that CLIP reads")
        values: list[float] = []
        for view, region, too_long in zip(views, regions, cut, strict=True):
            if isinstance(region, Undefined) or too_long:
                values.append(region if isinstance(region, Undefined) else long)
                continue
            black: Tensor = view.edited * region["inside"]
            picture, text = network.image_features([black]), network.text_features([view.target_prompt])
            values.append(clip_score(picture, text).item())
        return values
