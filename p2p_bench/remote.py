"""A folder at a URL that fsspec knows, such as `s3://bucket/folder`; files come and go whole."""

import logging
import os
import re
import time
from collections.abc import Callable
from hashlib import md5
from pathlib import Path, PurePosixPath
from typing import TypeVar

from p2p_bench.errors import ConfigError, DataError

_TRIES = 8
_PAUSE = 0.25
"""Seconds before the second try; they double with each further one."""

_LONGEST = 8.0
_WHOLE = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "memory")
"""Protocols whose files appear whole: an upload that breaks off leaves what was there."""

_PROBE = ".probe"
_T = TypeVar("_T")
log = logging.getLogger(__name__)


def is_url(text: str) -> bool:
    """Whether a text is a URL and no path of this machine."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]|file:///[^/]", text) is not None


class Remote:
    """The folder at a URL. What fails is tried again, with longer and longer pauses.

    Args:
        url: The URL; files in it are named by paths relative to it, with slashes.
        setting: The setting that named it, for messages.

    Raises:
        ConfigError: No file system answers to the URL.
    """

    def __init__(self, url: str, setting: str) -> None:
        import fsspec  # late: most runs need none

        self.url = url.rstrip("/")
        self._setting = setting
        try:
            self._files, root = fsspec.core.url_to_fs(self.url)
        except Exception as error:  # what file systems raise has no common base
            raise self._unusable(error) from error
        self._root = str(root).rstrip("/")
        protocol = self._files.protocol
        names = (protocol,) if isinstance(protocol, str) else tuple(protocol)
        self._whole = any(name in _WHOLE for name in names)

    def check(self) -> None:
        """Writes a small file and removes it.

        Raises:
            ConfigError: That cannot be done.
        """

        def probe() -> None:
            self._make_folder(self._root)
            self._files.pipe_file(self._path(_PROBE), b"p2p_bench")
            self._files.rm_file(self._path(_PROBE))

        try:
            patiently(probe)
        except OSError as error:
            raise self._unusable(error) from error

    def names(self) -> list[str]:
        """Names of the files; those that begin with a dot, or lie in a folder that does, are left out.

        Raises:
            OSError: It cannot be read.
            DataError: A name leads out of the folder.
        """

        def listed() -> list[str]:
            self._files.invalidate_cache()
            try:
                return sorted(self._files.find(self._root))
            except FileNotFoundError:
                return []

        found = []
        for path in patiently(listed):
            name = path[len(self._root) :].lstrip("/")
            parts = PurePosixPath(name).parts
            if not path.startswith(self._root) or not parts or ".." in parts or "\\" in name:
                raise DataError(f"{self.url}: holds {path!r}, which cannot be a file of this machine")
            if not any(part.startswith(".") for part in parts):
                found.append(name)
        return found

    def fetch(self, name: str, local: Path) -> None:
        """Makes a file of this machine, whole or not at all.

        Raises:
            FileNotFoundError: It is not there.
            OSError: It cannot be read.
        """
        local.parent.mkdir(parents=True, exist_ok=True)
        temporary = local.with_name(f".tmp-{os.getpid()}-{local.name}")

        def fetched() -> None:
            size = self._files.info(self._path(name))["size"]
            self._files.get_file(self._path(name), str(temporary))
            if temporary.stat().st_size != size:
                raise OSError(f"{name}: {temporary.stat().st_size} of {size} bytes arrived")

        try:
            patiently(fetched)
            os.replace(temporary, local)
        finally:
            temporary.unlink(missing_ok=True)

    def send(self, local: Path, name: str) -> None:
        """Copies a file of this machine; it appears whole or not at all.

        Raises:
            OSError: It cannot be written, or `local` cannot be read.
        """
        size = local.stat().st_size
        remote = self._path(name)
        parent, _, bare = remote.rpartition("/")
        place = remote if self._whole else f"{parent}/.{bare}.tmp"

        def sent() -> None:
            self._make_folder(parent)
            self._files.put_file(str(local), place)
            if not self._whole:
                self._files.mv(place, remote)
            self._files.invalidate_cache()
            arrived = self._files.info(remote)["size"]
            if arrived < size:  # more is no fault: a log grows while it is copied
                raise OSError(f"{name}: {arrived} of {size} bytes arrived")

        patiently(sent)

    def read(self, name: str) -> bytes | None:
        """What a small file holds; None where there is none.

        Raises:
            OSError: It cannot be read.
        """

        def found() -> bytes:
            self._files.invalidate_cache()
            body: bytes = self._files.cat_file(self._path(name))
            return body

        try:
            return patiently(found)
        except FileNotFoundError:
            return None

    def write(self, name: str, body: bytes) -> None:
        """Writes a small file.

        Raises:
            OSError: It cannot be written.
        """
        patiently(lambda: self._files.pipe_file(self._path(name), body))

    def same(self, name: str, local: Path) -> bool:
        """Whether a file here holds the bytes of one there.

        Raises:
            FileNotFoundError: It is not there.
            OSError: One of them cannot be read.
        """
        about = patiently(lambda: self._files.info(self._path(name)))
        if about["size"] != local.stat().st_size:
            return False
        body = local.read_bytes()
        tag = str(about.get("ETag", "")).strip('"')
        if re.fullmatch(r"[0-9a-f]{32}", tag) and tag == md5(body, usedforsecurity=False).hexdigest():
            return True  # else it may be a checksum of another kind
        return self.read(name) == body

    def remove(self, name: str) -> None:
        """Removes a file, if it is there.

        Raises:
            OSError: It cannot be removed.
        """

        def removed() -> None:
            if self._files.exists(self._path(name)):
                self._files.rm_file(self._path(name))

        patiently(removed)

    def _make_folder(self, path: str) -> None:
        """Makes a folder where there are such things; an object store would make a bucket instead."""
        if not self._whole:
            self._files.makedirs(path, exist_ok=True)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _unusable(self, error: Exception) -> ConfigError:
        return ConfigError(f"{self._setting}: {self.url} cannot be used ({error}); choose another")


def patiently(action: Callable[[], _T]) -> _T:
    """Does something with a store, again and again where it fails.

    Raises:
        FileNotFoundError: Something is not there; that is not tried again.
        PermissionError: It is not allowed; nor is that.
        OSError: It has failed each time.
    """
    pause = _PAUSE
    for left in reversed(range(_TRIES)):
        try:
            return action()
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # what stores raise has no common base
            if not left:
                raise OSError(str(error) or type(error).__name__) from error
            log.info("trying again: %s", error)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST)
    raise AssertionError("the last try returns or raises")
