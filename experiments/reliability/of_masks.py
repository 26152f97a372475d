"""Masks of every kind, sizes and places, in a run: what is counted as outside must be outside."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from cases import Case, Outcome, command, empty_folder
from of_config import base
from PIL import Image

SIDE = 48
"""Height of the pictures; some are three times as wide, of which a centred square is kept."""


def cases(rng: random.Random, count: int) -> Iterator[Case]:
    """About `count` cases, two thirds of them good."""
    makers = (_drawn, _drawn, _refused)
    yield from (makers[index % len(makers)](rng) for index in range(count))


def _drawn(rng: random.Random) -> Case:
    """A mask that is read as drawn; values outside it exist just where it divides what is kept."""
    wide = rng.random() < 0.5
    width = 3 * SIDE if wide else SIDE
    kind = rng.choice(["part", "left of the crop", "empty", "full", "one pixel", "random"])
    drawn = np.zeros((SIDE, width), bool)
    if kind == "part":
        drawn[10:30, width // 2 - 10 : width // 2 + 5] = True
    if kind == "left of the crop":
        drawn[10:30, : SIDE // 2] = True
    if kind == "full":
        drawn[:] = True
    if kind == "one pixel":
        drawn[rng.randrange(SIDE), width // 2] = True
    if kind == "random":
        drawn = np.random.default_rng(rng.randrange(2**32)).random((SIDE, width)) < rng.choice(
            [0.001, 0.3, 0.999]
        )
    kept = drawn[:, SIDE : 2 * SIDE] if wide else drawn
    white = Image.fromarray(np.where(drawn, 255, 0).astype(np.uint8))
    mode = rng.choice(["L", "1", "RGB", "P", "RGBA", "LA"])
    ending = rng.choice(["png", "tiff"]) if mode not in ("P", "LA") else "png"
    shown = f"{kind}, {width} x {SIDE}, {mode}, {ending}"
    return Case(
        "masks", f"drawn: {kind}", True, lambda: _run(white.convert(mode), ending, width, kept), shown
    )


def _refused(rng: random.Random) -> Case:
    """A picture that is no mask, or not this image's: an error of its row."""
    grey = Image.new("L", (SIDE, SIDE))
    grey.paste(255, (10, 10, 30, 30))
    half = grey.convert("RGBA")
    half.putalpha(grey.point(lambda value: 255 - value // 2))
    labels = Image.new("RGB", (SIDE, SIDE), "red")
    labels.paste("blue", (10, 10, 30, 30))
    options: dict[str, Image.Image | bytes] = {
        "another size": grey.resize((SIDE, SIDE // 2)),
        "one pixel wider": grey.resize((SIDE + 1, SIDE)),
        "0 and 1": grey.point(lambda value: value // 255),
        "16 bits": Image.fromarray(np.asarray(grey).astype(np.uint16) * 257),
        "floating point": grey.convert("F"),
        "colours": labels,
        "transparent": half,
        "nothing white": grey.point(lambda value: value // 4),
        "not an image": b"x" * 300,
        "empty file": b"",
    }
    kind = rng.choice(list(options))
    mask = options[kind]
    return Case("masks", f"refused: {kind}", False, lambda: _run(mask, "tiff", SIDE, None), kind, ("mask",))


def _run(mask: Image.Image | bytes, ending: str, width: int, kept: np.ndarray | None) -> Outcome:
    """One edit without control, scored outside its mask."""
    with empty_folder() as folder:
        _write(folder, mask, ending, width)
        outcome = command(
            *base(folder), "metrics=pixel", "run.dir=out", "controller=none", "inversion=noising"
        )
        rows = folder / "out" / "results.parquet"
        if not rows.is_file():
            return outcome
        (row,) = pq.read_table(rows).to_pylist()
        if row["status"] != "ok" or kept is None:
            return Outcome(row["status"] == "ok", f"{outcome.text} {row['error']}")
        return Outcome(outcome.accepted, outcome.text, wrong=_wrong(row, kept) or "")


def _wrong(row: dict[str, Any], kept: np.ndarray) -> str | None:
    """How a row fits its mask ill."""
    inside = bool(kept.any())
    # At the model's size a pixel that is partly covered is inside: blocks of three become one.
    outside = not bool(kept.reshape(16, 3, 16, 3).any((1, 3)).all())
    defined = row["mse_outside"] is not None and row["mse_outside"] == row["mse_outside"]
    if defined and not (inside and outside):
        return f"a value outside a mask that divides nothing: {row['mse_outside']}"
    if not defined and inside and not _nearly_full(kept):
        return "no value outside a mask that divides the picture"
    return None


def _nearly_full(kept: np.ndarray) -> bool:
    """Whether a resize with its filter's reach may cover everything."""
    grown = kept.copy()
    for axis in (0, 1):
        for by in (-3, -2, -1, 1, 2, 3):
            grown |= np.roll(kept, by, axis)
    return bool(grown.reshape(16, 3, 16, 3).any((1, 3)).mean() > 0.9)


def _write(folder: Path, mask: Image.Image | bytes, ending: str, width: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "image.png")
    if isinstance(mask, bytes):
        (folder / f"mask.{ending}").write_bytes(mask)
    else:
        mask.save(folder / f"mask.{ending}")
    line = {"source": "a cat", "target": "a dog", "image": "image.png", "mask": f"mask.{ending}"}
    (folder / "pairs.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
