"""Tries thousands of labelled inputs, good and bad, and counts what became of them.

    python experiments/reliability/fuzz.py [--cases 3200] [--seed 0] [--only AREA ...] [--sample N] [--jobs N]
        [--keep DIR]

Every input is labelled by its generator: it must run, or it must be refused. Prints a table and every case
that went otherwise; writes both to results.md beside this file, unless only a part was asked for: some areas,
or so many cases of each.
"""

import argparse
import json
import logging
import random
import sys
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

import of_api
import of_checkpoints
import of_config
import of_images
import of_masks
import of_pairs
import of_pie
from cases import VERDICTS, judged

HERE = Path(__file__).resolve().parent
AREAS = {
    "settings": of_config.cases,
    "pairs": of_pairs.cases,
    "pie": of_pie.cases,
    "images": of_images.cases,
    "masks": of_masks.cases,
    "checkpoints": of_checkpoints.cases,
    "python": of_api.cases,
}

SHARES = {"settings": 12, "pairs": 6, "pie": 24, "images": 28, "masks": 4, "checkpoints": 9, "python": 17}
"""Per cent of the cases that are of an area: fewer where each is a whole run."""


@dataclass
class Found:
    """What became of the cases of an area.

    Attributes:
        counts: By area, label and verdict.
        kinds: Area, kind and label of what was tried.
        faults: What went otherwise than labelled.
    """

    counts: Counter[tuple[str, bool, str]] = field(default_factory=Counter)
    kinds: set[tuple[str, str, bool]] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)


def main() -> int:
    """Runs the cases; the exit code is 1 if one went otherwise than labelled."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=3200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=AREAS, default=list(AREAS))
    parser.add_argument("--sample", type=int, default=None)
    parser.add_argument("--jobs", type=int, default=1, help="areas that are tried side by side")
    parser.add_argument("--keep", type=Path, help="directory; areas done there are not tried again")
    arguments = parser.parse_args()
    asked = {"cases": arguments.cases, "seed": arguments.seed, "sample": arguments.sample}
    area = partial(kept, folder=arguments.keep, **asked)
    if arguments.jobs == 1:  # another process would have to import all that this one has
        found = list(map(area, arguments.only))
    else:
        with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as processes:
            found = list(processes.map(area, arguments.only))
    counts = sum((one.counts for one in found), Counter[tuple[str, bool, str]]())
    kinds = set().union(*(one.kinds for one in found))
    faults = [fault for one in found for fault in one.faults]
    text = table(counts, len(kinds), sum(not valid for _, _, valid in kinds), arguments.seed)
    print(text)
    if arguments.sample is None and len(arguments.only) == len(AREAS):
        listed = "".join(f"- {fault}\n" for fault in faults) or "None.\n"
        (HERE / "results.md").write_text(f"{text}\n## Otherwise than labelled\n\n{listed}", encoding="utf-8")
    return int(bool(faults))


def kept(area: str, folder: Path | None, **asked: Any) -> Found:
    """As `tried`, or what it found before, if that was kept in `folder`."""
    if folder is None:
        return tried(area, **asked)
    file = folder / f"{area}-{asked['cases']}-{asked['seed']}-{asked['sample']}.json"
    if not file.exists():
        found = tried(area, **asked)
        folder.mkdir(parents=True, exist_ok=True)
        counts = [[*key, number] for key, number in found.counts.items()]
        file.write_text(json.dumps([counts, sorted(found.kinds), found.faults], indent=1), encoding="utf-8")
    counts, kinds, faults = json.loads(file.read_text(encoding="utf-8"))
    by_key = Counter({(name, valid, verdict): number for name, valid, verdict, number in counts})
    return Found(by_key, {(name, kind, valid) for name, kind, valid in kinds}, faults)


def tried(area: str, cases: int, seed: int, sample: int | None) -> Found:
    """Tries the cases of an area, or a sample of them."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rng = random.Random(f"{seed} {area}")
    every = list(AREAS[area](rng, cases * SHARES[area] // 100))
    found = Found()
    for case in every if sample is None else rng.sample(every, sample):
        verdict, behind = judged(case)
        found.counts[area, case.valid, verdict] += 1
        found.kinds.add((area, case.kind, case.valid))
        if verdict != "as labelled":
            told = f"{verdict}: {area}, {case.kind}: {case.shown[:200]}"
            found.faults.append(f"{told}\n    {_brief(behind)}")
            print(found.faults[-1], flush=True)
    return found


def table(counts: Counter[tuple[str, bool, str]], kinds: int, wrong_kinds: int, seed: int) -> str:
    """Verdicts by area."""
    areas = list(dict.fromkeys(area for area, _, _ in counts))
    invalid = sum(number for (_, valid, _), number in counts.items() if not valid)
    head = (
        f"{sum(counts.values())} cases of {kinds} kinds; {invalid} of them, of {wrong_kinds} kinds, are "
        f"labelled invalid. Seed {seed}.\n\n"
    )
    lines = [" | ".join(["area", "valid", "invalid", *VERDICTS]), "---|" * (len(VERDICTS) + 2) + "---"]
    for area in areas:
        by_label = [sum(counts[area, valid, verdict] for verdict in VERDICTS) for valid in (True, False)]
        by_verdict = [counts[area, True, verdict] + counts[area, False, verdict] for verdict in VERDICTS]
        lines.append(" | ".join(map(str, [area, *by_label, *by_verdict])))
    return head + "".join(f"| {line} |\n" if not line.startswith("---") else f"|{line}|\n" for line in lines)


def _brief(text: str) -> str:
    """The last words of what was said."""
    return " ".join(text.split())[-300:]


if __name__ == "__main__":
    sys.exit(main())
