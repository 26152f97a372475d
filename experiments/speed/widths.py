"""Times an edit at real widths, against plain sampling of the same two images by diffusers.

    python experiments/speed/widths.py [--rounds 3] [--only sd15] [--tiny]

Networks in published layouts with random weights: the whole U-Nets of Stable Diffusion 1.5 at 512 x 512, of
SDXL at 1024 x 1024 and of DeepFloyd IF-I-L at 64 x 64, and blocks as wide as those of Stable Diffusion 3
medium and of FLUX.1 [dev] at 1024 x 1024. One step, in which an edit does all that it ever does, pixels at
full size included; prompts are encoded before, and autoencoders cost next to nothing, so that the network is
what is timed. Every round makes each way once, in an order that changes from round to round, and ratios are
taken within a round. Times are seconds of the processor, which other programs on the machine change less than
those of a clock; memory is the most that is resident while a way runs, above what was before it. Prints a
table for each network and writes it to widths.json; widths.md is the table of all that stand there.
"""

import argparse
import ctypes
import dataclasses
import json
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import p2p_bench as p2p

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parent / "gpu")]

from joint_layouts import JOINT_LAYOUTS, TINY_JOINT, build_joint  # noqa: E402  # found once the path is set
from layouts import LAYOUTS, TINY, VAE, Built, build  # noqa: E402  # likewise
from pixel_layouts import IF_L, TINY_PIXEL, build_pixel  # noqa: E402  # likewise
from resident import resident_mb  # noqa: E402  # likewise
from ways import LONGER, PLAIN, SOURCE, SWAPPED, plain_way  # noqa: E402  # likewise

Edit = tuple[str, p2p.Controller]
EDITS: dict[str, dict[str, Edit]] = {
    "apart": {
        "no control": (SWAPPED, p2p.NoControl()),
        "replace (R = 0)": (SWAPPED, p2p.Replace(cross=1.0, self_attn=0.0)),
        "replace (R = 0), self-attention injected": (SWAPPED, p2p.Replace(cross=1.0, self_attn=1.0)),
        "refine": (LONGER, p2p.Refine(cross=1.0, self_attn=0.0)),
        "refine, self-attention injected": (LONGER, p2p.Refine(cross=1.0, self_attn=1.0)),
    },
    "joint": {
        "no control": (SWAPPED, p2p.NoControl()),
        "replace, text and pixel columns": (SWAPPED, p2p.Replace(cross=1.0, self_attn=1.0)),
        "replace, text columns alone": (SWAPPED, p2p.Replace(cross=1.0, self_attn=0.0)),
        "refine, text columns alone": (LONGER, p2p.Refine(cross=1.0, self_attn=0.0)),
        "refine, text and pixel columns": (LONGER, p2p.Refine(cross=1.0, self_attn=1.0)),
        "image queries and keys": (SWAPPED, p2p.ImageQK(1.0)),
    },
}
"""By whether text and pixels are attended to apart or under one softmax."""


@dataclass(frozen=True)
class Section:
    """A network that is measured.

    Attributes:
        what: What it is, for the table.
        edits: Key of `EDITS`.
        build: Makes it; told whether it shall be a tiny one.
    """

    what: str
    edits: str
    build: Callable[[bool], Built]


def unet(name: str, tiny: bool) -> Built:
    """A whole U-Net, with text encoders of one layer and a narrow autoencoder."""
    layout = TINY[name]
    if not tiny:
        whole = LAYOUTS[name]
        encoders = tuple({**one, "num_hidden_layers": 1} for one in whole.encoders)
        narrow = {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4}
        layout = dataclasses.replace(whole, encoders=encoders, vae={**VAE, **narrow})
    return build(name, layout, "cpu", torch.float32)


def pixels(tiny: bool) -> Built:
    """The U-Net of DeepFloyd IF-I-L."""
    return build_pixel("if_l", TINY_PIXEL["if_xl"] if tiny else IF_L, "cpu", torch.float32)


def blocks(name: str, tiny: bool, **counts: int) -> Built:
    """A transformer of so many blocks."""
    layout = TINY_JOINT[name] if tiny else JOINT_LAYOUTS[name].cut(**counts)
    return build_joint(name, layout, "cpu", torch.float32)


