"""Where a file of pairs and its images lie; loads no torch, so that a wrong path is answered at once."""

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
