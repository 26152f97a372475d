"""Pictures of a report that is a folder: small ones copied, large ones as thumbnails, each once."""

import hashlib
import io
import os
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from p2p_bench.marks import fits
from p2p_bench.report.pictures import EXACT_SIDE, THUMBNAIL, THUMBNAIL_SIDE, path_inside

_ENDINGS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}


class ThumbnailStore:
    """The pictures of a report's folder, by number.

    Args:
        folder: Where they go; made if need be.
        page_dir: Directory of the page; addresses are relative to it.
    """

    def __init__(self, folder: Path, page_dir: Path) -> None:
        self._folder = folder
        self._page_dir = page_dir.resolve()
        self._by_path: dict[tuple[Path, str], int] = {}
        self._by_content: dict[str, int] = {}
        self._files: list[tuple[str, str]] = []
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def files(self) -> tuple[tuple[str, str], ...]:
        """Name in the folder and address of the full size of each picture; the latter "" if it is that."""
        return tuple(self._files)

    def add(self, root: Path, relative: str | None, mark: str | None = None) -> int | None:
        """Number of a run's picture; None where the row names none or the file is missing or no picture.

        Args:
            root: Run directory.
            relative: Path of the file under it.
            mark: As what the run marked it, see `PictureStore.add`.

        Raises:
            DataError: The path leaves the run directory.
        """
        if not relative:
            return None
        if (root, relative) in self._by_path:
            return self._by_path[root, relative]
        number = self._store(path_inside(root, relative), mark)
        if number is not None:
            self._by_path[root, relative] = number
        return number

    def _store(self, path: Path, mark: str | None) -> int | None:
        try:
            data = path.read_bytes()
            if mark is not None and not fits(data, mark):
                return None
            stem = hashlib.sha256(data).hexdigest()[:16]
            if stem in self._by_content:  # runs of a sweep have many pictures in common
                return self._by_content[stem]
            with Image.open(io.BytesIO(data), formats=list(_ENDINGS)) as image:
                ending, link, body = self._made(image, data, path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # Pillow's, for bad files
            return None
        target = self._folder / (stem + ending)
        if not target.is_file() or target.stat().st_size != len(body):  # a size too small: cut off before
            target.write_bytes(body)
        self._by_content[stem] = len(self._files)
        self._files.append((target.name, link))
        return self._by_content[stem]

    def _made(self, image: Image.Image, data: bytes, path: Path) -> tuple[str, str, bytes]:
        """Ending, link and content of a picture's file."""
        if max(image.size) <= EXACT_SIDE:
            image.verify()
            return _ENDINGS[str(image.format)], "", data
        small = image.convert("RGB")
        small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        buffer = io.BytesIO()
        small.save(buffer, **THUMBNAIL)
        link = quote(Path(os.path.relpath(path, self._page_dir)).as_posix())
        return ".webp", link, buffer.getvalue()
