"""Reads pairs of prompts from a JSONL file: one JSON object per line, UTF-8, blank lines ignored.

| key | value | default |
|---|---|---|
| `id` | string or integer, unique in the file | the line's number |
| `source_prompt` (or `source`) | text that describes the source image | required |
| `target_prompt` (or `target`) | text of the edited image | one of these two |
| `target_prompts` | list of such texts, all edited from one source | |
| `image` | path of the source image, relative to the root | source sampled from noise |
| `mask` | path of a mask of the image's size, white where the image may change | none |
| `blend_words` | `[source words, target words]`, each a word or a list of words | none |
| `word_weights` | `{target word: factor}` for re-weighting | none |
| `category` | kind of edit, to group results by | `""` |
| `instruction` | the edit as an order, which `editor=instruct` edits by | none |
| `seed` | integer that overrides the run's seed for this pair | the run's |
| `scene` | world only: the source scene, as `Scene.to_dict()` | none |
| `edit` | world only: `{"attribute", "value", "index"}`, the change that leads to the exact answer | none |
| `real` | world only: true if the rendered scene is the source image | false |

The root is the folder of the file unless another is given; no path may leave it, not by `..`, not by
an absolute path, not by a symbolic link. What programs write in the place of a missing text, such as "nan"
or "None", is no text. Every fault of a file is reported at once.
"""

import codecs
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from p2p_bench.data.places import image_folder, inside
from p2p_bench.errors import DataError, ErrorList, nearest
from p2p_bench.raster import shortened
from p2p_bench.types import EditPair
from p2p_bench.world.scenes import Scene

_ALIASES = {"source": "source_prompt", "target": "target_prompt"}
KEYS = (
    "id", "source_prompt", "target_prompt", "target_prompts", "image", "mask", "blend_words",
    "word_weights", "category", "instruction", "seed", "scene", "edit", "real",
)  # fmt: skip
"""Keys a line may have, next to the short names `source` and `target`."""

UNWRITTEN = "is what programs write where there is nothing"

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LARGEST = sys.float_info.max
_LONGEST_KEY = 100
"""Letters of an unknown key that are compared with the known ones."""


def read_pairs(
    path: Path, root: Path | None = None, targets: Mapping[str, tuple[str, ...]] | None = None
) -> list[EditPair]:
    """Reads a JSONL file of pairs in the format that this module describes.

    No image is opened, and none need exist yet.

    Args:
        path: The JSONL file.
        root: Folder that image and mask paths are relative to and may not leave; None takes the
            file's own folder.
        targets: Target prompts by id, for lines that give none; every line then needs an id.

    Returns:
        The pairs in the order of the file, at least one.

    Raises:
        DataError: The file is missing, empty or has one fault.
        ErrorList: It has several; each names file, line and what is wrong.
    """
    folder = image_folder(path, root)
    pairs: list[EditPair] = []
    faults: list[DataError] = []
    first_lines: dict[str, int] = {}
    for number, line in enumerate(_content(path).splitlines(), start=1):
        if not line.strip():
            continue
        reader = _LineReader(folder, targets)
        pair = reader.read(line, number)
        if pair is not None and pair.id in first_lines:
            other = first_lines[pair.id]
            reader.faults.append(f"id: {pair.id!r} is taken by line {other}; ids must be unique")
        elif pair is not None:
            first_lines[pair.id] = number
            pairs.append(pair)
        faults += [DataError(f"{path}, line {number}: {fault}") for fault in reader.faults]
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise ErrorList(faults)
    if not pairs:
        raise DataError(f"{path}: the file holds no pairs")
    return pairs


def read_line(line: bytes, number: int, root: Path) -> tuple[EditPair | None, list[str]]:
    """One line of such a file.

    Args:
        line: A JSON object.
        number: Of the line; the id where it gives none.
        root: Folder that paths are relative to, links resolved.

    Returns:
        The pair, None if the line has faults; and the faults.
    """
    reader = _LineReader(root)
    return reader.read(line, number), reader.faults


