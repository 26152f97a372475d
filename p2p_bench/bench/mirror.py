"""The directory of a run, copied to a URL as it grows: `run.output=s3://bucket/folder`."""

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath

from p2p_bench.bench.directory import ASIDE
from p2p_bench.bench.rows import is_part
from p2p_bench.bench.url_lock import UrlLock
from p2p_bench.errors import CannotWriteError, ConfigError
from p2p_bench.remote import Remote

_EVERY = 5.0
"""Seconds between two looks for files to copy."""

_TOGETHER = 32
"""URLs that are asked at the same time."""

_ANOTHER = (-1, -1)
"""State of a copy that is not known to be the same."""

log = logging.getLogger(__name__)


class Mirror:
    """A folder at a URL that is to hold what the directory of a run holds.

    Files whose names begin with a dot are left out: those that are being written, and the lock.

    Args:
        folder: The directory.
        remote: Where the copy lies.
        lock: What says that this run writes there; None takes that for granted.
        only: Names of the files that are copied; () copies all.
    """

    def __init__(
        self, folder: Path, remote: Remote, lock: UrlLock | None = None, only: Collection[str] = ()
    ) -> None:
        self.folder = folder
        self.remote = remote
        self.lock = lock
        self.only = only
        self._copied: dict[str, tuple[int, int]] = {}

    def pull(self) -> int:
        """Fetches the files that the directory lacks.

        Returns:
            Their number.

        Raises:
            OSError: The URL cannot be read.
            DataError: A name there leads out of the folder.
            ConfigError: A part, or a journal, there is not the one of that name here: one would replace the
                other.
        """
        fetched = 0
        for name in self.remote.names():
            if self.only and name not in self.only:
                continue
            local = self.folder / name
            if local.exists():
                self._copied[name] = _ANOTHER
                if is_part(local):
                    self._compare(name)
                if local.suffix == ".log":
                    self._keep_log(name)
                if local.suffix == ".jsonl":
                    fetched += self._keep_longer(name)
            else:
                self.remote.fetch(name, local)
                self._copied[name] = _state(local)
                fetched += 1
        return fetched

    def _compare(self, name: str) -> None:
        """Parts never change, so one that differs is of another run, unless it was set aside here."""
        local = self.folder / name
        if self.remote.same(name, local):
            self._copied[name] = _state(local)
            return
        aside = (self.folder / ASIDE).glob(f"*/{name}")
        if not any(self.remote.same(name, before) for before in aside):
            raise ConfigError(
                f"run.output: {self.remote.url} and {self.folder} both hold a {name}, and they differ: rows "
                "were computed in both; choose another run.dir to go on from the URL, or another URL"
            )

    def _keep_log(self, name: str) -> None:
        """Fetches a log under another name, unless the one here, which takes its place, goes on from it."""
        local = self.folder / name
        there = local.with_name(f".{local.name}.tmp")
        self.remote.fetch(name, there)
        told = there.read_bytes()
        if local.read_bytes().startswith(told):
            there.unlink()
            return
        number = 1
        while (kept := local.with_name(f"{local.stem}-before-{number}.log")).exists():
            number += 1
        there.rename(kept)

    def _keep_longer(self, name: str) -> bool:
        """Fetches a journal, to which lines are only added, where the one there goes on from the one here.

        Returns:
            Whether it was fetched.

        Raises:
            ConfigError: Neither goes on from the other.
        """
        local = self.folder / name
        here, there = (
            body[: body.rfind(b"\n") + 1] for body in (local.read_bytes(), self.remote.read(name) or b"")
        )
        if here.startswith(there):
            return False
        if not there.startswith(here):
            raise ConfigError(
                f"run.output: {self.remote.url} and {self.folder} both hold a {name}, and neither goes on "
                "from the other; choose another run.dir to go on from the URL, or another URL"
            )
        self.remote.fetch(name, local)
        self._copied[name] = _state(local)
        return True

    def push(self) -> int:
        """Copies the files that are new, or have changed since they were copied.

        Returns:
            Their number.

        Raises:
            OSError: One could not be copied; the others are.
            CannotWriteError: Another run writes there meanwhile.
        """
        failed: list[OSError] = []
        number = 0
        found = [self.folder / name for name in self.only] if self.only else self.folder.rglob("*")
        for local in sorted(found):
            name = local.relative_to(self.folder).as_posix()
            if any(part.startswith(".") for part in PurePosixPath(name).parts) or not local.is_file():
                continue
            if self.lock is not None:
                self.lock.hold()
            try:
                state = _state(local)
                if self._copied.get(name) == state:
                    continue
                self.remote.send(local, name)
                self._copied[name] = state
                self._drop_moved(name)
                number += 1
            except OSError as error:
                if local.exists():  # else it was replaced or moved: the next look finds what took its place
                    failed.append(error)
        if failed:
            raise failed[0]
        return number

    def _drop_moved(self, name: str) -> None:
        """Removes the copy of a file that a run has set aside, once it is copied where it lies now."""
        folder, _, rest = name.partition("/")
        _, _, before = rest.partition("/")
        if folder == ASIDE and before in self._copied and not (self.folder / before).exists():
            self.remote.remove(before)
            del self._copied[before]


