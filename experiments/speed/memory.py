"""Peak memory of one edit with folded values and with maps written out, on larger latents.

    python experiments/speed/memory.py

Prints a table and writes it to memory.md beside this file. Every cell is the median of three processes of
its own, the ways in turn: the peak of resident memory during two steps, less what was resident with the
model loaded. The network is larger
than the world's and has random weights: channels (128, 256, 384), attention at every size but the last.
Self-attention is injected at all sizes, the largest included.
"""

import argparse
import dataclasses
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from measure import SOURCE, SWAPPED, add_tests
from resident import resident_mb

import p2p_bench as p2p
from p2p_bench.attention.sites import unet_sites
from p2p_bench.world.training.unet import build_unet

HERE = Path(__file__).resolve().parent
WAYS = ("plain", "folded", "written out")
SIDES = (16, 32, 64)
STEPS, GUIDANCE = 2, 4.0
ROUNDS = 3


def large_model(side: int) -> p2p.DiffusionModel:
    """The world's text encoder with a larger U-Net of random weights, for latents of any side."""
    world = p2p.load_model("world")
    torch.manual_seed(0)
    unet: UNet2DConditionModel = build_unet((128, 256, 384), world.unet.config.cross_attention_dim).eval()
    spec = dataclasses.replace(
        world.spec, latent_size=(side, side), image_size=(4 * side, 4 * side), self_fraction=1.0
    )
    return dataclasses.replace(world, unet=unet, sites=unet_sites(unet), spec=spec)


def sample(model: p2p.DiffusionModel, way: str, side: int) -> None:
    """Source and one target, two steps."""
    noise = torch.randn(4, side, side, generator=torch.Generator().manual_seed(7))
    if way == "written out":
        add_tests()
        from tests.editing.naive import naive_sampling
        from tests.oracle import MapRow, Published, Swap, swap_mapper

        mapper = swap_mapper(SOURCE, SWAPPED, model.tokenizer, model.spec.max_tokens, as_released=False)
        published = Published(Swap(mapper.to(model.dtype)), STEPS + 1, STEPS, 1.0)
        edits = [MapRow(1, 0, published)]
        naive_sampling(model, [SOURCE, SWAPPED], noise, STEPS, combine=GUIDANCE, edits=edits)
        return
    controller = p2p.Replace(cross=1.0, self_attn=1.0) if way == "folded" else p2p.NoControl()
    p2p.edit(model, SOURCE, SWAPPED, controller, noise=noise, steps=STEPS, guidance=GUIDANCE)


def child(way: str, side: int) -> None:
    """Prints the peak above the model, in MB, and the seconds."""
    torch.set_num_threads(1)
    model = large_model(side)
    before, started = resident_mb(), time.perf_counter()
    sample(model, way, side)
    seconds = time.perf_counter() - started
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before, seconds)


def main() -> None:
    """Measures every way at every size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--child", nargs=2, metavar=("WAY", "SIDE"))
    chosen = parser.parse_args().child
    if chosen:
        child(chosen[0], int(chosen[1]))
        return
    lines = [
        "Peak memory above the model, MB, and seconds, of two guided steps of source and one target; medians "
        f"of {ROUNDS} processes.",
        "",
        "| latent | plain sampling | edit, folded | edit, maps written out | written out / folded |",
        "|---|---|---|---|---|",
    ]
    for side in SIDES:
        rounds = [[_measured(way, side) for way in WAYS] for _ in range(ROUNDS)]
        found = dict(zip(WAYS, np.median(rounds, axis=0).tolist(), strict=True))
        cells = [f"{megabytes:.0f} MB, {seconds:.1f} s" for megabytes, seconds in found.values()]
        ratio = found["written out"][0] / found["folded"][0]
        lines.append(f"| {side} x {side} | {' | '.join(cells)} | {ratio:.1f} x |")
        print(lines[-1], flush=True)
    (HERE / "memory.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _measured(way: str, side: int) -> tuple[float, float]:
    command = [sys.executable, __file__, "--child", way, str(side)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    megabytes, seconds = map(float, done.stdout.split()[-2:])
    return megabytes, seconds


if __name__ == "__main__":
    main()
