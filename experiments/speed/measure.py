"""Times an edit against plain sampling of the same two images, all in one run.

    python experiments/speed/measure.py [--rounds 15] [--steps 50]

Prints a table of ratios to plain diffusers sampling and writes it to results.md beside this file.
Every round times each way once, in an order that changes from round to round; ratios are taken within
a round, so whatever else the machine does meets all ways alike.
"""

import argparse
import importlib.util
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

import p2p_bench as p2p
from p2p_bench.resources import resource_path

HERE = Path(__file__).resolve().parent
SOURCE, SWAPPED, LONGER = "a red circle on grass", "a blue circle on grass", "a red striped circle on grass"
CROSS, SELF, GUIDANCE, SEED = 0.8, 0.4, 4.0, 7


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args()
    ways = make_ways(arguments.steps)
    for way in ways.values():
        way()  # warm up
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    shuffled, rng = list(ways), random.Random(0)
    for _ in range(arguments.rounds):
        rng.shuffle(shuffled)
        for name in shuffled:
            started = time.perf_counter()
            ways[name]()
            seconds[name].append(time.perf_counter() - started)
    text = table(seconds, arguments.steps)
    (HERE / "results.md").write_text(text, encoding="utf-8")
    print(text)


def make_ways(steps: int) -> dict[str, Callable[[], object]]:
    """Ways to make a source and a target image, plain diffusers sampling first."""
    model = p2p.load_model("world")
    pipeline = StableDiffusionPipeline.from_pretrained(
        resource_path("p2p_bench", "world", "weights", "pipeline"), use_safetensors=True
    ).to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)

    def plain() -> object:
        noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(SEED)).expand(2, -1, -1, -1)
        return pipeline(
            [SOURCE, SWAPPED],
            latents=noise,
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
            output_type="pt",
        )

    def edit(target: str, controller: p2p.Controller, record: bool = False) -> Callable[[], object]:
        settings = {"seed": SEED, "steps": steps, "guidance": GUIDANCE, "record": record}
        return lambda: p2p.edit(model, SOURCE, target, controller, **settings)

    return {
        "plain sampling, diffusers": plain,
        "no control": edit(SWAPPED, p2p.NoControl()),
        "replace (R = 0)": edit(SWAPPED, p2p.Replace(cross=CROSS, self_attn=SELF)),
        "refine": edit(LONGER, p2p.Refine(cross=CROSS, self_attn=SELF)),
        "replace, heatmaps recorded": edit(SWAPPED, p2p.Replace(cross=CROSS, self_attn=SELF), record=True),
        "replace, maps written out": materialised(model, steps),
    }


def materialised(model: p2p.DiffusionModel, steps: int) -> Callable[[], object]:
    """The same replacement by the tests' oracle, which writes every attention map out."""
    add_tests()
    from tests.editing.naive import naive_sampling
    from tests.oracle import MapRow, Published, Swap, swap_mapper

    width = model.spec.max_tokens
    mapper = swap_mapper(SOURCE, SWAPPED, model.tokenizer, width, as_released=False)
    swap = Swap(mapper.to(model.dtype))
    published = Published(swap, int(CROSS * (steps + 1)), int(SELF * steps), model.spec.self_fraction)
    noise = torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(SEED))

    def way() -> object:
        edits = [MapRow(1, 0, published)]
        latents = naive_sampling(model, [SOURCE, SWAPPED], noise, steps, combine=GUIDANCE, edits=edits)
        return model.decode_latents(latents)

    return way


def add_tests() -> None:
    """Makes the package `tests` importable without putting the checkout on `sys.path`."""
    folder = HERE.parent.parent / "tests"
    spec = importlib.util.spec_from_file_location(
        "tests", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None, "a path to an existing file always has a spec"
    sys.modules["tests"] = importlib.util.module_from_spec(spec)


def table(seconds: dict[str, list[float]], steps: int) -> str:
    """Median ratio to the first way, with the quartiles over rounds, as Markdown."""
    names = list(seconds)
    base = seconds[names[0]]
    lines = [
        f"Source and one target, {steps} steps, {len(base)} rounds, {torch.get_num_threads()} threads; "
        f"plain sampling took {statistics.median(base):.2f} s.",
        "",
        "| way | time, ratio to plain sampling (quartiles) |",
        "|---|---|",
    ]
    for name in names:
        ratios = [a / b for a, b in zip(seconds[name], base, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        lines.append(f"| {name} | {middle:.2f} ({low:.2f} to {high:.2f}) |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
