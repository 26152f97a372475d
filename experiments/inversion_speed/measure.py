"""Times null-text inversion against a straightforward one, and batches and a warm cache against neither.

    python experiments/inversion_speed/measure.py [--rounds 7] [--device cuda]

Writes results.md beside this file. The ways of a table take turns within every round, in an order that
changes, and ratios are taken within a round. Memory is the peak above the loaded model, each way in a process
of its own.
"""

import argparse
import ctypes
import dataclasses
import functools
import importlib.util
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

import p2p_bench as p2p
from p2p_bench.attention.sites import unet_sites
from p2p_bench.cache import Cache
from p2p_bench.inversion import DDIMInversion, Inversion, NullTextInversion
from p2p_bench.inversion.base import read_sources
from p2p_bench.inversion.null_text import NullTextReplay
from p2p_bench.inversion.recall import invert_or_recall
from p2p_bench.world.scenes import caption, render, sample_scene

HERE = Path(__file__).resolve().parent
GUIDANCE, STEPS, INNER = 7.5, 2, 5
"""Short runs: every step of an inversion costs the same."""

STRAIGHT = "maps written out, weights with gradients"
FROZEN = "fused attention, frozen weights"
OURS = "p2p_bench"


def main() -> None:
    """Measures, prints and writes the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peak", nargs=2, metavar=("MODEL", "WAY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        name, way = arguments.peak
        print(json.dumps(peak_bytes(name, way, arguments.device)))
        return
    parts = [
        f"{torch.get_num_threads()} threads, device {arguments.device}, {arguments.rounds} rounds; time is "
        "the median of the ratios within a round, with the quartiles: CPU time on a CPU, but for the cache.",
        null_text_table("embedded", arguments.rounds, arguments.device),
        null_text_table("sd_layout", arguments.rounds, arguments.device),
        batch_table(arguments.rounds, arguments.device),
        cache_table(arguments.rounds, arguments.device),
    ]
    text = "\n\n".join(parts) + "\n"
    (HERE / "results.md").write_text(text, encoding="utf-8")
    print(text)


def load(name: str, device: str) -> p2p.DiffusionModel:
    """The embedded model, or it with a U-Net of Stable Diffusion 1.x's layout and random weights."""
    model = p2p.load_model("world", device=device)
    if name == "embedded":
        return model
    torch.manual_seed(0)
    unet: Any = UNet2DConditionModel(
        sample_size=32, block_out_channels=(64, 128, 256, 256), attention_head_dim=8, cross_attention_dim=128
    )
    unet = unet.to(device).eval().requires_grad_(False)
    spec = dataclasses.replace(model.spec, name=name, latent_size=(32, 32), image_size=(128, 128))
    return dataclasses.replace(model, spec=spec, unet=unet, sites=unet_sites(unet))


def pictures(model: p2p.DiffusionModel, count: int) -> tuple[torch.Tensor, list[str]]:
    """Rendered scenes at the model's size, and their captions."""
    scenes = [sample_scene(900_000 + number) for number in range(count)]
    images = torch.nn.functional.interpolate(render(scenes).images, model.spec.image_size, mode="nearest")
    return images, [caption(scene) for scene in scenes]


def null_text_ways(model: p2p.DiffusionModel) -> dict[str, Callable[[], list[float]]]:
    """Ways to invert one image, each returning its losses; the straightforward one first."""
    add_tests()
    from tests.inversion.naive_null_text import naive_null_text

    images, prompts = pictures(model, 1)
    latents = model.encode_images(images)
    method = NullTextInversion(
        guidance=GUIDANCE, learning_rate=1e-2, inner_steps=INNER, tolerance=0.0, gate=1e9
    )

    def naive(weights: bool) -> list[float]:
        model.unet.requires_grad_(weights)
        try:
            found = naive_null_text(
                model, latents, prompts[0], STEPS, GUIDANCE, INNER, tolerance=0.0, materialised=weights
            )
            return [loss for losses in found.losses for loss in losses]
        finally:
            model.unet.requires_grad_(False)
            model.unet.zero_grad(set_to_none=True)

    def ours() -> list[float]:
        (replay,) = method.invert(model, read_sources(model, images, prompts), STEPS)
        assert isinstance(replay, NullTextReplay)
        return replay.losses[~replay.losses.isnan()].tolist()

    return {STRAIGHT: lambda: naive(True), FROZEN: lambda: naive(False), OURS: ours}


