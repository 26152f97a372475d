"""Measures the embedded world against its gates and draws a sample sheet.

    python experiments/world/measure.py [--model world_flow] [--samples 512] [--only oracles vae ...]

Prints one line per figure; writes results.json and sheets next to this file (or into --out), for the flow
model into flow/. Samples come from the plain diffusers pipeline, not from this project's own sampler.
Seeds of scenes and noise were never used in training. The judge is oracle B.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from torch import Tensor
from torch.nn.functional import interpolate

from p2p_bench import edit
from p2p_bench.controllers import Replace
from p2p_bench.guidance import EVERY_STEP, Interval, parse_guidance_interval
from p2p_bench.metrics.oracle import LABELS, AttributeOracle, load_oracle
from p2p_bench.models import world_checkpoint, world_flow_checkpoint
from p2p_bench.resources import resource_path
from p2p_bench.sampling import DDIMSampler
from p2p_bench.world.scenes import BACKGROUNDS, SHAPES, Scene, caption, render, sample_scene
from p2p_bench.world.scenes.textures import COLOUR_RGB
from p2p_bench.world.training.images import VALIDATION_SEEDS
from p2p_bench.world.training.pairs import crowd, through_vae
from p2p_bench.world.training.sheets import SHEET_PROMPTS, sample, write_sheet

Figures = dict[str, float]


@dataclass(frozen=True)
class Shipped:
    """A model that is shipped.

    Attributes:
        pipeline: Class of its pipeline.
        checkpoint: Its checkpoint in a directory.
        folder: Of its weights.
        steps: Of its sampler.
        edit_steps: Of an edit that is timed.
        absent: Parts that the pipeline is told it lacks.
    """

    pipeline: Any
    checkpoint: Callable[[Path], Any]
    folder: str
    steps: int
    edit_steps: int
    absent: Mapping[str, None] = field(default_factory=dict)


MODELS = {
    "world": Shipped(StableDiffusionPipeline, world_checkpoint, "pipeline", 25, 50),
    "world_flow": Shipped(
        StableDiffusion3Pipeline,
        world_flow_checkpoint,
        "pipeline_flow",
        28,
        28,
        {"text_encoder_3": None, "tokenizer_3": None},
    ),
}
JUDGES = ("oracles", "readers", "vae", "clip")
"""What does not depend on the model: both share autoencoder and judges."""
OBJECT = ("shape", "colour", "pattern")
WHOLE = ("background", "style", "weather")


class Measurement:
    """Loaded weights, and one method per row of the table."""

    def __init__(
        self,
        model: Shipped,
        weights: Path,
        samples: int,
        steps: int,
        guidance: float,
        out: Path,
        interval: Interval | None = None,
    ) -> None:
        self.model, self.weights, self.samples = model, weights, samples
        self.steps, self.guidance, self.out = steps, guidance, out
        folder = weights / model.folder
        self.pipeline = model.pipeline.from_pretrained(folder, use_safetensors=True, **model.absent)
        self.pipeline.to(torch.float32)
        self.checkpoint = model.checkpoint(folder)
        self.interval = self.checkpoint.spec().guidance_interval if interval is None else interval
        self.selecting = load_oracle(weights / "oracle_a")
        self.judge = load_oracle(weights / "oracle_b")

    def draw(self, prompts: Sequence[str], first_seed: int = 0) -> Tensor:
        """Samples one image per prompt."""
        seeds = range(VALIDATION_SEEDS + first_seed, VALIDATION_SEEDS + first_seed + len(prompts))
        return sample(self.pipeline, prompts, seeds, self.steps, self.guidance, interval=self.interval)

    def oracles(self) -> Figures:
        """Accuracy of both oracles on renders never seen."""
        scenes = _scenes(1000, 0, two_objects=0.2, styled=0.25, weathered=0.3, allow_held_out=True)
        images = render(scenes).images
        figures = {}
        for name, oracle in (("a", self.selecting), ("b", self.judge)):
            accuracy = _accuracy(oracle, images, scenes)
            figures |= {f"oracle_{name}_{attribute}": value for attribute, value in accuracy.items()}
        return figures

    def readers(self) -> Figures:
        """Both oracles on two objects in renders through the autoencoder: both right in shape and colour."""
        photos = _scenes(512, 20_000, two_objects=1.0, styled=0.0, weathered=0.0)
        rng = np.random.default_rng(0)
        figures: Figures = {}
        for kind, scenes in (("", photos), ("_crowded", [crowd(scene, rng) for scene in photos[:256]])):
            images = through_vae(self.pipeline.vae, render(scenes).images)
            for name, oracle in (("a", self.selecting), ("b", self.judge)):
                seen = [set(reading.pairs) for reading in oracle.read(images)]
                found = _found(seen, scenes)
                figures[f"reader_{name}_both{kind}"] = _mean([all(one) for one in found])
                exact = [len(pairs) == 2 and all(one) for pairs, one in zip(seen, found, strict=True)]
                figures[f"reader_{name}_exactly{kind}"] = _mean(exact)
                if not kind:
                    figures |= {
                        f"reader_{name}_{key}": value for key, value in _by_object(found, scenes).items()
                    }
        return figures

    def vae(self) -> Figures:
        """Reconstruction of held-out renders, and of bicubic shrinking by 4."""
        images = render(_scenes(256, 2000, allow_held_out=True)).images
        vae = self.pipeline.vae
        with torch.no_grad():
            latents = torch.cat([vae.encode(chunk * 2 - 1).latent_dist.mean for chunk in images.split(32)])
            decoded = torch.cat([vae.decode(chunk).sample for chunk in latents.split(32)])
        small = interpolate(images, scale_factor=0.25, mode="bicubic", antialias=True)
        bicubic = interpolate(small, scale_factor=4.0, mode="bicubic").clamp(0, 1)
        ours, theirs = _psnr(images, (decoded / 2 + 0.5).clamp(0, 1)), _psnr(images, bicubic)
        return {"vae_psnr": ours, "vae_psnr_above_bicubic": ours - theirs}

    def one_object(self) -> Figures:
        """One-object prompts of trained combinations; agreement of the oracles on them."""
        scenes = _scenes(self.samples, 4000, two_objects=0.0, styled=0.0, weathered=0.0)
        images = self.draw([caption(scene) for scene in scenes])
        write_sheet(images[:64], self.out / "sheet_one_object.png", zoom=1)
        accuracy = _accuracy(self.judge, images, scenes)
        first, second = self.selecting.read(images), self.judge.read(images)
        agreement = [a.values[n] == b.values[n] for a, b in zip(first, second, strict=True) for n in LABELS]
        figures = {f"one_object_{name}": accuracy[name] for name in (*OBJECT, "background")}
        return {**figures, "oracles_agree": sum(agreement) / len(agreement)}

    def held_out(self) -> Figures:
        """One-object prompts of combinations never trained."""
        scenes = _scenes(
            self.samples // 2, 8000, two_objects=0.0, styled=0.0, weathered=0.0, only_held_out=True
        )
        accuracy = _accuracy(self.judge, self.draw([caption(s) for s in scenes], 10_000), scenes)
        return {f"held_out_{name}": accuracy[name] for name in (*OBJECT, "background")}

    def styles_and_weathers(self) -> Figures:
        """Prompts that name a style, and others that name a weather."""
        styled = _scenes(self.samples // 4, 10_000, two_objects=0.0, styled=1.0, weathered=0.0)
        weathered = _scenes(self.samples // 4, 12_000, two_objects=0.0, styled=0.0, weathered=1.0)
        images = self.draw([caption(scene) for scene in (*styled, *weathered)], 20_000)
        write_sheet(images[-32:], self.out / "sheet_weather.png", zoom=1)
        return {
            "style": _accuracy(self.judge, images[: len(styled)], styled)["style"],
            "weather": _accuracy(self.judge, images[len(styled) :], weathered)["weather"],
        }

    def two_objects(self) -> Figures:
        """Two-object prompts: both right in shape and colour."""
        scenes = _scenes(self.samples // 2, 14_000, two_objects=1.0, styled=0.0, weathered=0.0)
        images = self.draw([caption(scene) for scene in scenes], 30_000)
        write_sheet(images[:32], self.out / "sheet_two_objects.png", zoom=1)
        asked = [{(item.shape, item.colour) for item in scene.objects} for scene in scenes]
        seen = [set(reading.pairs) for reading in self.judge.read(images)]
        return {"two_objects_both": _mean([a <= b for a, b in zip(asked, seen, strict=True)])}

    def spread(self) -> Figures:
        """Where 64 seeds put the object of one prompt, and how much fog they draw."""
        images = self.draw(["a red circle on grass"] * 64, 40_000)
        red = torch.tensor(COLOUR_RGB["red"]).view(1, 3, 1, 1)
        near = ((images - red).square().sum(1) < 0.1).float()
        places = torch.linspace(0.5 / 64, 1 - 0.5 / 64, 64)
        area = near.sum((1, 2)).clamp(min=1)
        x, y = (near.sum(1) * places).sum(1) / area, (near.sum(2) * places).sum(1) / area
        figures = {"centre_std_x": float(x.std()), "centre_std_y": float(y.std())}
        for number, weather in enumerate(("fog", "snow")):
            drawn = self.draw([f"a blue square on grass in {weather}"] * 64, 50_000 + 1000 * number)
            strength = torch.tensor([reading.weather_strength for reading in self.judge.read(drawn)])
            low, high = strength.quantile(torch.tensor([0.025, 0.975])).tolist()
            figures[f"{weather}_span"] = (high - low) / 0.8
        return figures

    def clip(self) -> Figures:
        """Caption retrieval among 64 scenes, canonical captions."""
        name = f"local-dir:{self.weights / 'clip'}"
        model, _, _ = open_clip.create_model_and_transforms(name, require_pretrained=True)
        tokenizer, hits = open_clip.get_tokenizer(name), []
        model.eval()
        for block in range(10):
            scenes = _distinct(_scenes(90, 16_000 + 100 * block, allow_held_out=True))[:64]
            with torch.no_grad():
                image = model.encode_image(render(scenes).images * 2 - 1, normalize=True)
                text = model.encode_text(tokenizer([caption(scene) for scene in scenes]), normalize=True)
            hits += (image @ text.T).argmax(1).eq(torch.arange(len(scenes))).tolist()
        return {"clip_top1_of_64": _mean(hits)}

    def heatmaps(self) -> Figures:
        """Heatmaps of shape and background words against the object, found by its colour."""
        model = self.checkpoint.load("cpu", torch.float32)
        shape_scores, background_scores = [], []
        for number, (shape, background) in enumerate(zip(SHAPES * 2, BACKGROUNDS * 3, strict=False)):
            colour = ("red", "yellow", "purple", "pink")[number % 4]
            prompt = f"a {colour} {shape} on {background}"
            result = edit(
                model,
                prompt,
                [prompt],
                seed=number,
                steps=self.steps,
                guidance=self.guidance,
                sampler=DDIMSampler(guidance_interval=self.interval),
                record=True,
            )
            goal = torch.tensor(COLOUR_RGB[colour]).view(3, 1, 1)
            inside = (result.images[0] - goal).square().sum(0) < 0.1
            if inside.any():
                shape_scores.append(_auc(result.heatmap(shape, 0), inside))
                background_scores.append(_auc(result.heatmap(background, 0), inside))
        count = len(shape_scores)
        ours, theirs = sum(shape_scores) / count, sum(background_scores) / count
        return {"heatmap_auc": ours, "heatmap_auc_above_background": ours - theirs}

    def latency(self) -> Figures:
        """Seconds of an edit, source and one target: median of seven, after a first one."""
        model = self.checkpoint.load("cpu", torch.float32)
        seconds, steps = [], self.model.edit_steps
        for _ in range(8):
            started = time.perf_counter()
            edit(model, "a red circle on grass", ["a blue circle on grass"], Replace(0.8, 0.4), steps=steps)
            seconds.append(time.perf_counter() - started)
        return {"edit_seconds": statistics.median(seconds[1:]), "threads": torch.get_num_threads()}

    def sheet(self) -> Figures:
        """Draws the fixed prompts; no figures."""
        write_sheet(self.draw(SHEET_PROMPTS, 60_000), self.out / "sheet.png")
        return {}


def _scenes(count: int, offset: int, **shares: float | bool) -> list[Scene]:
    return [sample_scene(VALIDATION_SEEDS + offset + i, **shares) for i in range(count)]  # type: ignore[arg-type]  # shares mixes floats and bools


def _found(seen: Sequence[set[tuple[str, str]]], scenes: Sequence[Scene]) -> list[list[bool]]:
    """Whether each object of each scene is among the pairs that were read."""
    return [
        [(item.shape, item.colour) in pairs for item in scene.objects]
        for pairs, scene in zip(seen, scenes, strict=True)
    ]


def _by_object(found: Sequence[Sequence[bool]], scenes: Sequence[Scene]) -> Figures:
    """Share of the objects that are found, by shape, pattern and size."""
    groups: dict[str, list[bool]] = {}
    for hits, scene in zip(found, scenes, strict=True):
        for hit, item in zip(hits, scene.objects, strict=True):
            size = "small" if item.size < 0.38 else "middle" if item.size < 0.42 else "large"
            for key in (item.shape, item.pattern, size):
                groups.setdefault(key, []).append(hit)
    return {key: _mean(hits) for key, hits in sorted(groups.items())}


def _distinct(scenes: Sequence[Scene]) -> list[Scene]:
    return list({caption(scene): scene for scene in scenes}.values())


def _mean(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits)


def _auc(heat: Tensor, inside: Tensor) -> float:
    """Chance that a pixel inside is hotter than one outside (area under the ROC curve)."""
    size = inside.shape
    heat = interpolate(heat[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    order = heat.flatten().argsort()
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(1, order.numel() + 1)
    hot, cold = int(inside.sum()), int((~inside).sum())
    return float((ranks[inside.flatten()].sum() - hot * (hot + 1) / 2) / (hot * cold))


def _psnr(first: Tensor, second: Tensor) -> float:
    return float((-10 * (first - second).square().mean((1, 2, 3)).log10()).mean())


def _accuracy(oracle: AttributeOracle, images: Tensor, scenes: Sequence[Scene]) -> Figures:
    """Share of images in which each attribute reads as in the scene; object attributes where there is one."""
    readings = oracle.read(images)
    pairs = list(zip(readings, scenes, strict=True))
    alone = [(reading, scene) for reading, scene in pairs if len(scene.objects) == 1]
    figures = {n: _mean([r.values[n] == getattr(s.objects[0], n) for r, s in alone]) for n in OBJECT}
    figures |= {n: _mean([r.values[n] == getattr(s, n) for r, s in pairs]) for n in WHOLE}
    exact = [set(r.pairs) == {(o.shape, o.colour) for o in s.objects} for r, s in pairs]
    return {**figures, "pairs": _mean(exact)}


def main() -> None:
    """Runs the chosen measurements."""
    methods = (
        "sheet",
        "oracles",
        "readers",
        "vae",
        "one_object",
        "held_out",
        "styles_and_weathers",
        "two_objects",
    )
    methods += ("spread", "clip", "heatmaps", "latency")
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="world")
    parser.add_argument("--weights", type=Path, default=resource_path("p2p_bench", "world", "weights"))
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--steps", type=int, help="the model's own, unless given")
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument(
        "--guidance-interval", type=float, nargs=2, help="parts of the steps; the model's own, unless given"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="this folder, or flow/ in it, unless given")
    parser.add_argument("--only", nargs="+", choices=methods, help="unless given, all that the model decides")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, is_first = MODELS[options.model], options.model == "world"
    out = options.out or (here if is_first else here / "flow")
    out.mkdir(parents=True, exist_ok=True)
    steps = options.steps or model.steps
    given = options.guidance_interval
    interval = None if given is None else parse_guidance_interval(given)
    measurement = Measurement(model, options.weights, options.samples, steps, options.guidance, out, interval)
    results: Figures = {}
    for name in options.only or [name for name in methods if is_first or name not in JUDGES]:
        started = time.monotonic()
        method: Callable[[], Figures] = getattr(measurement, name)
        figures = method()
        results |= figures
        for key, value in figures.items():
            print(f"{key:28s} {value:8.3f}", flush=True)
        print(f"  {name}: {time.monotonic() - started:.0f} s", flush=True)
    settings: dict[str, Any] = {"samples": options.samples, "steps": steps, "guidance": options.guidance}
    if measurement.interval != EVERY_STEP:
        settings["guidance_interval"] = list(measurement.interval)
    file = out / "results.json"
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if before.get("settings") == settings:  # a part measured anew
        results = before["figures"] | results
    text = json.dumps({"settings": settings, "figures": results}, indent=2) + "\n"
    file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
