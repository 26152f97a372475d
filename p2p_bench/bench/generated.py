"""A folder of generated pictures: what was asked stands beside them, and what is there is not made again.

| file | holds |
|---|---|
| `images/*.png` | the pictures |
| `generated.json` | settings, checksum of the model, and versions and code of each start that made some |
| `pictures.jsonl` | a line per picture: id, file, prompt, seed; checksum and UNet rows, or its error |
| `pairs.jsonl` | where they are sources of a data set: its pairs, with these as their images |
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from p2p_bench.bench.directory import differing, locked
from p2p_bench.bench.makers import Maker
from p2p_bench.bench.pictures import file_stem, save_png
from p2p_bench.bench.provenance import git_state
from p2p_bench.bench.rows import write_atomically
from p2p_bench.errors import ConfigError, DataError
from p2p_bench.hashing import sha256_file

ASKED = "generated.json"
JOURNAL = "pictures.jsonl"
PAIRS = "pairs.jsonl"
_SCHEMA = 1
_DECIDES = ("settings", "checksums")
"""What has to be equal for a folder to be completed."""


@dataclass(frozen=True)
class Picture:
    """One picture that is wanted.

    Attributes:
        id: Unique in the folder: that of a pair, or the prompt and the seed.
        prompt: What it shows.
        seed: Of its noise.
    """

    id: str
    prompt: str
    seed: int

    @property
    def file(self) -> str:
        """Where it lies, relative to the folder."""
        return f"images/{file_stem(self.id)}.png"


class GeneratedFolder:
    """A folder that is held; see `opened_folder`.

    Args:
        path: The folder.
        known: Line of the journal by the id of its picture.
        makers: Who made pictures that are there, with other versions or code than these.
    """

    def __init__(self, path: Path, known: dict[str, Mapping[str, Any]], makers: Sequence[Maker]) -> None:
        self.path = path
        self.others = tuple(makers)
        self._known = known

    def is_there(self, picture: Picture) -> bool:
        """Whether a picture was made and is what it was."""
        line = self._known.get(picture.id)
        if line is None or (line.get("prompt"), line.get("seed")) != (picture.prompt, picture.seed):
            return False
        file = self.path / picture.file
        try:
            return line.get("file") == picture.file and sha256_file(file) == line.get("sha256")
        except OSError:
            return False

    def keep(self, picture: Picture, image: Float[Tensor, "3 h w"], unet_rows: int) -> None:
        """Writes a picture, then its line, so that a line is never of a picture that is not there."""
        file = self.path / picture.file
        save_png(file, image)
        self._note(picture, {"sha256": sha256_file(file), "unet_rows": unet_rows})

    def note_error(self, picture: Picture, reason: str) -> None:
        """Writes why a picture could not be made."""
        self._note(picture, {"error": reason})

    def _note(self, picture: Picture, outcome: Mapping[str, Any]) -> None:
        line = {
            "id": picture.id,
            "file": picture.file,
            "prompt": picture.prompt,
            "seed": picture.seed,
            **outcome,
        }
        with (self.path / JOURNAL).open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(line, ensure_ascii=False) + "\n")
            journal.flush()
            os.fsync(journal.fileno())
        self._known[picture.id] = line

    def write_pairs(self, lines: Sequence[str]) -> None:
        """Writes the pairs of the pictures; none is no file."""
        text = "".join(f"{line}\n" for line in lines)
        if lines:
            write_atomically(self.path / PAIRS, lambda temporary: temporary.write_text(text, "utf-8"))


@contextmanager
def opened_folder(path: Path, asked: Mapping[str, Any], maker: Maker) -> Iterator[GeneratedFolder]:
    """Takes a folder, made if need be, as long as the context lasts.

    Args:
        path: The folder.
        asked: What pictures are asked for: `settings` and `checksums`, which decide them, and whatever else a
            reader should know, as plain values.
        maker: Who makes pictures now.

    Raises:
        ConfigError: It is in use; or it holds pictures of other settings, or something else.
    """
    with locked(path, "--out DIR"):
        before = _read_asked(path)
        known = {}
        if before is None:
            _refuse_files(path)
        else:
            there, here = ({key: one.get(key) for key in _DECIDES} for one in (before, _plain(asked)))
            if differences := differing(there, here):
                raise ConfigError(
                    f"{path} holds pictures of other settings ({differences}); repeat those to go on there, "
                    "or choose another folder with --out DIR"
                )
            known = _read_journal(path)
        makers = [one for one in (before or {}).get("made_by", []) if isinstance(one, Mapping)]
        others = [one for one in makers if one != maker] if known else []
        told = [*others, maker] if known else [maker]
        written = {"schema_version": _SCHEMA, **asked, "made_by": told, "git": git_state()}
        text = json.dumps(written, indent=1, ensure_ascii=False, default=str) + "\n"
        write_atomically(path / ASKED, lambda temporary: temporary.write_text(text, "utf-8"))
        _write_journal(path, known)
        yield GeneratedFolder(path, known, others)


def _plain(asked: Mapping[str, Any]) -> dict[str, Any]:
    """As it is once it was written and read."""
    plain: dict[str, Any] = json.loads(json.dumps(asked, default=str))
    return plain


def _read_asked(path: Path) -> dict[str, Any] | None:
    """What was asked of a folder before; None of a new one."""
    file = path / ASKED
    if not file.exists():
        return None
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read ({error}); choose another folder with --out DIR") from error
    if not isinstance(told, dict):
        raise DataError(f"{file}: says nothing of pictures; choose another folder with --out DIR")
    return told


def _refuse_files(path: Path) -> None:
    """Refuses a folder that holds something already, which might be replaced."""
    there = sorted(one.name for one in path.iterdir() if not one.name.startswith("."))
    if there:
        raise ConfigError(
            f"{path} holds other files, such as {there[0]!r}; choose a new or an empty folder with --out DIR"
        )


def _read_journal(path: Path) -> dict[str, Mapping[str, Any]]:
    """The lines that are whole, by the id of their picture; later ones hold."""
    try:
        lines = (path / JOURNAL).read_bytes().splitlines()
    except OSError:
        return {}
    known: dict[str, Mapping[str, Any]] = {}
    for line in lines:
        try:
            told = json.loads(line)
        except (ValueError, RecursionError):  # torn when the machine stopped: its picture is made again
            continue
        if isinstance(told, dict) and isinstance(told.get("id"), str):
            known[told["id"]] = told
    return known


def _write_journal(path: Path, known: Mapping[str, Mapping[str, Any]]) -> None:
    """Without what was torn or made again since."""
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in known.values())
    write_atomically(path / JOURNAL, lambda temporary: temporary.write_text(text, "utf-8"))
