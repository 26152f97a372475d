"""A store of byte strings on disk: whole or absent, of bounded size, safe for several processes.

An entry is one file, named by its key:

    p2p_bench cache 1 <SHA-256 of all that follows>
    {"key": ..., "about": {...}}
    <the bytes>

It is written to a temporary file, synced and renamed, so a reader sees all of it or nothing; what was damaged
since fails the checksum. The time of change of the file is the time of its last use.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from p2p_bench.errors import DataError
from p2p_bench.remote import Remote

DIRECTORY_VARIABLE = "P2P_BENCH_CACHE"
"""Environment variable that names another default directory."""
MAX_BYTES = 4 * 2**30
_MAGIC = b"p2p_bench cache 1 "
_SUFFIX = ".entry"
_LOCK_SECONDS = 60
log = logging.getLogger(__name__)


class DamagedEntryError(DataError):
    """An entry is cut short, altered, or not an entry at all."""


@dataclass(frozen=True)
class Entry:
    """An entry as it lies on the disk.

    Attributes:
        key: Its key.
        path: Its file.
        size: Bytes of the file.
        used: When it was last used, in seconds since the epoch.
    """

    key: str
    path: Path
    size: int
    used: float


@dataclass(frozen=True)
class Cache:
    """The store in one directory. Nothing is touched before something is read or written.

    Attributes:
        directory: Where the entries lie.
        max_bytes: Size of all entries together; the least recently used make room.
        beyond: A folder that several machines share: entries that are not here are looked for there, and each
            that is written goes there too. Nothing is removed from it.
    """

    directory: Path
    max_bytes: int = MAX_BYTES
    beyond: Remote | None = None

    def read(self, key: str) -> bytes | None:
        """The bytes of a key, or None where there are none; a damaged entry is removed, and said.

        Args:
            key: As given to `write`.
        """
        path = self._path(key)
        if self.beyond is not None and not path.exists():
            self._fetch(path)
        try:
            _, body = read_entry(path)
        except FileNotFoundError:
            return None
        except (DamagedEntryError, OSError) as error:
            log.warning("cache: %s; what it held is computed again", error)
            self._remove(path)
            return None
        with suppress(OSError):  # in a cache that is only lent, as by a colleague, its use stays unknown
            os.utime(path)
        return body

    def write(self, key: str, body: bytes, about: Mapping[str, Any]) -> bool:
        """Keeps bytes; where that fails, it is said and nothing is kept.

        Args:
            key: Hexadecimal digits.
            body: The bytes.
            about: Plain values for people who list the cache.

        Returns:
            Whether they are kept.
        """
        head = json.dumps({"key": key, "about": dict(about)}).encode() + b"\n"
        checksum = hashlib.sha256(head + body).hexdigest()
        content = _MAGIC + checksum.encode() + b"\n" + head + body
        if len(content) > self.max_bytes:
            log.warning(
                "cache: an entry of %d bytes is larger than the whole cache may be (%d); it is not kept",
                len(content),
                self.max_bytes,
            )
            return False
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._make_room(len(content), but=self._path(key))
                _write_atomically(self._path(key), content)
        except (OSError, Timeout) as error:
            log.warning(
                "cache: %s cannot be written (%s); the run goes on and keeps nothing there",
                self.directory,
                error,
            )
            return False
        if self.beyond is not None:
            self._send(self._path(key))
        return True

    def _fetch(self, path: Path) -> None:
        """Brings an entry here, if it is to be had."""
        assert self.beyond is not None
        try:
            self.beyond.fetch(path.name, path)
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("cache: %s cannot be read (%s); the run goes on without", self.beyond.url, error)

    def _send(self, path: Path) -> None:
        assert self.beyond is not None
        try:
            self.beyond.send(path, path.name)
        except OSError as error:
            log.warning("cache: %s cannot be written (%s); the run goes on", self.beyond.url, error)

    def entries(self) -> list[Entry]:
        """All entries, the least recently used first; damaged ones are among them."""
        found = []
        for path in self.directory.glob(f"*{_SUFFIX}"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another process was faster
                continue
            found.append(Entry(path.stem, path, status.st_size, status.st_mtime))
        return sorted(found, key=lambda entry: (entry.used, entry.key))

    def clear(self) -> list[Entry]:
        """Removes all entries.

        Returns:
            What was removed.

        Raises:
            DataError: The directory cannot be written.
        """
        if not self.directory.is_dir():
            return []
        try:
            with self._locked():
                gone = self.entries()
                for entry in gone:
                    entry.path.unlink(missing_ok=True)
        except (OSError, Timeout) as error:
            raise DataError(f"{self.directory}: the cache cannot be cleared ({error})") from error
        return gone

    def _make_room(self, size: int, but: Path) -> None:
        """Removes what a writer that died has left, and as many entries as `size` bytes need."""
        for orphan in self.directory.glob(".tmp-*"):
            orphan.unlink(missing_ok=True)
        entries = [entry for entry in self.entries() if entry.path != but]
        excess = sum(entry.size for entry in entries) + size - self.max_bytes
        for entry in entries:
            if excess <= 0:
                break
            entry.path.unlink(missing_ok=True)
            excess -= entry.size

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("cache: %s cannot be removed (%s)", path, error)

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}{_SUFFIX}"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with FileLock(self.directory / ".lock", timeout=_LOCK_SECONDS):
            yield


def read_entry(path: Path) -> tuple[dict[str, Any], bytes]:
    """What an entry says about itself, and its bytes.

    Args:
        path: File of the entry.

    Raises:
        DamagedEntryError: Its content is not what was written.
        OSError: The file cannot be read.
    """
    content = path.read_bytes()
    if not content.startswith(_MAGIC):
        raise DamagedEntryError(f"{path.name} is damaged: it does not begin like an entry")
    checksum, _, rest = content[len(_MAGIC) :].partition(b"\n")
    if hashlib.sha256(rest).hexdigest().encode() != checksum:
        raise DamagedEntryError(f"{path.name} is damaged: its checksum differs")
    head, _, body = rest.partition(b"\n")
    try:
        said = json.loads(head)
        key, about = said["key"], said["about"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedEntryError(f"{path.name} is damaged: it does not say what it holds") from error
    if key != path.stem or not isinstance(about, dict):
        raise DamagedEntryError(f"{path.name} is damaged: it holds the entry of key {key!r}")
    return about, body


def default_directory() -> Path:
    """`$P2P_BENCH_CACHE`, else `p2p_bench` in the user's cache folder (`$XDG_CACHE_HOME` or `~/.cache`)."""
    named = os.environ.get(DIRECTORY_VARIABLE)
    if named:
        return Path(named).expanduser()
    folder = os.environ.get("XDG_CACHE_HOME")
    return (Path(folder) if folder else Path.home() / ".cache") / "p2p_bench"


def _write_atomically(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.stem}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
