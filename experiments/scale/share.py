"""Measures what part of a run's time goes into writing rows, with the embedded model and few steps.

    python experiments/scale/share.py [--pairs 160]

Writes share.md beside this file.
"""

import argparse
from pathlib import Path

from measure import HERE, WORLD_STEPS, apart

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
        "| batch | pairs | steps | seconds until the last batch was on the disk | writing, s | share |",
        "|---|---|---|---|---|---|",
    ]
    found = apart("world", arguments.pairs, BATCH)
    figures = (BATCH, arguments.pairs, WORLD_STEPS, f"{found['editing']:.0f}", f"{found['writing']:.2f}")
    share = found["writing"] / found["editing"]
    lines.append(f"| {' | '.join(map(str, figures))} | {share:.2%} |")
    text = "\n".join(lines) + "\n"
    print(text)
    (arguments.out / "share.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
