"""Times an edit on joint attention at real widths, against plain sampling of the same two images.

    python experiments/speed/joint.py [--rounds 3] [--tiny]

Blocks as wide as those of Stable Diffusion 3 medium and of FLUX.1 [dev], few of them, with random weights,
at 1024 x 1024: 4096 image tokens. One step, in which an edit does all that it ever does, pixel columns at
full size included; prompts are encoded before. Every round makes each way once, in an order that changes
from round to round, and ratios are taken within a round; memory is the most that is resident while a way
runs, above what was before it. Prints a table and writes it to joint.md beside this file.
"""

import argparse
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import p2p_bench as p2p

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parent / "gpu")]

from joint_layouts import JOINT_LAYOUTS, TINY_JOINT, build_joint  # noqa: E402  # found once the path is set
from layouts import Built  # noqa: E402  # likewise
from resident import resident_mb  # noqa: E402  # likewise
from ways import LONGER, PLAIN, SOURCE, SWAPPED, plain_way  # noqa: E402  # likewise

BLOCKS: dict[str, dict[str, int]] = {
    "sd3_medium": {"num_layers": 1}, "flux_dev": {"num_layers": 1, "num_single_layers": 1},
}  # fmt: skip
EDITS: dict[str, tuple[str, p2p.Controller]] = {
    "no control": (SWAPPED, p2p.NoControl()),
    "replace, text and pixel columns": (SWAPPED, p2p.Replace(cross=1.0, self_attn=1.0)),
    "replace, text columns alone": (SWAPPED, p2p.Replace(cross=1.0, self_attn=0.0)),
    "refine, text columns alone": (LONGER, p2p.Refine(cross=1.0, self_attn=0.0)),
    "refine, text and pixel columns": (LONGER, p2p.Refine(cross=1.0, self_attn=1.0)),
    "image queries and keys": (SWAPPED, p2p.ImageQK(1.0)),
}
WAYS = (PLAIN, *EDITS)


def small_model(name: str, tiny: bool) -> Built:
    """Blocks of real widths, or none such for a test."""
    layout = TINY_JOINT[name] if tiny else JOINT_LAYOUTS[name].cut(**BLOCKS[name])
    return build_joint(name, layout, "cpu", torch.float32)


def way_of(built: Built, way: str) -> Callable[[], Any]:
    """Makes the source and the target image in one step, of text that was encoded before."""
    if way == PLAIN:
        return plain_way(built, 1, encoded=True)
    target, controller = EDITS[way]
    built.model.encode([built.model.tokenize(one) for one in (SOURCE, target)])
    return lambda: p2p.edit(built.model, SOURCE, target, controller, seed=7, steps=1, record=False)


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Megabytes resident at most above what was before, looked at every hundredth second; seconds."""
    before, most, done = resident_mb(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            most[0] = max(most[0], resident_mb() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    return most[0], seconds


def measured(name: str, rounds: int, tiny: bool) -> list[dict[str, tuple[float, float]]]:
    """Megabytes and seconds of each way, a round each."""
    built = small_model(name, tiny)
    ways = {way: way_of(built, way) for way in WAYS}
    ways[PLAIN]()  # warm up
    found, shuffled, rng = [], list(WAYS), random.Random(0)
    for _ in range(rounds):
        rng.shuffle(shuffled)
        found.append({way: timed(ways[way]) for way in shuffled})
    return found


def section(name: str, rounds: list[dict[str, tuple[float, float]]]) -> list[str]:
    """The table of a layout."""
    memory, seconds = ({way: [one[way][place] for one in rounds] for way in WAYS} for place in (0, 1))
    lines = [
        f"{name}, {BLOCKS[name]}, {len(rounds)} rounds, {torch.get_num_threads()} threads; plain sampling "
        f"took {statistics.median(seconds[PLAIN]):.1f} s and {statistics.median(memory[PLAIN]):.0f} MB.",
        "",
        "| way | time, ratio to plain sampling (least to most) | memory, ratio |",
        "|---|---|---|",
    ]
    for way in WAYS:
        ratios = [a / b for a, b in zip(seconds[way], seconds[PLAIN], strict=True)]
        plain = statistics.median(memory[PLAIN])
        share = f"{statistics.median(memory[way]) / plain:.2f}" if plain else "none seen"
        middle = statistics.median(ratios)
        lines.append(f"| {way} | {middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {share} |")
    return [*lines, ""]


def main() -> None:
    """Measures every way on every layout."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="tiny layouts, for a test; writes nothing")
    arguments = parser.parse_args()
    lines: list[str] = []
    for name in BLOCKS:
        table = section(name, measured(name, arguments.rounds, arguments.tiny))
        print("\n".join(table), flush=True)
        lines += table
    if not arguments.tiny:
        (HERE / "joint.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
