"""Lines of a JSONL file: a good pair with one thing changed, beside a pair that must come through."""

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from cases import Case, Outcome, command, empty_folder
from of_config import base
from PIL import Image

GOOD = {"id": "good", "source": "a cat on sand", "target": "a dog on sand"}
COLOURS, SHAPES, PLACES = (
    ("red", "green", "blue", "yellow"),
    ("circle", "square", "star", "cat"),
    ("grass", "sand"),
)
JUNK: tuple[Any, ...] = (3, -1.5, True, [], {}, [1], {"zebra": 1}, [[["x"]]], None, "", "  ", "\t")
SCENE = {
    "objects": [
        {
            "shape": "circle",
            "colour": "red",
            "pattern": "plain",
            "x": 0.5,
            "y": 0.5,
            "size": 0.4,
            "angle": 0.0,
        }
    ],
    "background": "grass",
}
BAD_NUMBERS: tuple[Any, ...] = (None, "x", -1, 1e308, float("nan"), float("inf"), True, [], {}, 10**400)
BAD_BYTES = (
    b'{"source": "a cat", "target": "a dog"', b"[1, 2]", b"3", b"null", b'"text"', b"{}", b"{'source': 'a'}",
    b'\xff\xfe{"source": "a"}', b'{"source": "\xe9", "target": "a dog"}', b"[" * 100_000, b'{"source": NaN}',
    b'{"source": "a cat", "source": "a dog", "target": "a dog"}', b"\x00\x00", b"source,target\na cat,a dog",
    b'{"source": "\\ud800 cat", "target": "a dog"}', b'{"source": "a cat" "target": "a dog"}', b"{" * 5,
)  # fmt: skip
TOO_LONG = "a cat and a dog and a cat and a dog and a cat and a dog"


def cases(rng: random.Random, count: int) -> Iterator[Case]:
    """About `count` cases, four in ten of them valid."""
    makers = (_pair, _pair, _junk, _scene, _words, _path, _bytes, _file)
    yield from (makers[index % len(makers)](rng) for index in range(count))


def _pair(rng: random.Random) -> Case:
    """A good pair, whatever else a line may hold."""
    line = _good(rng)
    extras: list[dict[str, Any]] = [
        {"seed": rng.randrange(2**63)},
        {"category": rng.choice(["", "swap", "ü<script>"])},
        {"id": rng.choice(["7", "../x", "a/b", "ü" * 40, "x" * 300, "CON", ".", "<b>", "a\nb"])},
        {"id": rng.randrange(1000)},
        {"word_weights": {"on": rng.uniform(-2, 3)}},
        {"blend_words": ["on", ["on"]]},
        {"image": "cat.png"},
        {"image": "cat.png", "mask": "mask.png"},
        {"scene": SCENE, "real": True},
        {"target_prompts": [line.pop("target"), "a star on sand"]} if rng.random() < 0.2 else {},
    ]
    for extra in rng.sample(extras, 2):
        if not {"scene", "image"} <= {*line, *extra}:
            line |= extra
    if "target_prompts" not in line and "target" not in line:
        line["target"] = "a dog on water"
    return _case("good pair", line, True)


def _junk(rng: random.Random) -> Case:
    """A value of a kind that its key cannot have."""
    key = rng.choice(
        ["source", "target", "id", "image", "mask", "seed", "category", "word_weights", "blend_words", "real"]
    )
    fits: dict[str, tuple[Any, ...]] = {
        "id": (3, None),
        "seed": (3, None),
        "category": (None, "", "  ", "\t"),
        "word_weights": (None, {}),
        "real": (None,),
        **dict.fromkeys(("image", "mask", "blend_words"), (None,)),
    }
    wrong = [
        value
        for value in JUNK
        if not any(value is one or (value == one and type(value) is type(one)) for one in fits.get(key, ()))
    ]
    return _case(
        f"{key} of a wrong kind", {**_good(rng), key: rng.choice(wrong)}, False, (key, "line 2", "zebra")
    )


