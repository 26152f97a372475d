"""One writer at a URL. Stores have no locks, so a writer leaves a mark and looks whether it is there."""

import json
import os
import socket
import time
from types import TracebackType
from uuid import uuid4

from p2p_bench.errors import CannotWriteError, ConfigError
from p2p_bench.remote import Remote

_MARK = ".writer.json"


class UrlLock:
    """A mark at a URL that changes as long as a run writes there.

    No clocks are compared: who finds a mark waits whether it changes. Two who come at the same instant both
    write theirs; all but the last one see that and go. One whose mark was replaced copies nothing more.

    Args:
        remote: The folder at the URL.
        every: Seconds between two changes.
    """

    def __init__(self, remote: Remote, every: float) -> None:
        self._remote = remote
        self._every = every
        self._name = uuid4().hex
        self._number = 0
        self._written = b""
        self._last = 0.0

    def __enter__(self) -> "UrlLock":
        """Takes the URL.

        Raises:
            ConfigError: Another run writes there.
            OSError: It cannot be read or written.
        """
        if (there := self._remote.read(_MARK)) is not None:
            time.sleep(3 * self._every)  # long enough for a writer that is alive
            now = self._remote.read(_MARK)
            if now not in (None, there):
                raise self._taken(now)
        self._write()
        time.sleep(self._every / 10)
        if (now := self._remote.read(_MARK)) != self._written:
            raise self._taken(now)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets go of it."""
        if self._remote.read(_MARK) == self._written:
            self._remote.remove(_MARK)

    def hold(self) -> None:
        """Looks whether the URL is still this run's, and says so again; nothing if that was done just now.

        Raises:
            CannotWriteError: Another run has taken it.
            OSError: It cannot be read or written.
        """
        if time.monotonic() - self._last < self._every:
            return
        if self._remote.read(_MARK) != self._written:
            raise CannotWriteError(
                f"run.output: another run writes to {self._remote.url}; nothing more is copied there"
            )
        self._write()

    def _write(self) -> None:
        self._number += 1
        told = {
            "writer": self._name,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "number": self._number,
        }
        self._written = json.dumps(told).encode()
        self._remote.write(_MARK, self._written)
        self._last = time.monotonic()

    def _taken(self, mark: bytes | None) -> ConfigError:
        try:
            told = json.loads(mark or b"")
            who = f"process {told['process']} on {told['host']}"
        except (ValueError, KeyError, TypeError):
            who = "another run"
        return ConfigError(
            f"run.output: {who} writes to {self._remote.url}; wait for it, or choose another URL"
        )
