"""Names of pictures by a pattern such as `{variant}/{id}.png`, in both directions; loads no torch."""

import re
import string
from collections.abc import Iterator, Mapping
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

    def variant_of(self, path: str) -> str | None:
        """The variant that a file would belong to; None if it does not fit the pattern."""
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


def _source_names(pair: EditPair, root: Path | None) -> Mapping[str, str]:
    if pair.image is None:
        raise ConfigError(
            f"score.pattern: {{path}} and {{name}} need source images, pair {pair.id!r} has none; use {{id}}"
        )
    below = root is not None and pair.image.is_relative_to(root)
    path = pair.image.relative_to(root) if below and root is not None else Path(pair.image.name)
    return {"path": path.with_suffix("").as_posix(), "name": path.stem}
