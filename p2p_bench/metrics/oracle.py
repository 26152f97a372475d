"""Attribute classifiers of the embedded world: what an image shows, judged without its caption.

Two of them are shipped, of different shape and seed, both trained on renders only: one selects,
the other judges.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from p2p_bench.errors import MissingWeightsError
from p2p_bench.weights import load_weights, readable
from p2p_bench.world.scenes import BACKGROUNDS, COLOURS, PATTERNS, SHAPES, STYLES, WEATHERS

CONFIG, WEIGHTS = "config.json", "model.safetensors"
ERRORS = "errors"
"""Key of the reading errors in an oracle's configuration."""

PAIRS = "pairs"
"""Name of the reading of two objects, beside the attributes of `LABELS`."""

ReadingErrors = Mapping[str, Mapping[str, float]]
"""By style or weather, then by attribute of `LABELS` or `PAIRS`: the share that an oracle misreads of renders
that have passed through the model's autoencoder; pairs count where it does not find both objects."""

_SHIFT = 2

LABELS: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "pattern": PATTERNS,
    "background": BACKGROUNDS,
    "style": STYLES,
    "weather": WEATHERS,
}


@dataclasses.dataclass(frozen=True)
class OracleConfig:
    """Size of an oracle.

    Attributes:
        widths: channels at 1/2, 1/4 and 1/8 of the image side.
        depth: convolutions per level after the first.
        kernel: kernel of the first convolution, odd.
        residual: whether the convolutions of a level are residual.
        own_pairs: whether a `PairReader` of the same size reads the pairs.
    """

    widths: tuple[int, int, int] = (32, 64, 128)
    depth: int = 1
    kernel: int = 5
    residual: bool = False
    own_pairs: bool = False


@dataclasses.dataclass(frozen=True)
class OracleReading:
    """What an oracle sees in one image.

    Attributes:
        values: best value of each attribute in `LABELS`; shape, colour and pattern are those of the
            only object and mean little where there are two.
        confidence: the probability of each of these values.
        weather_strength: density of fog or snow in [0, 1].
        pairs: every (shape, colour) seen with probability above one half, likeliest first.
    """

    values: dict[str, str]
    confidence: dict[str, float]
    weather_strength: float
    pairs: tuple[tuple[str, str], ...]