def _content(path: Path) -> bytes:
    """The file without the mark that some editors put before UTF-8."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror or error})") from error
    if content.startswith(_UTF_16):
        raise DataError(f"{path}: the file is UTF-16 text; save it as UTF-8")
    return content.removeprefix(codecs.BOM_UTF8)


def is_unwritten(text: str) -> bool:
    """Whether a text is what programs write in the place of a missing one.

    >>> is_unwritten("nan"), is_unwritten("a naan")
    (True, False)
    """
    return text.strip() in ("nan", "NaN", "null", "NULL", "None", "<NA>", "NaT")


class _FaultError(Exception):
    """What is wrong with one value of a line."""


class _LineReader:
    """Reads one line and collects what is wrong with it."""

    def __init__(self, root: Path, targets: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self.root = root
        self.targets: Mapping[str, tuple[str, ...]] = targets or {}
        self.needs_id = targets is not None
        self.faults: list[str] = []

    def read(self, line: bytes, number: int) -> EditPair | None:
        """The pair of a line, or None if the line has faults."""
        try:
            data = self._object(line)
        except _FaultError as fault:
            self.faults.append(str(fault))
            return None
        for key in data:
            if key not in KEYS:
                known = f"{nearest(key[:_LONGEST_KEY], KEYS)} Known keys: {', '.join(KEYS)}"
                self.faults.append(f"{shortened(key)}: unknown key.{known}")
        if self.needs_id and data.get("id") is None:
            self.faults.append("id: missing; the line has to say which edit of the data set it is for")
        get = self._value
        scene = get(data, "scene", _scene)
        fields: dict[str, Any] = {
            "id": get(data, "id", _identifier) or str(number),
            "source_prompt": self._source(data),
            "target_prompts": self._targets(data),
            "category": get(data, "category", _text) or "",
            "instruction": get(data, "instruction", _text),
            "seed": get(data, "seed", _seed),
            "image": get(data, "image", self._path),
            "mask": get(data, "mask", self._path),
            "blend_words": get(data, "blend_words", _blend_words),
            "word_weights": get(data, "word_weights", _word_weights) or {},
            "scene": None if scene is None else scene.to_dict(),
            "scene_edit": get(data, "edit", lambda value: _edit(value, scene)),
            "rendered": bool(get(data, "real", _flag)),
        }
        self._check_together(data, fields)
        return None if self.faults else EditPair(**fields)

    def _object(self, line: bytes) -> dict[str, Any]:
        """The line as a dictionary with short key names written out."""

        def unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
            keys = [_long(key) for key, _ in items]
            for key in keys:
                if keys.count(key) > 1:
                    raise _FaultError(
                        f"{shortened(key)}: given more than once (`source` and `target` are short names)"
                    )
            return dict(items)

        try:
            data = json.loads(line.decode("utf-8"), object_pairs_hook=unique)
        except UnicodeDecodeError as error:
            raise _FaultError(f"not UTF-8 text: {error.reason} at byte {error.start}") from error
        except json.JSONDecodeError as error:
            raise _FaultError(f"broken JSON: {error.msg} at column {error.colno}") from error
        except (ValueError, RecursionError) as error:
            raise _FaultError(f"broken JSON: {error}") from error
        if not isinstance(data, dict):
            raise _FaultError(f"expected a JSON object {{...}}, got {_kind(data)}")
        return {_long(key): value for key, value in data.items()}

    def _value(self, data: Mapping[str, Any], key: str, parse: Callable[[Any], Any]) -> Any:
        """The parsed value of a key; None if it is absent, null or faulty."""
        if data.get(key) is None:
            return None
        try:
            return parse(data[key])
        except _FaultError as fault:
            self.faults.append(f"{key}: {fault}")
            return None

    def _source(self, data: Mapping[str, Any]) -> str:
        if data.get("source_prompt") is None:
            self.faults.append(f"source_prompt: missing; a line needs one.{_renamed('source_prompt', data)}")
        return self._value(data, "source_prompt", _prompt) or ""

    def _targets(self, data: Mapping[str, Any]) -> tuple[str, ...]:
        given = [key for key in ("target_prompt", "target_prompts") if data.get(key) is not None]
        known = self.targets.get(str(data.get("id")))
        if not given and known is not None:
            return known
        if not given:
            name = shortened(str(data.get("id")))
            own = f"; the data set has no edit of id {name!r} with one" if self.targets else ""
            self.faults.append(
                f"target_prompt: missing; a line needs it or target_prompts{own}."
                f"{_renamed('target_prompt', data)}"
            )
        if len(given) == 2:
            self.faults.append("target_prompt and target_prompts: give one of the two")
        one = self._value(data, "target_prompt", _prompt)
        return (one,) if one else self._value(data, "target_prompts", _prompts) or ()

    def _path(self, value: Any) -> Path:
        text = _prompt(value)
        try:
            return inside(self.root, text)
        except DataError as error:
            raise _FaultError(str(error)) from error

    def _check_together(self, data: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
        """Keys that need or exclude one another."""
        if fields["rendered"] and data.get("scene") is None:
            self.faults.append("real: true needs a scene to render")
        if fields["rendered"] and data.get("image") is not None:
            self.faults.append("real: true renders the source image, so image must be left out")
        if data.get("mask") is not None and data.get("image") is None:
            self.faults.append("mask: given without an image")
        if data.get("edit") is not None and len(fields["target_prompts"]) > 1:
            self.faults.append("edit: describes one edit, so the line may have one target prompt only")


def _long(key: str) -> str:
    return _ALIASES.get(key, key)


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "null"}
    return kinds.get(type(value), "a number")


def _quoted(text: str) -> str:
    return f"'{shortened(text)}'"


def _number(value: Any) -> str:
    """A value that is no usable number, for a message."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _kind(value)
    return shortened(json.dumps(value), most=_LONGEST_KEY)


