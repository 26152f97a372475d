"""The network behind all columns of LPIPS: each image goes through it once, whatever columns ask."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from p2p_bench.metrics.networks import Memo, content
from p2p_bench.metrics.perceptual_trunk import PerceptualTrunk

_BATCH = 32
_MEMORY = 2**30
"""Bytes of features that are kept beyond those in use."""

Image = Float[Tensor, "3 h w"]
Layers = tuple[Float[Tensor, "_ _ _"], ...]
"""Features of one image by layer, of unit length over channels at each place."""


class LpipsNetwork:
    """A trunk and its heads.

    Args:
        module: The network of the `lpips` package, or a `PerceptualTrunk`, which weighs all channels alike.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.device = next(module.parameters()).device
        self._memo = Memo[Layers](0)

    def to(self, device: torch.device) -> None:
        """Moves the network."""
        if self.device != device:
            self.module, self.device = self.module.to(device), device
            self._memo.clear()

    def features(self, images: Sequence[Image]) -> list[Layers]:
        """Features of images in [0, 1]; equal images go through the network once."""

        def compute(places: list[int]) -> list[Layers]:
            by_size: dict[torch.Size, list[int]] = defaultdict(list)
            for place in places:
                by_size[images[place].shape].append(place)
            made: dict[int, Layers] = {}
            for group in by_size.values():
                for start in range(0, len(group), _BATCH):
                    part = group[start : start + _BATCH]
                    layers = layer_features(self.module, torch.stack([images[place] for place in part]))
                    made |= dict(zip(part, zip(*layers, strict=True), strict=True))
            for layers_of_one in made.values():
                weight = sum(layer.nbytes for layer in layers_of_one)
                self._memo.size = max(1, _MEMORY // max(1, weight))
            return [made[place] for place in places]

        return self._memo([content(image) for image in images], compute)

    def distances(self, pairs: Sequence[tuple[Image, Image]]) -> list[float]:
        """LPIPS of each pair of images (Zhang et al. 2018, eq. 1); 0 is equal."""
        found = [self._layers(pair) for pair in zip(*self._both(pairs), strict=True)]
        # The mean over places, summed over layers.
        return [float(torch.stack([layer.mean() for layer in layers]).sum()) for layers in found]

    def maps(self, pairs: Sequence[tuple[Image, Image]]) -> list[Float[Tensor, "h w"]]:
        """LPIPS by pixel of each pair, see `distance_map`."""
        found = zip(pairs, *self._both(pairs), strict=True)
        return [_enlarged(self._layers((x, y)), a.shape[-2:])[0] for (a, _), x, y in found]

    def _both(self, pairs: Sequence[tuple[Image, Image]]) -> tuple[list[Layers], list[Layers]]:
        features = self.features([image for pair in pairs for image in pair])
        return features[::2], features[1::2]

    def _layers(self, pair: tuple[Layers, Layers]) -> list[Float[Tensor, "1 1 _ _"]]:
        heads = heads_of(self.module)
        return [head((x - y).square()[None]) for x, y, head in zip(pair[0], pair[1], heads, strict=True)]


def layer_features(module: nn.Module, images: Float[Tensor, "n 3 h w"]) -> list[Float[Tensor, "n _ _ _"]]:
    """Features of images in [0, 1] by layer, of unit length over channels at each place."""
    package: Any = module
    if isinstance(module, PerceptualTrunk):
        features, least = module(images), 1e-8
    else:
        features, least = package.net(package.scaling_layer(images * 2 - 1)), 1e-10
    return [f / (f.square().sum(1, keepdim=True).sqrt() + least) for f in features]


def heads_of(module: nn.Module) -> list[Any]:
    """What makes one number a place of the squared differences of a layer."""
    if isinstance(module, PerceptualTrunk):
        return [_summed] * len(module.stages)
    return [getattr(module, f"lin{layer}") for layer in range(cast(Any, module).L)]


def distance_map(
    module: nn.Module, a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]
) -> Float[Tensor, "n h w"]:
    """LPIPS by pixel: the distance of each layer, resized to the images (bilinear), summed over layers.

    Args:
        module: As of `LpipsNetwork`.
        a: Images in [0, 1].
        b: Images in [0, 1].
    """
    features = [layer_features(module, images) for images in (a, b)]
    layers = [head((x - y).square()) for x, y, head in zip(*features, heads_of(module), strict=True)]
    return _enlarged(layers, a.shape[-2:])


def _enlarged(layers: Sequence[Float[Tensor, "n 1 _ _"]], size: torch.Size) -> Float[Tensor, "n h w"]:
    total = torch.zeros(len(layers[0]), *size, dtype=layers[0].dtype, device=layers[0].device)
    for layer in layers:
        total = total + interpolate(layer, size=size, mode="bilinear", align_corners=False)[:, 0]
    return total


def _summed(squares: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 h w"]:
    return squares.sum(1, keepdim=True)