SECTIONS = {
    "sd15": Section("Stable Diffusion 1.5, 512 x 512", "apart", lambda tiny: unet("sd15", tiny)),
    "sdxl": Section("SDXL, 1024 x 1024", "apart", lambda tiny: unet("sdxl", tiny)),
    "if_l": Section("DeepFloyd IF-I-L, 64 x 64", "joint", pixels),
    "sd3_medium": Section(
        "one block of Stable Diffusion 3 medium, 1024 x 1024", "joint",
        lambda tiny: blocks("sd3_medium", tiny, num_layers=1),
    ),
    "flux_dev": Section(
        "one block of two streams and one of one of FLUX.1 [dev], 1024 x 1024", "joint",
        lambda tiny: blocks("flux_dev", tiny, num_layers=1, num_single_layers=1),
    ),
}  # fmt: skip


def way_of(built: Built, edit: Edit) -> Callable[[], Any]:
    """Makes the source and the target image in one step, of text that was encoded before."""
    target, controller = edit
    built.model.encode([built.model.tokenize(one, allow_empty=True) for one in (SOURCE, target, "")])
    return lambda: p2p.edit(built.model, SOURCE, target, controller, seed=7, steps=1, record=False)


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Megabytes resident at most above what was before, seen every hundredth second; processor seconds."""
    give_back()
    before, most, done = resident_mb(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            most[0] = max(most[0], resident_mb() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.process_time()
    work()
    seconds = time.process_time() - started
    done.set()
    watcher.join()
    return most[0], seconds


def give_back() -> None:
    """Has glibc return what is free to the system, or a way would live in what the one before it left."""
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def measured(section: Section, rounds: int, tiny: bool, only: Sequence[str] | None = None) -> dict[str, Any]:
    """Megabytes and seconds of each way, a round each; `only` names those beside plain sampling."""
    built = section.build(tiny)
    ways = {PLAIN: plain_way(built, 1, encoded=True)}
    edits = EDITS[section.edits]
    ways |= {name: way_of(built, edit) for name, edit in edits.items() if only is None or name in only}
    ways[PLAIN]()  # warm up
    found: dict[str, Any] = {"threads": torch.get_num_threads(), "ways": {name: [] for name in ways}}
    shuffled, rng = list(ways), random.Random(0)
    for _ in range(rounds):
        rng.shuffle(shuffled)
        for name in shuffled:
            found["ways"][name].append(timed(ways[name]))
            print(f"{section.what}, {name}: {found['ways'][name][-1][1]:.1f} s", file=sys.stderr, flush=True)
    return found


def table(section: Section, found: Mapping[str, Any]) -> str:
    """What was measured of a network, as Markdown."""
    memory, seconds = (
        {way: [one[place] for one in taken] for way, taken in found["ways"].items()} for place in (0, 1)
    )
    plain = statistics.median(memory[PLAIN])
    lines = [
        f"{section.what}: {len(memory[PLAIN])} rounds, {found['threads']} threads; plain sampling "
        f"took {statistics.median(seconds[PLAIN]):.1f} s and {plain:.0f} MB.",
        "",
        "| way | time, ratio to plain sampling (least to most) | memory, ratio |",
        "|---|---|---|",
    ]
    for way, taken in seconds.items():
        ratios = [a / b for a, b in zip(taken, seconds[PLAIN], strict=True)]
        share = f"{statistics.median(memory[way]) / plain:.2f}" if plain else "none seen"
        middle = statistics.median(ratios)
        lines.append(f"| {way} | {middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {share} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Measures every way on every network, or on one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=SECTIONS, help="one network; the others keep what was measured")
    parser.add_argument("--ways", nargs="+", help="these alone beside plain sampling; writes nothing")
    parser.add_argument("--tiny", action="store_true", help="tiny layouts, for a test; writes nothing")
    arguments = parser.parse_args()
    file, writes = HERE / "widths.json", not arguments.tiny and arguments.ways is None
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for name in [arguments.only] if arguments.only else SECTIONS:
        found = measured(SECTIONS[name], arguments.rounds, arguments.tiny, arguments.ways)
        print(table(SECTIONS[name], found), flush=True)
        if writes:
            known[name] = found
            file.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    if writes:
        tables = [table(section, known[name]) for name, section in SECTIONS.items() if name in known]
        (HERE / "widths.md").write_text("\n".join(tables), encoding="utf-8")


if __name__ == "__main__":
    main()