def _scene(rng: random.Random) -> Case:
    """A scene, mostly with a value that cannot be drawn."""
    line, scene = {**_good(rng), "real": True}, json.loads(json.dumps(SCENE))
    thing = scene["objects"][0]
    kind = rng.choice(["good", "number", "word", "missing", "extra", "objects", "edit"])
    if kind == "number":
        thing[rng.choice(["x", "y", "size", "angle"])] = rng.choice([v for v in BAD_NUMBERS if v != -1])
    if kind == "word":
        thing[rng.choice(["shape", "colour", "pattern"])] = rng.choice(["crcle", None, 3, [], "", {}])
    if kind == "missing":
        del thing[rng.choice(list(thing))]
    if kind == "extra":
        (thing if rng.random() < 0.5 else scene)["extra"] = 1
    if kind == "objects":
        scene["objects"] = rng.choice([[], None, {}, 3, "x", [3], [thing] * 3, [None]])
    if kind == "edit":
        line["edit"] = rng.choice(
            [
                {"attribute": "colour"},
                {"attribute": "colur", "value": "blue"},
                {"attribute": "colour", "value": "blu"},
                {"attribute": "colour", "value": "blue", "index": rng.choice([1, -1, "0", None, 1.5])},
                {"attribute": None, "value": None},
                {"attribute": "size", "value": rng.choice([None, "x", float("nan"), 1e308])},
                [1],
                "colour",
            ]
        )
    return _case(f"scene: {kind}", {**line, "scene": scene}, kind == "good", ("scene", "edit"))


def _words(rng: random.Random) -> Case:
    """Prompts and words that do or do not go together."""
    line = _good(rng)
    options: list[tuple[str, dict[str, Any], bool, tuple[str, ...]]] = [
        ("word swap", {"source": "a red circle on grass", "target": "a blue circle on grass"}, True, ()),
        ("full stop on one side", {"source": "a cat on sand", "target": "a dog on sand."}, True, ()),
        ("accents two ways", {"source": "a cafe\u0301 cat", "target": "a caf\u00e9 dog"}, True, ()),
        ("too long", {"target": TOO_LONG}, False, ("long",)),
        ("no word at all", {"target": "..."}, True, ()),
        ("equal prompts", {"target": line["source"]}, False, ("are both", "differ")),
        ("equal but for white space", {"target": f"  {line['source']} "}, False, ("are both", "differ")),
        ("equal but for case", {"target": line["source"].upper()}, False, ("are both", "differ")),
        ("weight of a missing word", {"word_weights": {"zebra": 2}}, False, ("zebra",)),
        ("weight not finite", {"word_weights": {"on": float("nan")}}, False, ("weights",)),
        ("weight of 400 digits", {"word_weights": {"on": 10**400}}, False, ("weights",)),
        ("weight as text", {"word_weights": {"on": "2"}}, False, ("weights",)),
        (
            "blend with a missing word",
            {"blend_words": ["on", "zebra"]},
            True,
            (),
        ),  # read by local blend alone
        ("seed too large", {"seed": 2**63}, False, ("seed",)),
        ("seed below 0", {"seed": -1}, False, ("seed",)),
        ("unknown key", {"sorce": "a cat"}, False, ("sorce",)),
        ("both kinds of target", {"target_prompts": ["a dog"]}, False, ("target",)),
        ("mask without image", {"mask": "mask.png"}, False, ("mask",)),
    ]
    kind, change, valid, names = rng.choice(options)
    return _case(kind, {**line, **change}, valid, names)


