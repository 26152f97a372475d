"""Tar files whose members are read where they lie; nothing is extracted."""

import functools
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from p2p_bench.data.records import stamp_of
from p2p_bench.errors import DataError
from p2p_bench.raster import shortened

_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Attributes:
        name: Its path there.
        offset: Of its first byte in the archive.
        size: In bytes.
    """

    name: str
    offset: int
    size: int


def members_of(path: Path) -> Mapping[str, Mapping[str, Member]]:
    """The samples of a shard in their order: members by the text behind the first dot of their names.

    Hidden files (such as those that macOS adds) and folders are left out.

    Args:
        path: A tar file that is not compressed.

    Raises:
        DataError: It is none, is cut off or damaged; or a member leaves it, is a link or is there twice.
    """
    return _indexed(stamp_of(path))


def read_member(path: Path, member: Member) -> bytes:
    """The bytes of a member.

    Raises:
        DataError: They cannot be read.
    """
    try:
        with path.open("rb") as file:
            file.seek(member.offset)
            content = file.read(member.size)
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror or error})") from error
    if len(content) < member.size:
        raise DataError(f"{path}, {shortened(member.name)}: the archive is cut off within it")
    return content


@functools.lru_cache(maxsize=256)
def _indexed(stamp: tuple[str, int, int]) -> Mapping[str, Mapping[str, Member]]:
    path = Path(stamp[0])
    samples: dict[str, dict[str, Member]] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                _add(path, member, samples)
            end = archive.offset
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}: not a tar file that can be read, without compression ({shortened(str(error))})"
        ) from error
    # The reader takes a damaged header for the end of the archive, and what is cut off for a whole one.
    with path.open("rb") as file:
        file.seek(end)
        mark = file.read(_BLOCK)
    if len(mark) < _BLOCK or mark.strip(b"\0"):
        what = "is cut off" if len(mark) < _BLOCK else "is damaged"
        raise DataError(f"{path}: the archive {what} behind byte {end}: its end mark is not there")
    return samples


def _add(path: Path, member: tarfile.TarInfo, samples: dict[str, dict[str, Member]]) -> None:
    name = PurePosixPath(member.name)
    if member.isdir() or name.name.startswith("."):
        return
    shown = f"{path}, {shortened(member.name)}"
    if name.is_absolute() or ".." in name.parts:
        raise DataError(f"{shown}: leaves the root of the archive; names must stay inside it")
    if not member.isfile():
        raise DataError(f"{shown}: is a link or no file; archives must hold the files themselves")
    stem, _, part = name.name.partition(".")
    parts = samples.setdefault((name.parent / stem).as_posix(), {})
    if part.lower() in parts:
        raise DataError(f"{shown}: is there twice")
    parts[part.lower()] = Member(member.name, member.offset_data, member.size)
