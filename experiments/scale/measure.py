"""Measures what a long run costs besides editing: time and bytes of its rows, parts, merging, memory.

    python experiments/scale/measure.py [--long 10000] [--wide 100000] [--out DIR] [--keep DIR]

1. A run of `--long` pairs on a very small checkpoint in the real format, two steps: memory over the run, and
   the part of its time that it waits for rows to be on the disk.
2. Runs of the same code whose network is a stub, of 2,000 pairs with batches of 1 and of 16: what a part and
   a row cost. From these the cost of `--wide` pairs is predicted, and that of a million on 256 devices.
3. The stub's run of `--wide` pairs, against the prediction.
4. What is told of that run afterwards, in a process of its own: the page, and figures for dashboards.

Writes measured.json and results.md beside this file, unless another directory is given; `--only` measures
some runs again and takes the others from there; `--keep` keeps the last run's directory and tells of the one
that is there where `--only told`. It takes a process for each run.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COLOURS = ("red", "green", "blue", "yellow")
PLACES = ("grass", "sand", "water", "fog")
SMALL, BATCH = 2000, 16
QUARTERS = 4
WORLD_STEPS = 4
"""Steps of the embedded model where it is the network."""

RUNS = ("long", "single", "several", "wide", "told")
MILLION, DEVICES, SECONDS_PER_PAIR = 1_000_000, 256, 6.0
"""What the prediction is for; the seconds are a guess for 50 steps of a large model and are divided out."""


@dataclass(frozen=True)
class Costs:
    """Per-part and per-row figures: seconds of writing, bytes; seconds of the rest per row."""

    part_seconds: float
    row_seconds: float
    part_bytes: float
    row_bytes: float
    merge_part_seconds: float
    merge_row_seconds: float
    result_bytes: float
    memory_bytes: float


def main() -> None:
    """Runs all, prints and writes the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--long", type=int, default=10_000)
    parser.add_argument("--wide", type=int, default=100_000)
    parser.add_argument("--only", nargs="*", choices=RUNS, default=RUNS, help="what to measure again")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--keep", type=Path, help="folder for the run of --wide pairs")
    parser.add_argument("--tell", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=4, metavar=("EDITOR", "PAIRS", "BATCH", "DIR"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        editor, pairs, batch, folder = arguments.one
        print(json.dumps(measured(editor, int(pairs), int(batch), Path(folder))))
        return
    if arguments.tell:
        print(json.dumps(told(arguments.tell)))
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(arguments, arguments.keep or Path(folder))


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Runs what is asked for, prints and writes the tables; the widest run goes into the folder."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    kept = arguments.out / "measured.json"
    found = json.loads(kept.read_text()) if kept.is_file() else {}
    runs = {
        "long": ("model", arguments.long, BATCH),
        "single": ("stub", SMALL, 1),
        "several": ("stub", SMALL, BATCH),
        "wide": ("stub", arguments.wide, BATCH),
    }
    for name, run in runs.items():
        if name in arguments.only or name not in found:
            found[name] = apart(*run, folder if name == "wide" else None)
            kept.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if "told" in arguments.only:
        found["told"] = in_process("--tell", str(folder))
        kept.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    text = page(found["long"], fitted(found["single"], found["several"]), found["wide"], found["told"])
    print(text)
    (arguments.out / "results.md").write_text(text, encoding="utf-8")


def apart(editor: str, pairs: int, batch: int, folder: Path | None = None) -> dict[str, Any]:
    """A run in a process of its own, so that its memory is its own; in a folder that stays, if given."""
    with tempfile.TemporaryDirectory() as other:
        (folder or Path(other)).mkdir(parents=True, exist_ok=True)
        found = in_process("--one", editor, str(pairs), str(batch), str(folder or other))
    shown = {key: found[key] for key in ("seconds", "writing", "waiting", "merging")}
    print(editor, pairs, batch, shown, file=sys.stderr)
    return found


def in_process(*arguments: str) -> dict[str, Any]:
    """What this script finds by itself, with these arguments."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *arguments]
    ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def told(folder: Path) -> dict[str, Any]:
    """Time and memory of what is told of a run in a folder: figures of its variant, then the page."""
    sys.path.insert(0, str(ROOT))
    from p2p_bench.bench.finished import FinishedRun, figures_of
    from p2p_bench.bench.merging import StoredRows
    from p2p_bench.report import write_report

    run_dir = folder / "run"
    rows = StoredRows(run_dir / "results.parquet")
    summary = json.loads((run_dir / "summary.json").read_text())
    found: dict[str, Any] = {"rows": len(rows), "before_mb": _peak_mb()}
    clock = {"figures": 0.0, "page": 0.0}
    _called(
        clock, "figures", lambda: figures_of(FinishedRun(run_dir, "", "", "", "", {}, summary, rows), "none")
    )
    found["figures_mb"] = _peak_mb()
    _called(clock, "page", lambda: write_report(run_dir))
    return {**found, "page_mb": _peak_mb(), **clock, "page_bytes": (run_dir / "report.html").stat().st_size}


def measured(editor: str, pairs: int, batch: int, folder: Path) -> dict[str, Any]:
    """One run of the benchmark, with a clock at its writers and an eye on its memory.

    Args:
        editor: The network: "model" is the very small one, "world" the embedded one, "stub" none.
        pairs: Number of pairs.
        batch: Pairs in a batch.
        folder: Where everything goes.
    """
    sys.path.insert(0, str(ROOT))
    import torch

    from p2p_bench.bench import run as bench_run
    from p2p_bench.bench.background import Background
    from p2p_bench.bench.callbacks import WriteRows
    from p2p_bench.bench.rows import PartWriter
    from tests.models.tiny import make_tiny_checkpoint

    torch.set_num_threads(1)
    make_tiny_checkpoint(folder / "tiny")
    with (folder / "pairs.jsonl").open("w") as file:
        for number in range(pairs):
            first, place = COLOURS[number % 4], PLACES[number // 4 % 4]
            source, target = (
                f"a {first} circle on {place}",
                f"a {COLOURS[(number + 1) % 4]} circle on {place}",
            )
            file.write(json.dumps({"id": f"pair {number}", "source": source, "target": target}) + "\n")
    clock = {"writing": 0.0, "waiting": 0.0, "merging": 0.0, "batches": 0.0}
    memory: list[float] = []
    _timed(PartWriter, "append", clock, "writing")
    _timed(Background, "wait", clock, "waiting")
    _timed(bench_run, "compact", clock, "merging")
    _timed(bench_run, "compact_references", clock, "merging")
    end = WriteRows.on_test_batch_end

    def looked(self: Any, *arguments: Any, **named: Any) -> None:
        end(self, *arguments, **named)
        memory.append(_memory_mb())
        clock["batches"] = time.perf_counter()

    WriteRows.on_test_batch_end = looked  # type: ignore[method-assign]  # to look on
    began, computed = time.perf_counter(), time.process_time()
    run_dir = folder / "run"
    _run(editor, folder, run_dir, batch)
    ended, computed = time.perf_counter(), time.process_time() - computed
    parts = list((run_dir / "rows").glob("part-*"))
    return {
        "pairs": pairs,
        "batch": batch,
        "rows": pairs,
        "parts": len(parts),
        "part_bytes": sum(part.stat().st_size for part in parts),
        "result_bytes": (run_dir / "results.parquet").stat().st_size,
        "seconds": ended - began,
        "cpu_seconds": computed,
        "editing": clock["batches"] - began,
        "writing": clock["writing"],
        "waiting": clock["waiting"],
        "merging": clock["merging"],
        "memory": [sum(part) / len(part) for part in _quarters(memory)],
        "before_merging_mb": memory[-1],
        "peak_mb": _peak_mb(),
    }


def _run(editor: str, folder: Path, run_dir: Path, batch: int) -> None:
    import functools

    from lightning import Trainer
    from stub import Copying

    from p2p_bench.bench.run import run_benchmark
    from p2p_bench.bench.task import Keep, Task, Variant
    from p2p_bench.controllers import NoControl
    from p2p_bench.data import JsonlPairs
    from p2p_bench.editors import ControlledSampling
    from p2p_bench.inversion import DDIMInversion
    from p2p_bench.metrics.pixel import PixelScores
    from p2p_bench.models import UNetCheckpoint
    from p2p_bench.models.world import world_checkpoint
    from p2p_bench.sampling import DDIMSampler

    tiny = UNetCheckpoint(folder / "tiny", name="tiny", steps=2, record_fraction=0.5)
    task = Task(
        checkpoint=world_checkpoint() if editor == "world" else tiny,
        dataset=JsonlPairs(folder / "pairs.jsonl"),
        variants=(Variant("none", NoControl(), "none"),),
        inversion=DDIMInversion(),
        inversion_name="ddim",
        sampler=DDIMSampler(steps=WORLD_STEPS if editor == "world" else 2),
        metrics={"pixel": PixelScores()},
        editor=Copying() if editor == "stub" else ControlledSampling(),
    )
    trainer = functools.partial(
        Trainer, accelerator="cpu", devices=1, logger=False, inference_mode=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    run_benchmark(task, run_dir, trainer=trainer, batch_size=batch, keep=Keep(images=0, heatmaps=False))


def _timed(owner: Any, name: str, clock: dict[str, float], key: str) -> None:
    """Adds the time of a function's calls to the clock; wall time, since writing waits for the disk."""
    function = getattr(owner, name)

    def timed(*arguments: Any, **named: Any) -> Any:
        return _called(clock, key, lambda: function(*arguments, **named))

    setattr(owner, name, timed)


def _called(clock: dict[str, float], key: str, function: Callable[[], Any]) -> Any:
    began = time.perf_counter()
    try:
        return function()
    finally:
        clock[key] += time.perf_counter() - began


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _memory_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def _quarters(values: Sequence[float]) -> list[Sequence[float]]:
    size = max(1, len(values) // QUARTERS)
    return [values[place * size : (place + 1) * size] for place in range(QUARTERS)]


def fitted(single: Mapping[str, Any], several: Mapping[str, Any]) -> Costs:
    """What a part and a row cost, from two runs of as many rows in a different number of parts."""
    fewer = single["parts"] - several["parts"]

    def per(key: str) -> tuple[float, float]:
        part = (single[key] - several[key]) / fewer
        return part, (several[key] - part * several["parts"]) / several["rows"]

    written, merged, size = per("writing"), per("merging"), per("part_bytes")
    grown = several["peak_mb"] - several["before_merging_mb"] * 1e6 / 2**20
    return Costs(
        *written, *size, *merged, several["result_bytes"] / several["rows"], grown * 2**20 / several["rows"]
    )


def predicted(costs: Costs, rows: int, parts: int) -> dict[str, float]:
    """Bytes and seconds of so many rows in so many parts."""
    return {
        "part_bytes": costs.part_bytes * parts + costs.row_bytes * rows,
        "result_bytes": costs.result_bytes * rows,
        "writing": costs.part_seconds * parts + costs.row_seconds * rows,
        "merging": costs.merge_part_seconds * parts + costs.merge_row_seconds * rows,
    }


def shares(run: Mapping[str, Any]) -> tuple[float, float]:
    """Parts of a run's time that it waits for the disk, and that it would if it waited for each part."""
    working = run["editing"] - run["waiting"]
    return run["waiting"] / run["editing"], run["writing"] / (working + run["writing"])


def page(long: Mapping[str, Any], costs: Costs, wide: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    """The tables."""
    (share, instead), (wide_share, wide_instead) = shares(long), shares(wide)
    quarters = ", ".join(f"{one:.0f}" for one in long["memory"])
    drift = long["memory"][3] / long["memory"][1] - 1
    guess = predicted(costs, wide["rows"], wide["parts"])
    many = predicted(costs, MILLION, MILLION // BATCH)
    lines = [
        f"## A run of {long['pairs']:,} pairs, two steps of a very small model\n",
        "| what | measured |",
        "|---|---|",
        f"| seconds until the last batch was edited | {long['editing']:.0f} |",
        f"| of these in waiting for rows to be on the disk | {long['waiting']:.1f} ({share:.2%}) |",
        f"| seconds of writing them, while the next batch was edited | {long['writing']:.1f} |",
        f"| share of a run that waits for each part instead | {instead:.2%} |",
        f"| memory by quarter of the run, MB | {quarters} |",
        f"| last quarter against the second | {drift:+.2%} |",
        "",
        f"## What a part and a row cost ({SMALL:,} rows in parts of 1 and of {BATCH})\n",
        "| | a part | a row in it |",
        "|---|---|---|",
        f"| writing, ms | {1e3 * costs.part_seconds:.2f} | {1e3 * costs.row_seconds:.3f} |",
        f"| bytes | {costs.part_bytes:,.0f} | {costs.row_bytes:,.0f} |",
        f"| merging, ms | {1e3 * costs.merge_part_seconds:.2f} | {1e3 * costs.merge_row_seconds:.3f} |",
        f"| bytes in results.parquet | | {costs.result_bytes:,.0f} |",
        "",
        f"## Predicted, and the stub's run of {wide['pairs']:,} pairs\n",
        f"| | predicted | run | a million on {DEVICES} devices, predicted |",
        "|---|---|---|---|",
        f"| parts | {wide['pairs'] // BATCH:,} | {wide['parts']:,} | {MILLION // BATCH:,} |",
        *(
            f"| {told} | {guess[key] / unit:,.1f} | {wide[key] / unit:,.1f} | {many[key] / unit:,.1f} |"
            for told, key, unit in (
                ("parts, MB", "part_bytes", 1e6),
                ("results.parquet, MB", "result_bytes", 1e6),
                ("writing, s, all processes together", "writing", 1),
                ("merging, s, one process", "merging", 1),
            )
        ),
        f"| part of the time that it waits for rows to be on the disk | | {wide_share:.2%} | |",
        f"| the same if it waited for each part | | {wide_instead:.2%} | |",
        f"| memory by quarter of the run, MB | | {', '.join(f'{one:.0f}' for one in wide['memory'])} | |",
        f"| memory before merging, MB | | {wide['before_merging_mb']:.0f} | |",
        f"| memory while merging, MB | | {wide['peak_mb']:.0f} | |",
        "",
        f"## What is told of {told['rows']:,} rows afterwards\n",
        "| | seconds | memory it takes, MB | bytes a row |",
        "|---|---|---|---|",
        f"| figures for dashboards | {told['figures']:.1f} | "
        f"{told['figures_mb'] - told['before_mb']:.0f} | |",
        f"| the page | {told['page']:.1f} | {told['page_mb'] - told['figures_mb']:.0f} | "
        f"{told['page_bytes'] / told['rows']:.0f} |",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
