"""How long `p2p-bench check` takes over many pairs: prompts, files and headers of images.

python experiments/check_speed/measure.py
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice, product
from pathlib import Path

import numpy as np
from PIL import Image

RESULTS = Path(__file__).resolve().parent / "results.md"
COLOURS = ("red", "blue", "green", "yellow", "purple", "cyan", "white", "black")
SHAPES = ("circle", "square", "star", "heart", "cross", "triangle")
PLACES = ("grass", "sand", "water", "brick", "stone")
SIDE = 128


def write_pairs(folder: Path, count: int) -> Path:
    """Pairs with an image each; no two images are alike, prompts come again after 1,680 pairs."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    path = folder / "pairs.jsonl"
    words = product(range(10**6), COLOURS, COLOURS, SHAPES, PLACES)
    changed = (one for one in words if one[1] != one[2])
    with path.open("w", encoding="utf-8") as file:
        for number, (_, old, new, shape, place) in enumerate(islice(changed, count)):
            image = f"images/{number}.png"
            Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(folder / image)
            line = {
                "id": f"pair {number}",
                "source_prompt": f"a {old} {shape} on {place}",
                "target_prompt": f"a {new} {shape} on {place}",
                "image": image,
            }
            file.write(json.dumps(line) + "\n")
    return path


def environment(folder: Path) -> dict[str, str]:
    """That of an installed program, which keeps its compiled modules, with them in a folder of their own."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(folder)}


def checked(path: Path, modules: Path, *flags: str) -> tuple[float, float, dict[str, object]]:
    """Seconds on the clock and of the processors, start of the process included, and what was found."""
    command = [sys.executable, "-m", "p2p_bench", "check", "--json", *flags]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    ended = subprocess.run(
        [*command, "dataset=jsonl", f"dataset.path={path}"],
        capture_output=True, text=True, check=True, env=environment(modules),
    )  # fmt: skip
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, json.loads(ended.stdout)


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = write_pairs(Path(folder), options.pairs)
        modules = Path(folder, "modules")
        few = Path(folder, "few.jsonl")
        few.write_text("".join(path.read_text(encoding="utf-8").splitlines(True)[:10]), encoding="utf-8")
        checked(few, modules)  # compiles what is imported
        start, start_cpu, _ = checked(few, modules)
        lines = ["| pairs | read | seconds | processor seconds |", "|---|---|---|---|"]
        lines.append(f"| 10 | prompts and headers | {start:.0f} | {start_cpu:.0f} |")
        for read, flags in (("prompts and headers", ()), ("every pixel too", ("--decode",))):
            seconds, cpu, found = checked(path, modules, *flags)
            assert found["pairs"] == options.pairs
            assert found["errors"] == []
            lines.append(f"| {options.pairs:,} | {read} | {seconds:.0f} | {cpu:.0f} |")
    load = os.getloadavg()[0]
    lines += ["", f"Load of the machine, whose processors are {os.cpu_count()}: {load:.1f}."]
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