def null_text_table(name: str, rounds: int, device: str) -> str:
    """Time and memory of the ways on one model, and how far their losses are apart."""
    model = load(name, device)
    ways = null_text_ways(model)
    losses = {way: torch.tensor(run()) for way, run in ways.items()}
    apart = float(((losses[OURS] - losses[STRAIGHT]) / losses[STRAIGHT]).abs().max())
    seconds = timed(ways, rounds, device)
    peaks = {way: peak_in_a_process(name, way, device) for way in ways}
    millions = sum(weight.numel() for weight in model.unet.parameters()) / 1e6
    lines = [
        f"**Null-text, {name}** ({millions:.1f} M parameters, latents {model.spec.latent_size[0]} x "
        f"{model.spec.latent_size[1]}), one image, {STEPS} steps of {INNER} updates; the first way took "
        f"{statistics.median(seconds[STRAIGHT]):.2f} s; losses differ by at most {apart:.1e} (relative).",
        "",
        "| way | time | memory above the model |",
        "|---|---|---|",
    ]
    for way in ways:
        share = peaks[way] / peaks[STRAIGHT]
        lines.append(f"| {way} | {ratio(seconds, way)} | {share:.2f} ({peaks[way] / 2**20:.0f} MB) |")
    return "\n".join(lines)


def batch_table(rounds: int, device: str, count: int = 8) -> str:
    """Several images at once against one after the other."""
    model = load("embedded", device)
    images, prompts = pictures(model, count)
    method = NullTextInversion(guidance=GUIDANCE, inner_steps=INNER, gate=1e9, batch_size=count)

    def one_by_one() -> None:
        for place in range(count):
            method.invert(
                model, read_sources(model, images[place : place + 1], prompts[place : place + 1]), STEPS
            )

    ways = {
        "one by one": one_by_one,
        "in one batch": lambda: method.invert(model, read_sources(model, images, prompts), STEPS),
    }
    seconds = timed(ways, rounds, device)
    lines = [
        f"**{count} images**, null-text on the embedded model; one by one took "
        f"{statistics.median(seconds['one by one']):.2f} s.",
        "",
        "| way | time |",
        "|---|---|",
        *(f"| {way} | {ratio(seconds, way)} |" for way in ways),
    ]
    return "\n".join(lines)


def cache_table(rounds: int, device: str) -> str:
    """A second run that finds the inversions of the first, with the model's own number of steps."""
    model = load("embedded", device)
    images, prompts = pictures(model, 4)
    methods: dict[str, Inversion] = {
        "ddim": DDIMInversion(),
        "null_text": NullTextInversion(guidance=GUIDANCE, gate=1e9),
    }
    lines = [
        f"**Cache**, 4 images, {model.spec.steps} steps, embedded model.",
        "",
        "| method | inverting takes | found again: share of that |",
        "|---|---|---|",
    ]
    for name, method in methods.items():
        with tempfile.TemporaryDirectory() as folder:
            cache = Cache(Path(folder))
            sources = read_sources(model, images, prompts)
            run = functools.partial(invert_or_recall, method, model, sources, model.spec.steps, cache=cache)
            first = duration(run, device, wall=True)
            again = statistics.median(duration(run, device, wall=True) for _ in range(rounds))
            assert all(made.recalled for made in run())
        lines.append(f"| {name} | {first:.2f} s | {again / first:.3%} |")
    return "\n".join(lines)


def timed(ways: Mapping[str, Callable[[], object]], rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of every way in every round, after one round to warm up."""
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    shuffled, rng = list(ways), random.Random(0)
    for _ in range(rounds):
        rng.shuffle(shuffled)
        for name in shuffled:
            seconds[name].append(duration(ways[name], device))
    return seconds


def duration(way: Callable[[], object], device: str, wall: bool = False) -> float:
    """Time of a way: of this process on a CPU, where other programs would disturb the clock on the wall."""
    clock = time.process_time if device == "cpu" and not wall else time.perf_counter
    synchronise(device)
    started = clock()
    way()
    synchronise(device)
    return clock() - started


def synchronise(device: str) -> None:
    """Waits for the accelerator."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def ratio(seconds: Mapping[str, list[float]], way: str) -> str:
    """Median and quartiles of the ratios to the first way."""
    base = next(iter(seconds.values()))
    ratios = [a / b for a, b in zip(seconds[way], base, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def peak_in_a_process(model: str, way: str, device: str) -> int:
    """Peak memory of a way above the loaded model, in bytes."""
    command = [sys.executable, __file__, "--device", device, "--peak", model, way]
    return int(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def peak_bytes(name: str, way: str, device: str) -> int:
    """The same in this process: of the accelerator, or what Linux says of the process."""
    model = load(name, device)
    run = null_text_ways(model)[way]
    with torch.no_grad():  # what libraries set up at the first pass belongs to the model
        size = (1, model.spec.latent_channels, *model.spec.latent_size)
        model.predict(torch.zeros(size, device=device), model.ladder(STEPS)[0], model.unconditional())
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    run()
    return status_bytes("VmHWM") - before


def status_bytes(key: str) -> int:
    """A line of this process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def add_tests() -> None:
    """Makes the package `tests` importable without putting the checkout on `sys.path`."""
    folder = HERE.parent.parent / "tests"
    spec = importlib.util.spec_from_file_location(
        "tests", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None, "a path to an existing file always has a spec"
    sys.modules["tests"] = importlib.util.module_from_spec(spec)


if __name__ == "__main__":
    main()
