"""Trains the attribute oracles and the LPIPS trunk, on renders only."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from p2p_bench.metrics.oracle import CONFIG, LABELS, WEIGHTS, AttributeOracle, OracleConfig
from p2p_bench.metrics.perceptual_trunk import PerceptualTrunk
from p2p_bench.world.scenes import COLOURS, SHAPES, Scene
from p2p_bench.world.training.images import JUDGE_SEEDS, random_rows, render_bytes, to_float, training_scenes
from p2p_bench.world.training.runner import adamw, fit

IGNORED = -100


@dataclasses.dataclass(frozen=True)
class JudgeRecipe:
    """How a judge is trained.

    Attributes:
        steps: optimiser steps.
        batch: images a step.
        learning_rate: peak of the schedule.
        num_images: rendered images.
        first_seed: offset of the training scenes' seeds, another one for each judge.
    """

    steps: int = 5000
    batch: int = 64
    learning_rate: float = 3e-3
    num_images: int = 24_000
    first_seed: int = 0


class Labels(NamedTuple):
    """Targets of images: class indices per attribute, pairs present, weather density and its use."""

    classes: Tensor
    pairs: Tensor
    strength: Tensor


def labels_of(scenes: Sequence[Scene]) -> Labels:
    """Labels of scenes; the object's attributes are ignored where there are two objects."""
    classes, pairs, strength = [], torch.zeros(len(scenes), len(SHAPES), len(COLOURS)), []
    for row, scene in enumerate(scenes):
        first, alone = scene.objects[0], len(scene.objects) == 1
        values = {name: getattr(first, name) if alone else None for name in ("shape", "colour", "pattern")}
        values |= {name: getattr(scene, name) for name in ("background", "style", "weather")}
        classes.append(
            [IGNORED if values[n] is None else words.index(values[n]) for n, words in LABELS.items()]
        )
        for item in scene.objects:
            pairs[row, SHAPES.index(item.shape), COLOURS.index(item.colour)] = 1
        strength.append(0.0 if scene.weather == "clear" else scene.weather_strength)
    return Labels(torch.tensor(classes), pairs.flatten(1), torch.tensor(strength))


def judge_loss(logits: dict[str, Tensor], labels: Labels) -> Tensor:
    """Sum of the heads' losses."""
    total = sum(
        functional.cross_entropy(logits[name], labels.classes[:, i], ignore_index=IGNORED)
        for i, name in enumerate(LABELS)
    )
    pairs = functional.binary_cross_entropy_with_logits(logits["pairs"], labels.pairs, reduction="sum") / len(
        labels.pairs
    )
    strength = functional.binary_cross_entropy_with_logits(logits["strength"], labels.strength)
    return total + 0.3 * pairs + strength


def roughen(images: Float[Tensor, "n 3 h w"], generator: torch.Generator) -> Float[Tensor, "n 3 h w"]:
    """Blur, noise and small colour shifts, so that a judge also reads imperfect pictures."""
    count = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    grid = torch.arange(-2, 3, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (grid / float(uniform(0.25, 0.9)[0])) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    blurred = functional.conv2d(functional.pad(images, (2, 2, 2, 2), mode="reflect"), kernel, groups=3)
    blurred = functional.conv2d(blurred, kernel.transpose(2, 3), groups=3)
    images = torch.lerp(images, blurred, (uniform(0.0, 1.0, 1, 1, 1) < 0.6).float())
    images = images * uniform(0.93, 1.07, 3, 1, 1) + uniform(-0.04, 0.04, 1, 1, 1)
    noise = torch.randn(images.shape, generator=generator) * uniform(0.0, 0.04, 1, 1, 1)
    return (images + noise).clamp(0, 1)


class _TrunkClassifier(nn.Module):
    """Heads over all stages of a trunk, so that each stage learns something of use."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = PerceptualTrunk()
        features = 2 * sum(self.trunk.widths[2:])
        sizes = {name: len(words) for name, words in LABELS.items()}
        sizes |= {"pairs": len(SHAPES) * len(COLOURS), "strength": 1}
        self.heads = nn.ModuleDict({name: nn.Linear(features, size) for name, size in sizes.items()})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        stages = self.trunk(images)[2:]
        pooled = torch.cat([s.mean((2, 3)) for s in stages] + [s.amax((2, 3)) for s in stages], dim=1)
        logits = {name: head(pooled) for name, head in self.heads.items()}
        return {**logits, "strength": logits["strength"][:, 0]}


class JudgeModule(lightning.LightningModule):
    """Multi-task classification of roughened renders."""

    def __init__(self, network: nn.Module, recipe: JudgeRecipe) -> None:
        super().__init__()
        self.network, self.recipe = network.to(memory_format=torch.channels_last), recipe

    def training_step(self, batch: tuple[Tensor, Labels], batch_idx: int) -> Tensor:
        """Loss of one batch."""
        images, labels = batch
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.network(images)
        return judge_loss({name: value.float() for name, value in logits.items()}, labels)

    def configure_optimizers(self) -> Any:
        """Optimiser and schedule of the recipe."""
        steps = self.recipe.steps
        return adamw(
            self.network, self.recipe.learning_rate, steps, min(200, steps // 4 + 1), weight_decay=0.02
        )


def _train(network: nn.Module, recipe: JudgeRecipe, name: str, out_dir: Path, device: str, seed: int) -> None:
    shares = {"two_objects": 0.25, "styled": 0.25, "weathered": 0.3, "allow_held_out": True}

    def prepare() -> Callable[[int], tuple[Tensor, Labels]]:
        scenes = training_scenes(recipe.num_images, JUDGE_SEEDS + recipe.first_seed, **shares)
        images, labels = render_bytes(scenes), labels_of(scenes)

        def make_batch(step: int) -> tuple[Tensor, Labels]:
            rows = random_rows(len(images), recipe.batch, seed, step)
            generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
            chosen = Labels(*(value[rows] for value in labels))
            return roughen(to_float(images[rows]), generator), chosen

        return make_batch

    module = JudgeModule(network, recipe)
    fit(module, prepare, name=name, steps=recipe.steps, out_dir=out_dir, device=device)
    network.to(memory_format=torch.contiguous_format).cpu().eval()


def train_oracle(
    config: OracleConfig, recipe: JudgeRecipe, name: str, out_dir: Path, device: str = "cpu", seed: int = 0
) -> AttributeOracle:
    """Trains, or resumes, or just loads an oracle."""
    lightning.seed_everything(seed, verbose=False)
    oracle = AttributeOracle(config)
    _train(oracle, recipe, name, out_dir, device, seed)
    return oracle


def train_trunk(recipe: JudgeRecipe, out_dir: Path, device: str = "cpu", seed: int = 0) -> PerceptualTrunk:
    """Trains, or resumes, or just loads the LPIPS trunk."""
    lightning.seed_everything(seed, verbose=False)
    classifier = _TrunkClassifier()
    _train(classifier, recipe, "lpips", out_dir, device, seed)
    return classifier.trunk


def save_judge(network: nn.Module, settings: dict[str, Any], out_dir: Path) -> None:
    """Writes config.json and model.safetensors in half precision."""
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in network.state_dict().items()
    }
    save_file(state, out_dir / WEIGHTS)