class _Level(nn.Module):
    def __init__(self, inputs: int, width: int, depth: int, kernel: int, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.first = _convolution(inputs, width, kernel, stride=2)
        self.rest = nn.ModuleList(_convolution(width, width, 3, stride=1) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.rest:
            x = x + layer(x) if self.residual else layer(x)
        return x


def _levels(config: OracleConfig) -> nn.Sequential:
    inputs, kernels = (3, *config.widths[:-1]), (config.kernel, 3, 3)
    return nn.Sequential(
        *(
            _Level(a, b, config.depth, kernel, config.residual)
            for a, b, kernel in zip(inputs, config.widths, kernels, strict=True)
        )
    )


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _pair_head(config: OracleConfig) -> nn.Conv2d:
    """Reads place by place, so that a shape goes with the colour that is in the same place."""
    head = nn.Conv2d(config.widths[-1], len(SHAPES) * len(COLOURS), 1)
    assert head.bias is not None
    nn.init.constant_(head.bias, -4.0)  # most combinations are absent
    return head


class PairReader(nn.Module):
    """Every combination of shape and colour in an image, by levels that read nothing else."""

    def __init__(self, config: OracleConfig) -> None:
        super().__init__()
        self.levels, self.head = _levels(config), _pair_head(config)

    def forward(self, signed: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n p"]:
        """A logit per combination, shape-major, for images in [-1, 1]."""
        logits: Tensor = self.head(self.levels(signed)).amax((2, 3))
        return logits

    def read_shifted(self, signed: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n p"]:
        """The mean over small shifts: strides of eight pixels see a small shape otherwise a bit further."""
        height, width = signed.shape[-2:]
        padded = functional.pad(signed, (_SHIFT,) * 4, mode="reflect")
        corners = [(down, right) for down in (0, 2 * _SHIFT) for right in (0, 2 * _SHIFT)]
        views = [padded[..., y : y + height, x : x + width] for y, x in [(_SHIFT, _SHIFT), *corners]]
        return torch.stack([self(view) for view in views]).mean(0)


class AttributeOracle(nn.Module):
    """A small convolutional classifier with one head per attribute."""

    def __init__(self, config: OracleConfig) -> None:
        super().__init__()
        self.config = config
        self.levels = _levels(config)
        features = 2 * config.widths[-1]
        self.heads = nn.ModuleDict({name: nn.Linear(features, len(words)) for name, words in LABELS.items()})
        self.pairs = _pair_head(config)
        self.pair_reader = PairReader(config) if config.own_pairs else None
        self.strength = nn.Linear(features, 1)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> dict[str, Tensor]:
        """Logits for images in [0, 1].

        Returns:
            One entry (n, number of values) per attribute of `LABELS`; `pairs` (n, shapes x colours),
            a logit per combination, shape-major; `strength` (n,), the logit of the weather's density.
        """
        signed = images * 2 - 1
        x = self.levels(signed)
        features = torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)
        logits = {name: head(features) for name, head in self.heads.items()}
        pairs = (
            self.pairs(x).amax((2, 3)) if self.pair_reader is None else self.pair_reader.read_shifted(signed)
        )
        return {**logits, "pairs": pairs, "strength": self.strength(features)[:, 0]}

    @torch.no_grad()
    def read(self, images: Float[Tensor, "n 3 h w"], batch: int = 64) -> list[OracleReading]:
        """Reads the attributes of images in [0, 1]."""
        readings: list[OracleReading] = []
        for start in range(0, len(images), batch):
            logits = self(images[start : start + batch])
            readings += [
                _reading({name: value[i] for name, value in logits.items()})
                for i in range(len(logits["strength"]))
            ]
        return readings


def _reading(logits: dict[str, Tensor]) -> OracleReading:
    values, confidence = {}, {}
    for name, words in LABELS.items():
        probability, index = logits[name].softmax(-1).max(-1)
        values[name], confidence[name] = words[int(index)], float(probability)
    order = logits["pairs"].argsort(descending=True).tolist()
    seen = [index for index in order if logits["pairs"][index] > 0]
    return OracleReading(
        values=values,
        confidence=confidence,
        weather_strength=float(logits["strength"].sigmoid()),
        pairs=tuple((SHAPES[index // len(COLOURS)], COLOURS[index % len(COLOURS)]) for index in seen),
    )


def load_oracle(path: Path | str) -> AttributeOracle:
    """Loads an oracle from a directory with config.json and model.safetensors.

    Raises:
        MissingWeightsError: if a file is absent, cut short, or does not hold the oracle's weights.
    """
    folder = Path(path)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise MissingWeightsError(
                f"no oracle at {folder}: {name} is missing; `p2p-bench train-world` makes it"
            )

    def build() -> AttributeOracle:
        settings = _settings(folder)
        settings.pop(ERRORS, None)
        with torch.random.fork_rng(devices=[]):  # building draws random weights; nobody else may notice
            return AttributeOracle(OracleConfig(**{**settings, "widths": tuple(settings["widths"])}))

    oracle = readable(build, "oracle", folder / CONFIG)
    state = readable(lambda: load_file(folder / WEIGHTS), "oracle", folder / WEIGHTS)
    load_weights(
        oracle, {name: value.to(torch.float32) for name, value in state.items()}, f"oracle ({folder})"
    )
    return oracle.eval()


def reading_errors(path: Path | str) -> ReadingErrors:
    """How often the oracle in a directory misreads; empty where nobody measured it."""
    folder = Path(path)
    return _settings(folder).get(ERRORS, {}) if (folder / CONFIG).is_file() else {}


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    settings = readable(lambda: json.loads(file.read_text(encoding="utf-8")), "oracle", file)
    if not isinstance(settings, dict):
        raise MissingWeightsError(f"oracle: {file} holds no JSON object; get it again")
    return settings
