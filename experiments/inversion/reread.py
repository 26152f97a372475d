"""Brings rows.jsonl from version 1 of the attributes' reader to version 2 where that needs no picture.

    python experiments/inversion/reread.py [--out experiments/inversion]

Both versions read an only object, background, style and weather with the same weights. Version 2 reads two
objects with weights of their own, and is not asked for what it misreads in the source or in the exact answer.
Both are known, so the values of most images follow from those of version 1. The lines of the other images are
taken out: where there are two objects, and where version 2 is asked for less and some line has not kept all
else. `measure.py` then edits these images again.
"""

import argparse
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from measure import HERE, PAIR_SEED, READER

from p2p_bench.data.world import WorldReal
from p2p_bench.metrics.oracle import LABELS, OracleReading, load_oracle, reading_errors
from p2p_bench.metrics.world import attribute_changed, others_kept, unread
from p2p_bench.resources import resource_path
from p2p_bench.types import EditPair
from p2p_bench.world.scenes.render import SIDE

Row = dict[str, Any]
CHANGED, KEPT = "attribute_changed", "others_kept"


def main() -> None:
    """Rewrites the file, and says how many images stay."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=HERE)
    file = parser.parse_args().out / "rows.jsonl"
    rows: list[Row] = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    by_image: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_image[row["sample"]].append(row)
    data = WorldReal(count=max(int(sample.split("_")[2]) for sample in by_image) + 1, seed=PAIR_SEED)
    folder = resource_path("p2p_bench", "world", "weights") / "oracle_b"
    oracle, errors = load_oracle(folder), reading_errors(folder)
    kept: set[str] = set()
    for pair in data.pairs():
        own = by_image.pop(pair.id, [])
        images = data.load(pair, (SIDE, SIDE))
        if images.image is None or images.answer is None or pair.scene is None or pair.scene_edit is None:
            raise SystemExit(f"{pair.id}: no edit of a rendered scene")
        source, answer = (oracle.read(image[None])[0] for image in (images.image, images.answer))
        left_out = unread(errors, pair.scene, pair.scene_edit)
        if reread(own, pair, source, answer, left_out):
            kept.add(pair.id)
    if by_image:
        raise SystemExit(f"{file}: not images of this page: {', '.join(by_image)}")
    lines = (json.dumps(row) + "\n" for row in rows if row["sample"] in kept)
    file.write_text("".join(lines), encoding="utf-8")
    print(f"{len(kept)} of {data.count} images stay")


def reread(
    rows: list[Row], pair: EditPair, source: OracleReading, answer: OracleReading, left_out: dict[str, str]
) -> bool:
    """Brings the rows of one image to version 2, or says that only the pictures could tell.

    Args:
        rows: One per method and guidance, changed in place; those of version 2 stay as they are.
        pair: What was asked for.
        source: What is read in the image.
        answer: What is read in the exact answer.
        left_out: What the reader is not asked for, with reasons.
    """
    old = [row for row in rows if row.get("reader", 1) == 1]
    scene, edit = pair.scene, pair.scene_edit
    assert scene is not None
    assert edit is not None
    others = set(LABELS) - {"weather" if edit["attribute"] == "weather_strength" else edit["attribute"]}
    asked_alike = not others & set(left_out) and others_kept(source, answer, scene, edit) == 1
    if old and (len(scene["objects"]) > 1 or (not asked_alike and any(row[KEPT] == 0 for row in old))):
        return False
    asked = not math.isnan(attribute_changed(answer, scene, edit, answer, left_out))
    for row in old:
        row.update({CHANGED: row[CHANGED] if asked else None, "reader": READER})
    return bool(rows)


if __name__ == "__main__":
    main()
