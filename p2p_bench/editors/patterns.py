"""Names of pictures by a pattern such as `{variant}/{id}.png`, in both directions; loads no torch."""

import re
import string
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2p_bench.errors import ConfigError, nearest
from p2p_bench.types import EditPair

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
"""Endings of pictures, in lower case."""

FIELDS = ("id", "index", "target", "variant", "category", "path", "name")
_SAMPLE = ("id", "index", "path", "name")
"""Fields that tell samples apart."""

_MARK = "\0"
"""Stands for a variant that is looked for: no name of a file holds it."""

_ANY = {"variant": r"(?P<variant>[^/]+?)", "index": r"\d+", "target": r"\d+", "name": "[^/]+?"}


@dataclass(frozen=True)
class Pattern:
    """A pattern whose fields are known.

    | field | value |
    |---|---|
    | `{id}` | of the pair |
    | `{index}` | place of the pair in the data set, from 0; `{index:05d}` with leading zeros |
    | `{target}` | place of the target prompt in the pair, from 0 |
    | `{variant}` | any name, without `/`: each is a variant of its own |
    | `{category}` | of the pair |
    | `{path}` | of the source image in the data set's folder, without its ending |
    | `{name}` | the last part of that |

    Attributes:
        text: As typed. Without an ending any of `SUFFIXES` will do.
    """

    text: str

    def __post_init__(self) -> None:
        """Checks the fields.

        Raises:
            ConfigError: One is unknown, or no field tells samples apart.
        """
        for name, spec, conversion in self._fields():
            if name not in FIELDS or conversion:
                shown = f"{{{name}}}" if name else "{}"
                raise ConfigError(
                    f"score.pattern: {self.text!r}: unknown field {shown}."
                    f"{nearest(name, FIELDS)} Known: {', '.join(FIELDS)}"
                )
            if spec and not (name in ("index", "target") and re.fullmatch(r"\d{0,2}d?", spec)):
                raise ConfigError(
                    f"score.pattern: {self.text!r}: {{{name}:{spec}}} is no format of a number; "
                    "write {index:05d}"
                )
        if not self.names.intersection(_SAMPLE):
            wanted = ", ".join(f"{{{name}}}" for name in _SAMPLE)
            raise ConfigError(f"score.pattern: {self.text!r} names no sample; expected one of {wanted} in it")

    @property
    def names(self) -> frozenset[str]:
        """The fields in it."""
        return frozenset(name for name, _, _ in self._fields())

    @property
    def exact(self) -> bool:
        """Whether it says how files end."""
        return self.text.lower().endswith(SUFFIXES)

    def of(self, pair: EditPair, index: int, target: int, variant: str, root: Path | None) -> str:
        """The path of a picture relative to its folder.

        Args:
            pair: The sample.
            index: Its place in the data set.
            target: Place of the target prompt.
            variant: The variant.
            root: Folder of the data set, for `{path}`.

        Raises:
            ConfigError: The pair has no source image that is a file of its own.
        """
        values: dict[str, Any] = {"id": pair.id, "index": index, "target": target, "variant": variant}
        values["category"] = pair.category
        if self.names & {"path", "name"}:
            values |= _source_names(pair, root)
        return self.text.format(**values)

    def variants_of(
        self, pair: EditPair, index: int, target: int, root: Path | None, listing: "Listing"
    ) -> Iterator[str]:
        """The names for `{variant}` under which a folder has a picture of an edit; the rest as of `of`.

        Args:
            pair: The sample.
            index: Its place in the data set.
            target: Place of the target prompt.
            root: Folder of the data set.
            listing: The pictures that are there.
        """
        start, *between, end = composed(self.of(pair, index, target, _MARK, root)).split(_MARK)
        again = "".join(f"{re.escape(part)}(?P=variant)" for part in between)
        variant = re.compile(f"{_ANY['variant']}{again}", re.DOTALL)
        for middle in listing.between(start, end):
            if found := variant.fullmatch(middle):
                yield found["variant"]

    def variant_of(self, path: str) -> str | None:
        """A variant that a file could belong to; None if it does not fit the pattern."""
        found = self._expression().fullmatch(path)
        return None if found is None else found.groupdict().get("variant") or ""

    def _expression(self) -> re.Pattern[str]:
        parts, seen = [], False
        for literal, name, _, _ in string.Formatter().parse(self.text):
            parts.append(re.escape(literal))
            if name is not None:
                again = name == "variant" and seen
                parts.append("(?P=variant)" if again else _ANY.get(name, ".+?"))
                seen = seen or name == "variant"
        endings = "|".join(map(re.escape, SUFFIXES))
        return re.compile("".join(parts) + ("" if self.exact else f"(?i:{endings})"), re.DOTALL)

    def _fields(self) -> Iterator[tuple[str, str, str | None]]:
        try:
            for _, name, spec, conversion in string.Formatter().parse(self.text):
                if name is not None:
                    yield name, spec or "", conversion
        except ValueError as error:
            raise ConfigError(f"score.pattern: {self.text!r} cannot be read ({error})") from error


class Listing:
    """Pictures of a folder by the names that a pattern may give them; letters count as composed (NFC).

    Args:
        files: Their paths, relative to the folder.
        exact: Whether a name says how its file ends; else the path without its ending is a name too.
    """

    def __init__(self, files: Iterable[str], exact: bool) -> None:
        self._files: dict[str, list[str]] = {}
        stems = set()
        for file in files:
            self._files.setdefault(composed(file), []).append(file)
            if not exact:
                stems.add(stem := composed(file.rpartition(".")[0]))
                self._files.setdefault(stem, []).append(file)
        self._whole = sorted(self._files)
        # Behind the last word of a name only an ending may follow, which is no part of the word.
        self._open = self._whole if exact else sorted(stems)
        self._turned = sorted(name[::-1] for name in self._whole)

    def named(self, name: str) -> Sequence[str]:
        """The files of a name."""
        return self._files.get(composed(name), ())

    def between(self, start: str, end: str) -> Iterator[str]:
        """What stands between two parts in the names that begin and end with them."""
        if len(start) > len(end) or not end:
            names = _beginning(self._whole if end else self._open, start)
        else:
            names = (name[::-1] for name in _beginning(self._turned, end[::-1]))
        for name in names:
            if len(name) > len(start) + len(end) and name.startswith(start) and name.endswith(end):
                yield name[len(start) : len(name) - len(end)]


def composed(name: str) -> str:
    """A name with its letters composed: macOS decomposes those of files, and both are the same text."""
    return unicodedata.normalize("NFC", name)


def _beginning(names: Sequence[str], start: str) -> Iterator[str]:
    """Those of sorted names that begin with a text."""
    for place in range(bisect_left(names, start), len(names)):
        if not names[place].startswith(start):
            return
        yield names[place]


def _source_names(pair: EditPair, root: Path | None) -> Mapping[str, str]:
    if pair.image is None:
        raise ConfigError(
            f"score.pattern: {{path}} and {{name}} need source images, pair {pair.id!r} has none; use {{id}}"
        )
    below = root is not None and pair.image.is_relative_to(root)
    path = pair.image.relative_to(root) if below and root is not None else Path(pair.image.name)
    return {"path": path.with_suffix("").as_posix(), "name": path.stem}