def _renamed(key: str, data: Mapping[str, Any]) -> str:
    """A hint at an unknown key that looks like the missing one."""
    unknown = [name for name in data if name not in KEYS]
    return nearest(key, unknown) if unknown else ""


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _FaultError(f"expected text, got {_kind(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _FaultError(f"is not valid Unicode text: {error.reason}") from error
    if is_unwritten(value):
        raise _FaultError(f"{value.strip()!r} {UNWRITTEN}; leave it out")
    return value


def _prompt(value: Any) -> str:
    text = _text(value)
    if not text.strip():
        raise _FaultError("is empty")
    return text


def _prompts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _FaultError(f"expected a list of texts, got {_kind(value)}")
    if not value:
        raise _FaultError("the list is empty")
    return tuple(_prompt(item) for item in value)


def _identifier(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _prompt(value)


def _seed(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise _FaultError(f"expected an integer in [0, 2**63), got {_number(value)}")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _FaultError(f"expected true or false, got {_kind(value)}")
    return value


def _blend_words(value: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if not isinstance(value, list) or len(value) != 2:
        raise _FaultError('expected [source words, target words], for example [["cat"], ["dog"]]')
    source, target = ((_prompt(item),) if isinstance(item, str) else _prompts(item) for item in value)
    return source, target


def _word_weights(value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        raise _FaultError(f'expected {{"word": factor}}, got {_kind(value)}')
    for word, factor in value.items():
        # A comparison rather than `isfinite`, which integers of 400 digits do not stand.
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not abs(factor) <= _LARGEST:
            raise _FaultError(f"the factor of {_quoted(word)} must be a finite number, got {_number(factor)}")
    return {_prompt(word): float(factor) for word, factor in value.items()}


def _scene(value: Any) -> Scene:
    if not isinstance(value, dict):
        raise _FaultError(f"expected an object, got {_kind(value)}")
    try:
        return Scene.from_dict(value)
    except ValueError as error:
        raise _FaultError(str(error)) from error


def _edit(value: Any, scene: Scene | None) -> dict[str, Any]:
    if scene is None:
        raise _FaultError("needs a usable scene that it changes")
    if not isinstance(value, dict) or set(value) | {"index"} != {"attribute", "value", "index"}:
        raise _FaultError('expected {"attribute": ..., "value": ..., "index": 0}')
    edit = {"index": 0, **value}
    if not isinstance(edit["attribute"], str) or edit["attribute"] == "seed":
        raise _FaultError("attribute: expected what a prompt can say, such as colour or background")
    if isinstance(edit["index"], bool) or not isinstance(edit["index"], int):
        raise _FaultError(f"index: expected an integer, got {_kind(edit['index'])}")
    try:
        scene.with_attribute(edit["attribute"], edit["value"], edit["index"])
    except ValueError as error:
        raise _FaultError(str(error)) from error
    return edit
