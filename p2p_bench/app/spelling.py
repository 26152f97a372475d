r"""How a value is written so that Hydra reads it: letters, quotes and signs that its grammar lacks.

The grammar knows no quoted keys, and no letters but a to z outside quotes. What it cannot read as typed is
written anew: values are quoted, and a character of a key becomes `\uXXXX`, which `restore_keys` takes back
when the configuration is composed.
"""

import re
import shlex
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import Container, DictConfig, ListConfig, open_dict, read_write

_PLAIN = re.compile(r"[\w ./%+*@?|\\-]*", re.ASCII)
_PLAIN_KEY = re.compile(r"[A-Za-z_][\w -]*", re.ASCII)
_WORDS = ("null", "true", "false", "inf", "nan")
"""Words that Hydra reads as something else than text."""

_ESCAPED = re.compile(r"\\u([0-9a-f]{4})|\\U([0-9a-f]{8})")
_SPACE = " \t"


def readable(text: str) -> bool:
    """Whether Hydra can read an override."""
    try:
        OverridesParser.create().parse_override(text)
    except HydraException:
        return False
    return True


def spelled(text: str) -> str:
    """An override in a form that Hydra reads, if there is one; else as it was typed."""
    key, equal, value = text.partition("=")
    if not equal or readable(text):
        return text
    forms = []
    if value.lstrip().startswith(("{", "[")):
        rewritten = _Writer(value).whole()
        forms += [] if rewritten is None else [f"{key}={rewritten}"]
    elif not re.search(r"[,({\[]|\$\{", value) and not value.startswith(("'", '"')):
        forms.append(f"{key}={quoted(value)}")
    return next(filter(readable, forms), text)


def quoted(value: str) -> str:
    """A value as text that Hydra takes as it is."""
    inside = re.sub(r"(\\*)'", r"\1\1\\'", value)
    ending = re.search(r"\\*$", inside)
    return f"'{inside}{ending.group() if ending else ''}'"


def for_shell(key: str, value: str) -> str:
    """An override with a quoted value, as it is typed in a shell."""
    plain = f'"{value}"' if '"' not in value and "\\" not in value else quoted(value)
    return shlex.quote(f"{key}={plain}")


def restore_keys(node: Any) -> None:
    """Takes back what `spelled` did to the keys of a composed node and of those inside it."""
    if not isinstance(node, Container) or node._is_none() or node._is_missing() or node._is_interpolation():
        return
    if isinstance(node, ListConfig):
        for value in node._iter_ex(resolve=False):
            restore_keys(value)
    if not isinstance(node, DictConfig):
        return
    items = list(node.items_ex(resolve=False))
    for _, value in items:
        restore_keys(value)
    if any(isinstance(key, str) and _ESCAPED.search(key) for key, _ in items):
        with read_write(node), open_dict(node):
            for key, _ in items:
                del node[key]
            for key, value in items:
                node[_restored(key)] = value


def _restored(key: Any) -> Any:
    if not isinstance(key, str):
        return key
    return _ESCAPED.sub(lambda found: chr(int(found.group(1) or found.group(2), 16)), key)


def _escaped(key: str) -> str:
    """A key that Hydra reads as text."""
    if _PLAIN_KEY.fullmatch(key) and key.lower() not in _WORDS and key == key.strip():
        return key
    first = key[:1] if key[:1].isalpha() and key.isascii() and key.lower() not in _WORDS else ""
    rest = key[len(first) :]
    inner = [
        char if index and re.fullmatch(r"[A-Za-z0-9_]", char, re.ASCII) else _code(char)
        for index, char in enumerate(rest, start=len(first))
    ]
    return first + "".join(inner)


def _code(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


class _UnreadableError(Exception):
    """The value is neither a list nor a mapping that can be written anew."""


class _Writer:
    """Writes a list or mapping anew.

    Args:
        text: As typed.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def whole(self) -> str | None:
        """The value in Hydra's grammar; None where it cannot be told what is meant."""
        try:
            written = self._element("")
            self._skip()
        except _UnreadableError:
            return None
        return written if self.at == len(self.text) else None

    def _element(self, ends: str) -> str:
        self._skip()
        if self._next == "{":
            return self._several("}", self._pair)
        if self._next == "[":
            return self._several("]", lambda: self._element(",]"))
        if self._next in ("'", '"'):
            return quoted(self._quoted())
        start = self.at
        while self._next and self._next not in ends:
            self.at += 1
        plain = self.text[start : self.at].strip(_SPACE)
        if "${" in plain or "(" in plain:
            raise _UnreadableError
        return plain if _PLAIN.fullmatch(plain) else quoted(plain)

    def _several(self, end: str, one: Any) -> str:
        opened = self._next
        self.at += 1
        written = []
        self._skip()
        while self._next != end:
            written.append(one())
            self._skip()
            if self._next == ",":
                self.at += 1
            elif self._next != end:
                raise _UnreadableError
            self._skip()
        self.at += 1
        return opened + ", ".join(written) + end

    def _pair(self) -> str:
        self._skip()
        if self._next in ("'", '"'):
            key = self._quoted()
            self._skip()
        else:
            start = self.at
            while self._next and self._next != ":":
                self.at += 1
            key = self.text[start : self.at].strip(_SPACE)
        if self._next != ":" or not key:
            raise _UnreadableError
        self.at += 1
        return f"{_escaped(key)}: {self._element(',}')}"

    def _quoted(self) -> str:
        found = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"").match(self.text, self.at)
        if found is None:
            raise _UnreadableError
        self.at = found.end()
        inside = found.group(1) if found.group(1) is not None else found.group(2)
        return re.sub(r"\\(['\"\\])", r"\1", inside)

    def _skip(self) -> None:
        while self._next and self._next in _SPACE:
            self.at += 1

    @property
    def _next(self) -> str:
        return self.text[self.at : self.at + 1]
