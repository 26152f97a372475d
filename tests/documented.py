"""The commands that the project's pages print, read from the pages: a new one needs no change here."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "datasets/**/README.md", "experiments/*/README.md", "p2p_bench/**/README.md")
PROGRAMS = ("p2p-bench", "python", "make")
_SHELL = re.compile(r"^```(?:sh|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_OTHER = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(rf"^ {{4}}((?:{'|'.join(PROGRAMS)}) .*)$", re.MULTILINE)
_SPAN = re.compile(rf"`((?:{'|'.join(PROGRAMS)}) [^`]*)`")


@dataclass(frozen=True)
class Documented:
    """A command as a page prints it.

    Attributes:
        page: Path of the page in the checkout.
        words: The command in words, alternatives such as `list|verify` chosen.
    """

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def documented_commands() -> list[Documented]:
    """Every command of every page once, in the order of the pages."""
    found = [
        Documented(str(path.relative_to(ROOT)), words)
        for pattern in PAGES
        for path in sorted(ROOT.glob(pattern))
        for words in commands_of(path.read_text(encoding="utf-8"))
    ]
    return list({one.words: one for one in found}.values())


def commands_of(page: str) -> Iterator[tuple[str, ...]]:
    """Commands of shell blocks, of indented lines and of spans in the text.

    Raises:
        ValueError: A shell block cannot be read.
    """
    for block in _SHELL.findall(page):
        yield from _of_block(block)
    prose = _OTHER.sub("", page)
    for text in (*_INDENTED.findall(prose), *(span.replace("\n", " ") for span in _SPAN.findall(prose))):
        yield from _alternatives(shlex.split(text, comments=True))


def _of_block(block: str) -> Iterator[tuple[str, ...]]:
    """Commands of a block, which may go on over lines by a backslash or by an open quotation."""
    pending = ""
    for line in block.splitlines():
        pending += line
        if pending.endswith("\\"):
            pending = pending[:-1] + " "
            continue
        try:
            words = shlex.split(pending, comments=True)
        except ValueError:  # a quotation that is still open
            pending += "\n"
            continue
        yield from _alternatives(words)
        pending = ""
    if pending.strip():
        raise ValueError(f"a shell block ends within a command: {pending!r}")


def _alternatives(words: list[str]) -> Iterator[tuple[str, ...]]:
    """`cache list|verify|clear` is three commands; a bracketed word may be left out and is."""
    plain = [word for word in words if not (word.startswith("[") and word.endswith("]"))]
    if plain:
        yield from product(
            *(word.split("|") if word.replace("|", "").isalpha() else [word] for word in plain)
        )
