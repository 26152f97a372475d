"""Mapping files of PIE-Bench: one record with one thing changed beside a good one; masks to the bit."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from cases import Case, Outcome, call, empty_folder
from PIL import Image

from p2p_bench.data.pie_bench import PieBench

SIDE = 512
TOTAL = SIDE * SIDE
COLOURS, SHAPES = ("red", "green", "blue", "yellow"), ("circle", "square", "star", "cat")
FOLDERS = (
    "0_random_140",
    "1_change_object_80/1_artificial/1_animal",
    "9_change_style_80/2_natural/4_outdoor",
)
_PICTURE: list[bytes] = []

Entry = dict[str, Any]


def cases(rng: random.Random, count: int) -> Iterator[Case]:
    """About `count` cases, half of them valid."""
    for number in range(count):
        kind = rng.choice(list(BAD)) if number % 2 else rng.choice(list(GOOD))
        yield _case(rng, kind, valid=not number % 2)


def _case(rng: random.Random, kind: str, valid: bool) -> Case:
    runs = _runs(rng)
    entry: Entry = {
        "image_path": f"{rng.choice(FOLDERS)}/{rng.randrange(10**12):012d}.jpg",
        "original_prompt": f"a [{rng.choice(COLOURS)}] {rng.choice(SHAPES)} on grass",
        "editing_prompt": f"a [{rng.choice(COLOURS)}] star on grass",
        "editing_instruction": "change it",
        "editing_type_id": str(rng.randrange(10)),
        "blended_word": "grass grass",
        "mask": [number for run in runs for number in run],
    }
    change = (GOOD if valid else BAD)[kind]
    entry, names = change(rng, entry)
    return Case("pie", kind, valid, lambda: _tried(entry, kind, valid), f"{kind}: {str(entry)[:150]}", names)


def _tried(entry: Any, kind: str, valid: bool) -> Outcome:
    with empty_folder() as folder:
        good = {
            "image_path": "good.jpg", "original_prompt": "a cat", "editing_prompt": "a dog",
            "editing_type_id": "1", "blended_word": "", "mask": [0, 10],
        }  # fmt: skip
        _save(folder / "annotation_images" / "good.jpg")
        path = entry.get("image_path") if isinstance(entry, dict) else None
        if isinstance(path, str) and kind not in ("image absent", "image elsewhere", "absolute path"):
            _save(folder / "annotation_images" / path, SIDE - 1 if kind == "image of another size" else SIDE)
        text = json.dumps({"000000000000": good, "111000000000": entry})
        text = {"no JSON": text[:-2], "a list": f"[{text}]", "empty file": ""}.get(kind, text)
        (folder / "mapping_file.json").write_text(text)
        return call(lambda: _read(folder, entry, valid))


def _read(folder: Path, entry: Any, valid: bool) -> str | None:
    dataset = PieBench(folder, border=False)
    pairs = dataset.pairs()
    pixels = [dataset.load(pair, (SIDE, SIDE)) for pair in pairs]
    if not valid:
        return None
    if [pair.id for pair in pairs] != ["000000000000", "111000000000"]:
        return "other pairs"
    if pairs[1].source_prompt != entry["original_prompt"].replace("[", "").replace("]", ""):
        return "another prompt"
    expected = np.zeros(TOTAL, bool)
    for start, length in zip(entry["mask"][::2], entry["mask"][1::2], strict=True):
        expected[start : start + length] = True
    mask = pixels[1].mask
    return (
        None if mask is not None and (mask.numpy() == expected.reshape(SIDE, SIDE)).all() else "another mask"
    )


def _save(path: Path, side: int = SIDE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if side != SIDE:
        Image.new("RGB", (side, side), "red").save(path)
        return
    if not _PICTURE:
        Image.new("RGB", (side, side), "blue").save(path)
        _PICTURE.append(path.read_bytes())
    path.write_bytes(_PICTURE[0])


def _runs(rng: random.Random) -> list[tuple[int, int]]:
    """Runs that do not overlap, in order; perhaps none."""
    places = sorted(rng.sample(range(TOTAL), 2 * rng.randrange(0, 12)))
    return [(start, end - start) for start, end in zip(places[::2], places[1::2], strict=True)]


def _set(key: str, *values: Any, names: tuple[str, ...] = ()) -> Callable[[random.Random, Entry], Any]:
    def change(rng: random.Random, entry: Entry) -> tuple[Entry, tuple[str, ...]]:
        return {**entry, key: rng.choice(values)}, names or (key,)

    return change


def _without(key: str) -> Callable[[random.Random, Entry], Any]:
    return lambda rng, entry: ({name: value for name, value in entry.items() if name != key}, (key,))


def _mask(make: Callable[[random.Random, list[Any]], list[Any]]) -> Callable[[random.Random, Entry], Any]:
    return lambda rng, entry: ({**entry, "mask": make(rng, list(entry["mask"]))}, ("mask",))


def _shuffled(rng: random.Random, mask: list[Any]) -> list[Any]:
    runs = list(zip(mask[::2], mask[1::2], strict=True))
    rng.shuffle(runs)
    return [number for run in runs for number in run]


def _whole(value: Any) -> Callable[[random.Random, Entry], Any]:
    return lambda rng, entry: (value, ("111000000000", "mapping_file.json"))


GOOD: dict[str, Callable[[random.Random, Entry], Any]] = {
    "as published": lambda rng, entry: (entry, ()),
    "runs in another order": _mask(_shuffled),
    "last run clipped": _mask(lambda rng, mask: [TOTAL - rng.randrange(1, 9), 100]),
    "no run": _mask(lambda rng, mask: []),
    "whole image": _mask(lambda rng, mask: [0, TOTAL]),
    "no blend word": _set("blended_word", "", "  "),
    "more blend words": _set("blended_word", "grass grass star circle"),
    "no instruction": _without("editing_instruction"),
    "brackets": _set("original_prompt", "a [[red] star on grass", "[a star on grass]", "a ] star [ on grass"),
    "letters": _set("editing_instruction", "café ☃", "<script>", "x" * 500),
}
BAD: dict[str, Callable[[random.Random, Entry], Any]] = {
    "odd mask": _mask(lambda rng, mask: [*mask, rng.randrange(TOTAL)]),
    "negative start": _mask(lambda rng, mask: [-rng.randrange(1, 99), 5]),
    "negative length": _mask(lambda rng, mask: [5, -rng.randrange(1, 99)]),
    "overlap": _mask(lambda rng, mask: [10, 20, 10 + rng.randrange(1, 20), 5]),
    "behind the image": _mask(lambda rng, mask: [TOTAL + rng.randrange(99), 1]),
    "too long": _mask(lambda rng, mask: [0, TOTAL + rng.randrange(1, 10**9)]),
    "no integers": _mask(lambda rng, mask: [0, rng.choice([1.5, True, None, "4", [], {}])]),
    "text for a mask": _set("mask", "left half", {}, 7, True),
    "no mask": _without("mask"),
    "null mask": _set("mask", None),
    "no source": _without("original_prompt"),
    "no target": _without("editing_prompt"),
    "no type": _without("editing_type_id"),
    "no path": _without("image_path"),
    "empty prompt": _set("original_prompt", "", "  ", "[]", names=("prompt",)),
    "prompt of another type": _set("editing_prompt", 3, None, [], {}, ["a dog"]),
    "unknown type": _set("editing_type_id", "10", "-1", "x", "", "01"),
    "one blend word": _set("blended_word", "grass", "cat "),
    "blend word elsewhere": _set("blended_word", "zebra grass", "grass zebra", names=("zebra",)),
    "image absent": lambda rng, entry: (entry, (Path(entry["image_path"]).name,)),
    "image elsewhere": _set("image_path", "../x.jpg", "a/../../x.jpg", names=("x.jpg",)),
    "absolute path": _set("image_path", "/etc/hostname", "/x.jpg", names=("/",)),
    "image of another size": lambda rng, entry: (entry, ("512",)),
    "no object": _whole(3),
    "a list for a record": _whole([1]),
    "no JSON": lambda rng, entry: (entry, ("mapping_file.json",)),
    "a list": lambda rng, entry: (entry, ("mapping_file.json",)),
    "empty file": lambda rng, entry: (entry, ("mapping_file.json",)),
}
"""What is changed in a record, and one of the words that the refusal has to hold."""
