"""What a sweep costs against its jobs one by one: UNet rows, time, and planning; all in one run.

    python experiments/sweep_speed/measure.py [--rounds 3] [--steps 50] [--samples 10000]

Prints the tables and writes them to results.md beside this file. A round takes each tau once in each way, in
an order that changes from round to round; ratios are taken within a round, so whatever else the machine does
meets all ways alike. Planning is counted in processor seconds, for the same reason.
"""

import argparse
import importlib.util
import random
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import torch

import p2p_bench as p2p
from p2p_bench.controllers import BoundController, ByEdit, EditContext
from p2p_bench.editing.rows import edit_tree
from p2p_bench.editing.tree import Stretch
from p2p_bench.prompts.words import TextTokenizer, TokenizedPrompt, tokenize

HERE = Path(__file__).resolve().parent
SOURCE, TARGET = "a red circle on grass", "a blue circle on grass"
SELF, GUIDANCE, SEED = 0.4, 4.0, 7
TAUS = [tau / 10 for tau in range(11)]
GRID = [(cross / 5, own / 5) for cross in range(6) for own in range(6)]
COLOURS = ("red", "blue", "green", "yellow", "purple", "orange", "white", "black")
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "heart", "diamond")
PLACES = ("grass", "sand", "water", "brick", "wood", "snow", "stone", "sky")
EXTRA = ("", "striped", "dotted", "checked", "small striped")
"""Words of the prompts that are planned; whether the model knows them does not matter there."""

Way = Callable[[], float]
"""Makes its images; the UNet rows it took."""


def main() -> None:
    """Measures, prints and writes the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--samples", type=int, default=10_000)
    arguments = parser.parse_args()
    model = p2p.load_model("world")
    text = "\n".join([
        *sweep_table(model, arguments.steps, arguments.rounds),
        "",
        *grid_lines(model, arguments.steps),
        "",
        *planning_table(model.tokenizer, model.spec.self_fraction, arguments.samples),
    ])  # fmt: skip
    (HERE / "results.md").write_text(text + "\n", encoding="utf-8")
    print(text)


def sweep_table(model: p2p.DiffusionModel, steps: int, rounds: int) -> list[str]:
    """Eleven taus in one run, in eleven runs, and in eleven runs that write their maps out."""
    parts = {
        "one run, shared": [shared(model, steps, [(tau, SELF) for tau in TAUS])],
        "eleven runs, folded": [shared(model, steps, [(tau, SELF)]) for tau in TAUS],
        "eleven runs, maps written out": [materialised(model, steps, tau) for tau in TAUS],
    }
    for ways in parts.values():
        ways[-1]()  # warm up
    seconds: dict[str, list[float]] = {name: [0.0] * rounds for name in parts}
    rows: dict[str, float] = {}
    rng = random.Random(0)
    for number in range(rounds):
        jobs = [(name, way) for name, ways in parts.items() for way in ways]
        rng.shuffle(jobs)
        rows = dict.fromkeys(parts, 0.0)
        for name, way in jobs:
            started = time.perf_counter()
            rows[name] += way()
            seconds[name][number] += time.perf_counter() - started
    mine, *others = parts
    lines = [
        f"Eleven taus from 0 to 1, {steps} steps, {rounds} rounds, {torch.get_num_threads()} threads; "
        f"the shared run took {statistics.median(seconds[mine]):.1f} s.",
        "",
        "| against | UNet rows | time, median (lowest to highest) |",
        "|---|---|---|",
    ]
    for name in others:
        ratios = sorted(a / b for a, b in zip(seconds[mine], seconds[name], strict=True))
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        share = f"{rows[mine]:.0f} of {rows[name]:.0f} = {rows[mine] / rows[name]:.3f}"
        lines.append(f"| {name} | {share} | {spread} |")
    return lines


def grid_lines(model: p2p.DiffusionModel, steps: int) -> list[str]:
    """Six by six taus of cross- and self-attention in one run."""
    rows = shared(model, steps, GRID)()
    alone = len(GRID) * shared(model, steps, GRID[-1:])()
    return [
        f"Six by six taus of cross- and self-attention: {rows:.0f} of {alone:.0f} rows = {rows / alone:.3f}."
    ]


def shared(model: p2p.DiffusionModel, steps: int, taus: Sequence[tuple[float, float]]) -> Way:
    """One run over some schedules."""
    controllers = [ByEdit(cross, own) for cross, own in taus]

    def way() -> float:
        targets = [TARGET] * len(controllers)
        result = p2p.edit(
            model, SOURCE, targets, controllers, seed=SEED, steps=steps, guidance=GUIDANCE, record=False
        )
        return result.unet_rows

    return way


def materialised(model: p2p.DiffusionModel, steps: int, tau: float) -> Way:
    """The same edit by the tests' oracle, which writes every attention map out."""
    add_tests()
    from tests.editing.naive import naive_sampling
    from tests.oracle import MapRow, Published, Swap, swap_mapper

    mapper = swap_mapper(SOURCE, TARGET, model.tokenizer, model.spec.max_tokens, as_released=False)
    ends = min(int(tau * (steps + 1)), steps), int(SELF * steps)
    published = Published(Swap(mapper.to(model.dtype)), *ends, model.spec.self_fraction)
    noise = torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(SEED))

    def way() -> float:
        edits = [MapRow(1, 0, published)]
        latents = naive_sampling(model, [SOURCE, TARGET], noise, steps, combine=GUIDANCE, edits=edits)
        model.decode_latents(latents)
        return 4.0 * steps

    return way


