"""Where a path starts: where the command was started, whatever folder the work is done in; `~` is home."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write

from p2p_bench.app.instantiate import hints_of
from p2p_bench.cache import Cache, default_directory
from p2p_bench.errors import CannotWriteError, ConfigError, P2PError
from p2p_bench.remote import Remote, is_url

FULL = (errno.ENOSPC, errno.EDQUOT)


def user_path(text: str) -> Path:
    """A path as typed, `~` resolved; what is no path stays as it is and is refused where it is used."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no home folder of that name
        return Path(text)


def placed(text: str, start: Path) -> str:
    """A path as components take it: absolute, if it is one.

    Args:
        text: As typed. It may as well be a name, such as that of a model in a cache: what neither begins
            like a path nor exists stays as it is.
        start: Folder that relative paths start from.
    """
    path = user_path(text)
    if path.is_absolute():
        return str(path)
    there = start / path
    return str(there) if text.startswith(".") or _exists(there) else text


def place_paths(node: Any, start: Path) -> None:
    """Makes the paths among the arguments of a component, and of those inside it, absolute.

    Args:
        node: A composed node; changed.
        start: Folder that relative paths start from.
    """
    for component in _components(node):
        hints = hints_of(component["_target_"])
        for key in component:
            value = None if OmegaConf.is_missing(component, key) else component[key]
            if _may_be_path(hints.get(str(key))):
                _place(component, key, value, start)


def cache_of(run: DictConfig, start: Path) -> Cache | None:
    """Where inversions are kept; None: nowhere.

    Args:
        run: The node `run`.
        start: Folder that relative paths start from.

    Raises:
        ConfigError: No file system answers to a URL.
    """
    if not run.cache:
        return None
    named = run.cache if isinstance(run.cache, str) else ""
    beyond = Remote(named, "run.cache") if is_url(named) else None
    directory = user_path(named) if named and beyond is None else default_directory()
    return Cache(start / directory, round(run.cache_gb * 1e9), beyond)


def _place(holder: Any, key: Any, value: Any, start: Path) -> None:
    """Makes a path absolute, or those of a list."""
    if isinstance(value, ListConfig):
        for index, item in enumerate(value):
            _place(value, index, item, start)
    elif isinstance(value, str) and (absolute := placed(value, start)) != value:
        with read_write(holder), open_dict(holder):
            holder[key] = absolute.replace("${", "\\${")


def _components(node: Any) -> Iterator[DictConfig]:
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield node
        for key in node:
            if not OmegaConf.is_missing(node, key):
                yield from _components(node[key])
    elif isinstance(node, ListConfig):
        for value in node:
            yield from _components(value)


def _may_be_path(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        return _may_be_path(get_args(hint)[0])
    return hint is Path or (get_origin(hint) is not None and Path in get_args(hint))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with a NUL
        return False


def folder_fault(folder: Path) -> str:
    """Why a folder cannot be made and written; "" if nothing is known against it. Makes none."""
    if "\0" in str(folder):  # `exists` takes it for a name like any other
        return "its name holds a NUL"
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        length = os.pathconf(there, "PC_NAME_MAX") if there.is_dir() else 255
    except (OSError, ValueError) as error:
        return str(error)
    if not there.is_dir():
        return f"{there} is a file"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"{there} may not be written"
    long = next((part for part in folder.parts if len(os.fsencode(part)) > length), "")
    return f"the name {long[:20]}... is longer than {length} bytes" if long else ""


def unwritable(folder: object, error: OSError) -> P2PError:
    """The error to show where a run's folder cannot be written."""
    if error.errno in FULL:
        return CannotWriteError(
            f"{folder}: cannot be written ({error}); make room and start the same command again with "
            "run.dir=DIR, or p2p-bench resume DIR"
        )
    return ConfigError(f"run.dir: {folder} cannot be written ({error}); choose another with run.dir=DIR")
