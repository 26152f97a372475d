"""Measures how long a run waits for rows to be on the disk, with the embedded model and few steps.

    python experiments/scale/share.py [--pairs 160]

Writes share.md beside this file.
"""

import argparse
from pathlib import Path

from measure import HERE, WORLD_STEPS, apart, shares

BATCH = 8
"""The batch of a run where none is given."""


def main() -> None:
    """Runs, prints and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=160)
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    lines = [
        "| batch | pairs | steps | seconds until the last batch was edited | waiting, s | share | writing, s "
        "| share of a run that waits for each part |",
        "|---|---|---|---|---|---|---|---|",
    ]
    found = apart("world", arguments.pairs, BATCH)
    figures = (BATCH, arguments.pairs, WORLD_STEPS, f"{found['editing']:.0f}", f"{found['waiting']:.2f}")
    share, instead = shares(found)
    told = (*map(str, figures), f"{share:.2%}", f"{found['writing']:.2f}", f"{instead:.2%}")
    lines.append(f"| {' | '.join(told)} |")
    text = "\n".join(lines) + "\n"
    print(text)
    (arguments.out / "share.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