@contextmanager
def mirrored(
    folder: Path, url: str | None, tell: Callable[[str], None], only: Collection[str] = ()
) -> Iterator[None]:
    """Fetches what is at a URL, and copies there what the directory gets meanwhile.

    Args:
        folder: Directory of a run.
        url: A URL that fsspec knows; None does nothing.
        tell: Called with a line on what was fetched or copied.
        only: Names of the files that are copied; () copies all.

    Raises:
        ConfigError: The URL cannot be used, another run writes there, or a part there and one here differ.
        CannotWriteError: The URL cannot be read at the start, or not be written at the end.
        DataError: What is there cannot be the files of a run.
    """
    if url is None:
        yield
        return
    remote = Remote(url, "run.output")
    remote.check()
    with _held(remote) as lock:
        mirror = Mirror(folder, remote, lock, only)
        try:
            fetched = mirror.pull()
        except OSError as error:
            raise CannotWriteError(f"run.output: {url} cannot be read ({error})") from error
        if fetched:
            tell(f"fetched {fetched} files from {url}")
        with _copying(mirror):
            yield
    tell(f"copied to {url}")


def fetch(folder: Path, url: str) -> None:
    """Fetches the files of a run that its directory lacks.

    Raises:
        CannotWriteError: The URL cannot be read.
        ConfigError: What is there is not of the run that is here.
    """
    try:
        Mirror(folder, Remote(url, "run.output")).pull()
    except OSError as error:
        raise CannotWriteError(f"run.output: {url} cannot be read ({error})") from error


@contextmanager
def mirrored_together(
    places: Sequence[tuple[Path, str | None]], tell: Callable[[str], None]
) -> Iterator[None]:
    """As `mirrored` for several directories, which wait at the same time for marks that dead runs left.

    Args:
        places: Directories of runs and their URLs.
        tell: Called with a line on what was fetched or copied.

    Raises:
        ConfigError: See `mirrored`.
        CannotWriteError: See `mirrored`.
        DataError: See `mirrored`.
    """
    with ExitStack() as stack:
        with ThreadPoolExecutor(_TOGETHER) as pool:
            begun = [pool.submit(_begun, *place, tell) for place in places if place[1] is not None]
        faults = []
        for one in begun:
            if (fault := one.exception()) is None:
                stack.enter_context(one.result())
            else:
                faults.append(fault)
        if faults:
            raise faults[0]
        yield


def _begun(folder: Path, url: str | None, tell: Callable[[str], None]) -> ExitStack:
    """What ends `mirrored`, which has begun."""
    with ExitStack() as stack:
        stack.enter_context(mirrored(folder, url, tell))
        return stack.pop_all()


@contextmanager
def _held(remote: Remote) -> Iterator[UrlLock]:
    """Holds a URL; what goes wrong when it is let go is no fault of the run."""
    lock = UrlLock(remote, _EVERY)
    try:
        lock.__enter__()
    except OSError as error:
        raise CannotWriteError(f"run.output: {remote.url} cannot be read ({error})") from error
    try:
        yield lock
    finally:
        with suppress(OSError):
            lock.__exit__(None, None, None)


@contextmanager
def _copying(mirror: Mirror) -> Iterator[None]:
    """Copies what the directory gets meanwhile, and in the end what is left."""
    ended = threading.Event()
    helper = threading.Thread(target=_keep_copying, args=(mirror, ended), daemon=True)
    helper.start()
    try:
        yield
    finally:
        ended.set()
        helper.join()
        try:
            mirror.push()
        except OSError as error:
            raise CannotWriteError(
                f"run.output: {mirror.remote.url}: not everything could be copied there ({error}); all of it "
                f"is in {mirror.folder}; the same command with that folder as run.dir copies what is missing"
            ) from error


def _keep_copying(mirror: Mirror, ended: threading.Event) -> None:
    while not ended.wait(_EVERY):
        try:
            mirror.push()
        except CannotWriteError as error:
            log.error("%s", error)
            return
        except OSError as error:
            log.warning("%s: some files could not be copied yet: %s", mirror.remote.url, error)


def _state(path: Path) -> tuple[int, int]:
    """Size and time of the last change."""
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns
