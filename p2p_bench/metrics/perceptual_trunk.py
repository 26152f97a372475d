"""The trunk of the world's LPIPS: five convolution stages, trained on renders."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from p2p_bench.errors import MissingWeightsError
from p2p_bench.weights import load_weights, readable

CONFIG, WEIGHTS = "config.json", "model.safetensors"


class PerceptualTrunk(nn.Module):
    """Five stages of convolution and ReLU, after AlexNet, for small images.

    Args:
        widths: channels of the five stages; the second and the third halve the side.
    """

    def __init__(self, widths: Sequence[int] = (32, 64, 96, 96, 64)) -> None:
        super().__init__()
        self.widths = tuple(widths)
        strides = (2, 2, 2, 1, 1)
        kernels = (5, 3, 3, 3, 3)
        inputs = (3, *self.widths[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, kernel, stride, kernel // 2), nn.ReLU())
            for a, b, kernel, stride in zip(inputs, self.widths, kernels, strides, strict=True)
        )

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> list[Tensor]:
        """Features of each stage for images in [0, 1]."""
        x, features = images * 2 - 1, []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


def perceptual_distance(
    trunk: PerceptualTrunk, first: Float[Tensor, "n 3 h w"], second: Float[Tensor, "n 3 h w"]
) -> Float[Tensor, " n"]:
    """LPIPS distance (Zhang et al. 2018, eq. 1) with equal channel weights.

    Features are scaled to unit length over channels at each place; the squared differences are
    averaged over places and summed over the stages. 0 for equal images; larger is less alike.
    """
    total = torch.zeros(len(first), dtype=first.dtype, device=first.device)
    for a, b in zip(trunk(first), trunk(second), strict=True):
        a, b = (x / (x.norm(dim=1, keepdim=True) + 1e-8) for x in (a, b))
        total = total + (a - b).square().sum(1).mean((1, 2))
    return total


def load_trunk(path: Path | str) -> PerceptualTrunk:
    """Loads a trunk from a directory with config.json and model.safetensors.

    Raises:
        MissingWeightsError: if a file is absent, cut short, or does not hold the trunk's weights.
    """
    folder = Path(path)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise MissingWeightsError(
                f"no LPIPS trunk at {folder}: {name} is missing; `p2p-bench train-world` makes it"
            )

    def build() -> PerceptualTrunk:
        with torch.random.fork_rng(devices=[]):  # building draws random weights; nobody else may notice
            return PerceptualTrunk(**json.loads((folder / CONFIG).read_text(encoding="utf-8")))

    trunk = readable(build, "LPIPS trunk", folder / CONFIG)
    state = readable(lambda: load_file(folder / WEIGHTS), "LPIPS trunk", folder / WEIGHTS)
    load_weights(trunk, {name: value.float() for name, value in state.items()}, f"LPIPS trunk ({folder})")
    return trunk.eval()
