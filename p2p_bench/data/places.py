"""Where a data set and its images lie; loads no torch, so that a wrong path is answered at once."""

from pathlib import Path

from p2p_bench.errors import DataError
from p2p_bench.raster import is_file, shortened


def image_folder(path: Path, root: Path | None) -> Path:
    """The folder that image paths are relative to, once it and the file of pairs are known to be there.

    Args:
        path: The JSONL file.
        root: The folder; None takes the file's own.

    Raises:
        DataError: One of them is not there.
    """
    if not is_file(path):
        raise DataError(
            f"{shortened(str(path))}: no such file; set dataset.path to a JSONL file of prompt pairs"
        )
    folder = (path.parent if root is None else root).resolve()
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; dataset.root must be the folder that holds the images")
    return folder


def home_of(dataset: object) -> Path | None:
    """The folder that the images of a data set lie below, links resolved; None where it has none."""
    for key in ("root", "path"):
        path = getattr(dataset, key, None)
        if path is not None:
            try:
                place = Path(path).expanduser().resolve()
            except (OSError, RuntimeError, ValueError):
                return None
            return place.parent if place.is_file() else place
    return None


def set_folder(path: str | Path) -> Path:
    """The folder of a data set, links resolved, once it is known to be there.

    Raises:
        DataError: It is not there.
    """
    try:
        folder = Path(path).expanduser().resolve()
        there = folder.is_dir()
    except (OSError, RuntimeError, ValueError):
        there = False
    if not there:
        raise DataError(
            f"{shortened(str(path))}: no such folder; set dataset.path to the folder of the data set"
        )
    return folder


def needed_file(folder: Path, name: str, holds: str) -> Path:
    """A file that a data set cannot do without.

    Args:
        folder: Folder of the data set, from `set_folder`.
        name: Path of the file in it.
        holds: What it holds, for the message.

    Raises:
        DataError: It is not there.
    """
    path = inside(folder, name)
    if not is_file(path):
        raise DataError(f"{shortened(str(path))}: no such file; it holds {holds} of the data set")
    return path


def inside(root: Path, text: str) -> Path:
    """A path below a folder, links resolved.

    Args:
        root: The folder, links resolved.
        text: Path relative to it.

    Raises:
        DataError: It is no usable path, or leads out of the folder.
    """
    try:
        path = (root / text).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"'{shortened(text)}' is not a usable path: {error}") from error
    if not path.is_relative_to(root):
        raise DataError(
            f"'{shortened(text)}' leaves the root {root}; paths must stay inside it, links included"
        )
    return path