def planning_table(tokenizer: TextTokenizer, self_fraction: float, samples: int) -> list[str]:
    """Binding and planning many samples with fifty variants each, and the memory of the plans."""
    variants = [ByEdit(cross / 10, own / 5) for cross in range(1, 11) for own in range(5)]
    pairs = prompt_pairs(tokenizer, samples)
    lines = [
        f"Planning with {len(variants)} variants and 50 steps, prompts tokenized before:",
        "",
        "| samples | processor seconds | MB of plans |",
        "|---|---|---|",
    ]
    for share in (4, 2, 1):
        part = pairs[: samples // share]
        started = time.process_time()
        for pair in part:
            plan(pair, variants, self_fraction)
        seconds = time.process_time() - started
        lines.append(f"| {len(part)} | {seconds:.1f} | {memory(part, variants, self_fraction):.0f} |")
    return lines


def plan(
    pair: tuple[TokenizedPrompt, TokenizedPrompt], variants: Sequence[ByEdit], self_fraction: float
) -> tuple[Stretch, ...]:
    """The prefix tree of a sample, from nothing but its prompts."""
    source, target = pair
    bound: dict[int, tuple[TokenizedPrompt, BoundController]] = {}
    for number, variant in enumerate(variants):
        bound[number] = target, variant.bind(EditContext(source, target, 50, self_fraction))
    return edit_tree(bound, 0, 50)


def memory(
    pairs: Sequence[tuple[TokenizedPrompt, TokenizedPrompt]],
    variants: Sequence[ByEdit],
    self_fraction: float,
    every: int = 20,
) -> float:
    """MB that the plans of all samples take together, from one in twenty (counting slows Python down)."""
    tracemalloc.start()
    kept = [plan(pair, variants, self_fraction) for pair in pairs[::every]]
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return size * len(pairs) / max(1, len(kept)) / 1e6


def prompt_pairs(tokenizer: TextTokenizer, count: int) -> list[tuple[TokenizedPrompt, TokenizedPrompt]]:
    """Pairs of different prompts, a third of them of different lengths."""
    rng = random.Random(0)
    made: dict[str, TokenizedPrompt] = {}

    def prompt(*words: str) -> TokenizedPrompt:
        text = " ".join(f"a {words[0]} {words[1]} {words[2]} on {words[3]}".split())
        if text not in made:
            made[text] = tokenize(text, tokenizer)
        return made[text]

    choices = list(product(COLOURS, EXTRA, SHAPES, PLACES))
    pairs: list[tuple[TokenizedPrompt, TokenizedPrompt]] = []
    while len(pairs) < count:
        words = rng.choice(choices)
        colour, extra = rng.choice(COLOURS), rng.choice((words[1], words[1], *EXTRA))
        pairs.append((prompt(*words), prompt(colour, extra, *words[2:])))
    return pairs


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
