"""Pictures inside the page: small ones exactly, large ones as thumbnails with a link."""

import base64
import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from p2p_bench.errors import DataError
from p2p_bench.marks import fits

EXACT_SIDE = 160
"""Longest side in pixels up to which a picture is embedded without loss."""

THUMBNAIL_SIDE = 256
"""Longest side in pixels of the thumbnail of a larger one."""

THUMBNAIL: dict[str, Any] = {"format": "WEBP", "quality": 80, "method": 2}
"""How a thumbnail is saved: 5 % larger than with Pillow's own settings, in half the time."""

MOST_BYTES = 64_000_000
"""Bytes of the pictures that a page holds at most; with ten times as many a browser no longer opens it."""

REPLACED = "another file than the run wrote there"
"""What is said of a picture without the mark of its run."""

_EXACT: dict[str, Any] = {"format": "WEBP", "lossless": True, "quality": 0, "method": 1}
"""How a picture is saved without loss: 6 % larger, in a twentieth of the time."""


@dataclass(frozen=True)
class Picture:
    """One embedded picture.

    Attributes:
        uri: `data:` address; empty where the file is missing or not a picture.
        link: Address of the file, relative to the page; empty where the page holds it exactly, or cannot.
        note: Why there is nothing to show, or empty.
    """

    uri: str
    link: str = ""
    note: str = ""


class PictureStore:
    """The pictures of one page, each distinct one held once, until there is no room for more.

    Args:
        page_dir: Directory the page is written to; links are relative to it.
        room: Bytes of the pictures that are held.

    Attributes:
        linked: Number of pictures that found no room, and are links to their files.
    """

    def __init__(self, page_dir: Path, room: int = MOST_BYTES) -> None:
        self._page_dir = page_dir.resolve()
        self._room = room
        self.linked = 0
        self._index: dict[str, int] = {}
        self._pictures: list[Picture] = []

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All pictures added so far, by number."""
        return tuple(self._pictures)

    def add(self, root: Path, relative: str | None, mark: str | None = None) -> int | None:
        """Number of a run's picture in the page; None where the row names none.

        Args:
            root: Run directory.
            relative: Path of the file under it.
            mark: As what the run marked it, see `p2p_bench.marks`; None where it marked nothing. A file
                without that is not shown.

        Raises:
            DataError: The path leaves the run directory.
        """
        if not relative:
            return None
        path = path_inside(root, relative)
        if self._room <= 0:
            return self._linked(path, relative)
        try:
            data = path.read_bytes()
        except OSError:
            return self._put(f"missing {path}", Picture("", note=f"missing: {relative}"))
        if mark is not None and not fits(data, mark):
            return self._put(f"replaced {path}", Picture("", note=f"{REPLACED}: {relative}"))
        key = hashlib.sha256(data).hexdigest()
        known = self._index.get(key)
        return known if known is not None else self._put(key, self._embed(data, path, relative))

    def _linked(self, path: Path, relative: str) -> int:
        """Number of a picture that the page has no room for."""
        key = f"link {path}"
        if key not in self._index:
            self.linked += 1
        there = path.is_file()
        note = "open its file" if there else f"missing: {relative}"
        return self._put(key, Picture("", self._address(path) if there else "", note))

    def _address(self, path: Path) -> str:
        return quote(Path(os.path.relpath(path, self._page_dir)).as_posix())

    def _put(self, key: str, picture: Picture) -> int:
        if key not in self._index:
            self._index[key] = len(self._pictures)
            self._pictures.append(picture)
            self._room -= len(picture.uri)
        return self._index[key]

    def _embed(self, data: bytes, path: Path, relative: str) -> Picture:
        try:
            with Image.open(io.BytesIO(data)) as opened:
                image = opened.convert("RGBA" if "A" in opened.getbands() else "RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # Pillow's, for bad files
            return Picture("", note=f"not a picture: {relative}")
        exact = max(image.size) <= EXACT_SIDE
        if not exact:
            image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", lossless=exact, quality=80)
        uri = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
        if exact:
            return Picture(uri)
        return Picture(uri, link=self._address(path))


def path_inside(root: Path, relative: str) -> Path:
    """Where a run's picture is.

    Raises:
        DataError: The path leaves the run directory.
    """
    path = (root / relative).resolve()
    if not path.is_relative_to(root.resolve()):
        raise DataError(f"{root}: a row names the picture {relative!r}, which is outside the run directory")
    return path