def _path(rng: random.Random) -> Case:
    """An image's path: inside the root, outside it, or nowhere."""
    key = rng.choice(["image", "mask"])
    options: list[tuple[str, str, bool]] = [
        ("inside", "cat.png" if key == "image" else "mask.png", True),
        ("inside, by detour", "sub/../cat.png" if key == "image" else "./mask.png", True),
        ("with spaces and marks", f"a b,=[x]$é{'' if key == 'image' else ' m'}.png", True),
        ("missing", "nowhere.png", False),
        ("a folder", "sub", False),
        ("leaves the root", "../cat.png", False),
        ("absolute", "/etc/passwd", False),
        ("through a link", "link/passwd", False),
        ("5,000 letters", "x" * 5000 + ".png", False),
        ("many folders", "sub/" * 3000 + "cat.png", False),
        ("NUL", "a\0.png", False),
        ("broken link", "dangling.png", False),
        ("pipe", "pipe", False),
        ("not an image", "pairs.jsonl", False),
        ("empty file", "empty.png", False),
    ]
    kind, path, valid = rng.choice(options)
    line = {**_good(rng), "image": "cat.png", key: path}
    return _case(f"path of {key}: {kind}", line, valid, (path[:20], key))


def _bytes(rng: random.Random) -> Case:
    """A line that is no JSON object, or no text."""
    line = rng.choice(BAD_BYTES)
    return Case(
        "pairs", "line that is no object", False, lambda: _run(line), repr(line[:60]), ("line 2", "line 3")
    )


def _file(rng: random.Random) -> Case:
    """A file as a whole."""
    good = json.dumps(GOOD).encode()
    options: list[tuple[str, bytes, bool]] = [
        ("mark at the start", b"\xef\xbb\xbf" + good, True),
        ("carriage returns", good + b"\r\n", True),
        ("blank lines", b"\n\n" + good + b"\n  \n", True),
        ("empty", b"", False),
        ("blank", b"\n \n", False),
        ("UTF-16", good.decode().encode("utf-16"), False),
        ("equal ids", good + b"\n" + good, False),
        ("not text", bytes(range(256)), False),
        ("compressed", b"\x1f\x8b\x08\x00" + bytes(40), False),
    ]
    kind, content, valid = rng.choice(options)
    return Case(
        "pairs", f"file: {kind}", valid, lambda: _run_file(content), repr(content[:40]), ("pairs.jsonl",)
    )


def _good(rng: random.Random) -> dict[str, Any]:
    colour, other = rng.sample(COLOURS, 2)
    shape, place = rng.choice(SHAPES), rng.choice(PLACES)
    return {"source": f"a {colour} {shape} on {place}", "target": f"a {other} {shape} on {place}"}


def _case(kind: str, line: dict[str, Any], valid: bool, names: tuple[str, ...] = ()) -> Case:
    text = json.dumps(line)
    return Case("pairs", kind, valid, lambda: _run(text.encode()), text, names)


def _run(line: bytes) -> Outcome:
    """The line after a good one, whose row must be `ok` unless the file as a whole is refused."""
    return _run_file(json.dumps(GOOD).encode() + b"\n" + line + b"\n")


def _run_file(content: bytes) -> Outcome:
    with empty_folder() as folder:
        _write_images(folder)
        (folder / "pairs.jsonl").write_bytes(content)
        outcome = command(*base(folder), "run.dir=out", "controller=auto", "dataset.limit=3")
        rows = folder / "out" / "results.parquet"
        if outcome.accepted or not rows.is_file():
            return outcome
        ids = {row["sample_id"]: row["status"] for row in pq.read_table(rows).to_pylist()}
        wrong = "" if ids.get("good") == "ok" else f"the good pair's row is {ids.get('good')}"
        said = " ".join(str(row.get("error")) for row in pq.read_table(rows).to_pylist())
        return Outcome(False, f"{outcome.text} {said}", wrong=wrong)


def _write_images(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "link").symlink_to("/etc")
    (folder / "dangling.png").symlink_to("nowhere.png")
    (folder / "empty.png").touch()
    os.mkfifo(folder / "pipe")
    picture, mask = Image.new("RGB", (16, 16), (200, 40, 90)), Image.new("L", (16, 16))
    mask.paste(255, (4, 4, 10, 10))
    for name in ("cat.png", "a b,=[x]$é.png"):
        picture.save(folder / name)
    for name in ("mask.png", "a b,=[x]$é m.png"):
        mask.save(folder / name)
