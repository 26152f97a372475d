"""Kills runs at random points and finishes them: nothing is lost, read half or done twice.

    python experiments/reliability/kills.py [--kills 30] [--seed 0] [--only MODE ...]

A mode is a run alone, one by two processes (`trainer=ddp`), or a sweep. Each kill starts the command in a
process group of its own, ends the whole group with SIGKILL after a random time, looks at every file, runs the
same command again, and compares the rows with those of an undisturbed run. Writes kills.md beside this file,
unless only some modes are tried or `--out` names another.

Processes are forked from one that has imported everything, so that the time of a kill falls on the run and
not on imports.
"""

import argparse
import math
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from p2p_bench.app.main import run_verb
from p2p_bench.bench import workers
from p2p_bench.bench.rows import key_of, read_rows

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

COLOURS = ("red", "green", "blue", "yellow")
PAIRS = [
    {
        "id": f"pair {number}",
        "source": f"a {COLOURS[number % 4]} circle on grass",
        "target": "a star on grass",
    }
    for number in range(12)
]
BATCH = 2
COMMON = ("metrics=pixel", "sampler.steps=6", f"run.batch_size={BATCH}", "run.images=1", "logger=none")
MODES: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "ddp": ("trainer=ddp", "trainer.devices=2"),
    "sweep": ("-m", "tau.cross=0.2,0.8"),
}
FREE = ("seconds", "peak_memory_mb", "unet_rows_spent")
"""Columns that tell of the computing and not of the edit."""


@dataclass(frozen=True)
class Kill:
    """What became of a run that was killed.

    Attributes:
        mode: How it ran.
        after: Seconds until the kill.
        before: Rows on the disk then.
        faults: What was not as it should be; nothing if all was.
    """

    mode: str
    after: float
    before: int
    faults: tuple[str, ...]


def main() -> int:
    """Kills and finishes runs; the exit code is 1 if anything was not as it should be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=30, help="of each mode")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--out", type=Path, default=HERE / "kills.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    workers.START = "fork"
    found: list[Kill] = []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["P2P_BENCH_CACHE"] = str(Path(folder, "cache"))
        from tests.app.command import tiny_overrides, write_pairs

        pairs = write_pairs(Path("pairs.jsonl").absolute(), PAIRS)
        settings = [*tiny_overrides(pairs), *COMMON]
        run_verb([*settings, "-m", "seed=0", "run.dir=first"])  # imports what forks would have to import
        for mode in arguments.only:
            found += killed_runs(mode, settings, arguments.kills, random.Random(f"{arguments.seed} {mode}"))
    text = page(found, arguments.seed)
    print(text)
    if len(arguments.only) == len(MODES):
        arguments.out.write_text(text, encoding="utf-8")
    return int(any(kill.faults for kill in found))


def killed_runs(mode: str, settings: Sequence[str], kills: int, rng: random.Random) -> list[Kill]:
    """Kills so many runs of a mode."""
    began = time.monotonic()
    whole = Path(f"{mode}-whole")
    process = started([*settings, *MODES[mode], f"run.dir={whole}"])
    assert ended(process) == 0, Path("said.txt").read_text()
    seconds = time.monotonic() - began
    found = []
    for number in range(kills):
        folder, after = Path(f"{mode}-{number}"), rng.uniform(0, seconds)
        found.append(killed(mode, [*settings, *MODES[mode], f"run.dir={folder}"], folder, whole, after))
        print(found[-1], flush=True)
    return found


def killed(mode: str, command: Sequence[str], folder: Path, whole: Path, after: float) -> Kill:
    """One kill, and what became of the run."""
    process = started(command)
    time.sleep(after)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    faults: list[str] = []
    before = 0
    try:
        before = sum(len(rows) for rows in all_rows(folder).values())
        for table in folder.rglob("*.parquet"):
            if not table.name.startswith("."):
                pq.read_table(table, partitioning=None)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is what is looked for
        faults.append(f"a file cannot be read: {error}")
    if (code := ended(started(command))) != 0:
        faults.append(f"the run that goes on ended with {code}: {Path('said.txt').read_text()[-300:]}")
        return Kill(mode, after, before, tuple(faults))
    rows, expected = all_rows(folder), all_rows(whole)
    written = sum(pq.read_metadata(part).num_rows for part in folder.rglob("part-*.parquet") if in_rows(part))
    if written != sum(map(len, expected.values())):
        faults.append(f"{written} rows were written, {sum(map(len, expected.values()))} are needed")
    faults += [f"{name}: other rows" for name in expected if not same(rows.get(name, {}), expected[name])]
    return Kill(mode, after, before, tuple(faults))


def in_rows(part: Path) -> bool:
    """Whether a part holds rows, and no references."""
    return part.parent.name == "rows"


def all_rows(folder: Path) -> dict[str, dict[Any, Mapping[str, Any]]]:
    """Rows by key, of a run or of each job of a sweep, as far as there are any."""
    places = {path.parent for path in folder.rglob("rows")}
    return {
        str(place.relative_to(folder)): {key_of(row): row for row in read_rows(place)} for place in places
    }


def same(rows: Mapping[Any, Mapping[str, Any]], others: Mapping[Any, Mapping[str, Any]]) -> bool:
    """Whether rows agree, numbers to rounding, but for what tells of the computing."""
    return rows.keys() == others.keys() and all(
        agree(rows[key][column], others[key][column])
        for key in rows
        for column in rows[key]
        if column not in FREE
    )


def agree(value: Any, other: Any) -> bool:
    """Whether two values are equal, or as near as rounding leaves them, or both undefined."""
    if not isinstance(value, float) or not isinstance(other, float):
        return bool(value == other)
    return (math.isnan(value) and math.isnan(other)) or math.isclose(value, other, rel_tol=1e-4, abs_tol=1e-6)


def started(command: Sequence[str]) -> int:
    """Starts a command in a process group of its own; its number."""
    process = os.fork()
    if process:
        while os.getpgid(process) != process:  # a kill may come at once
            time.sleep(0.001)
        return process
    code = 70
    try:
        os.setsid()
        said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        code = run_verb(list(command))
    except BaseException:  # noqa: BLE001  # a fork must not go on as its parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(process: int) -> int:
    """Waits for a process; its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def page(found: Sequence[Kill], seed: int) -> str:
    """The log."""
    lines = [
        f"{len(found)} kills, seed {seed}; each run has {len(PAIRS)} pairs in batches of {BATCH}.\n",
        "| mode | kills | before any row | between | after the last row | faults |",
        "|---|---|---|---|---|---|",
    ]
    for mode in dict.fromkeys(kill.mode for kill in found):
        own = [kill for kill in found if kill.mode == mode]
        full = len(PAIRS) * (2 if mode == "sweep" else 1)
        early, late = (sum(kill.before == count for kill in own) for count in (0, full))
        faults = sum(map(len, (kill.faults for kill in own)))
        lines.append(f"| {mode} | {len(own)} | {early} | {len(own) - early - late} | {late} | {faults} |")
    lines += [
        "",
        *(
            f"- {kill.mode} {kill.after:.2f} s {kill.before} rows: "
            + ("; ".join(kill.faults) or "as it should be")
            for kill in found
        ),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
