"""Attribute classifiers of the embedded world: what an image shows, judged without its caption.

Two of them are shipped, of different shape and seed, both trained on renders only: one selects,
the other judges.
"""

import dataclasses
import json
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from p2p_bench.errors import MissingWeightsError
from p2p_bench.weights import load_weights, readable
from p2p_bench.world.scenes import BACKGROUNDS, COLOURS, PATTERNS, SHAPES, STYLES, WEATHERS

CONFIG, WEIGHTS = "config.json", "model.safetensors"

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
    """

    widths: tuple[int, int, int] = (32, 64, 128)
    depth: int = 1
    kernel: int = 5
    residual: bool = False


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


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class AttributeOracle(nn.Module):
    """A small convolutional classifier with one head per attribute."""

    def __init__(self, config: OracleConfig) -> None:
        super().__init__()
        self.config = config
        inputs = (3, *config.widths[:-1])
        kernels = (config.kernel, 3, 3)
        self.levels = nn.Sequential(
            *(
                _Level(a, b, config.depth, kernel, config.residual)
                for a, b, kernel in zip(inputs, config.widths, kernels, strict=True)
            )
        )
        features = 2 * config.widths[-1]
        self.heads = nn.ModuleDict({name: nn.Linear(features, len(words)) for name, words in LABELS.items()})
        self.pairs = nn.Conv2d(config.widths[-1], len(SHAPES) * len(COLOURS), 1)
        assert self.pairs.bias is not None
        nn.init.constant_(self.pairs.bias, -4.0)  # most combinations are absent
        self.strength = nn.Linear(features, 1)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> dict[str, Tensor]:
        """Logits for images in [0, 1].

        Returns:
            One entry (n, number of values) per attribute of `LABELS`; `pairs` (n, shapes x colours),
            a logit per combination, shape-major; `strength` (n,), the logit of the weather's density.
        """
        x = self.levels(images * 2 - 1)
        features = torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)
        logits = {name: head(features) for name, head in self.heads.items()}
        # Read place by place, so that a shape goes with the colour that is in the same place.
        pairs = self.pairs(x).amax((2, 3))
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
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        with torch.random.fork_rng(devices=[]):  # building draws random weights; nobody else may notice
            return AttributeOracle(OracleConfig(**{**settings, "widths": tuple(settings["widths"])}))

    oracle = readable(build, "oracle", folder / CONFIG)
    state = readable(lambda: load_file(folder / WEIGHTS), "oracle", folder / WEIGHTS)
    load_weights(
        oracle, {name: value.to(torch.float32) for name, value in state.items()}, f"oracle ({folder})"
    )
    return oracle.eval()
