"""The directory of a run: one writer at a time, and only ever one set of settings."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import yaml
from filelock import FileLock, Timeout

from p2p_bench.bench.rows import write_atomically
from p2p_bench.errors import ConfigError, DataError

CONFIG = "config.yaml"
STATUS = "progress.json"
"""What a run says when it begins and when it ends; see `status`."""

ASIDE = "replaced"
"""Folder of a run directory in which rows of other settings lie that a run replaced."""

Resume = bool | Literal["force"]
"""Whether a directory that holds rows is completed; "force" sets rows of other settings aside."""

_LOCK = ".lock"
_SHOWN = 5


@contextmanager
def locked(run_dir: Path, option: str = "run.dir=DIR") -> Iterator[None]:
    """Holds the directory of a run, made if need be; the system lets go of it when the process dies.

    Args:
        run_dir: The directory.
        option: How another one is chosen.

    Raises:
        ConfigError: Another run holds it, or it cannot be made.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{run_dir} cannot be made ({error}); choose another with {option}") from error
    lock = FileLock(run_dir / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(
            f"{run_dir}: another run is writing here; wait for it, or choose another with {option}"
        ) from error
    try:
        yield
    finally:
        lock.release()


def set_aside(run_dir: Path) -> Path:
    """Moves everything in a run's directory but its lock and its log into a new folder inside it.

    Args:
        run_dir: A locked directory.

    Returns:
        The folder.
    """
    number = 1
    while (folder := run_dir / ASIDE / str(number)).exists():
        number += 1
    folder.mkdir(parents=True)
    for path in list(run_dir.iterdir()):
        if path.name not in (_LOCK, ASIDE) and path.suffix != ".log":
            os.replace(path, folder / path.name)
    return folder


def claim(run_dir: Path, run_id: str, rows: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> None:
    """Writes `config.yaml`, unless the directory holds rows of other settings.

    Args:
        run_dir: A locked directory.
        run_id: Digest of what decides the numbers of this run.
        rows: Rows that are there already.
        config: The configuration, as plain values.

    Raises:
        ConfigError: The rows were made with other settings; names those that differ.
    """
    if any(row["run_id"] != run_id for row in rows):
        raise ConfigError(
            f"{run_dir} holds rows of a run with other settings ({_differences(run_dir, config)}); "
            "repeat those settings to finish that run, choose another directory with run.dir=DIR, or set it "
            "aside with run.resume=force"
        )
    write_config(run_dir, config)


def write_config(run_dir: Path, config: Mapping[str, Any]) -> None:
    """Writes `config.yaml`.

    Args:
        run_dir: A locked directory.
        config: The configuration, as plain values.
    """
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
    write_atomically(run_dir / CONFIG, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_config(run_dir: Path) -> dict[str, Any]:
    """The configuration that a run was started with.

    Raises:
        DataError: `config.yaml` is missing or damaged.
    """
    path = run_dir / CONFIG
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: cannot be read ({error}); is {run_dir} the directory of a run?") from error
    if not isinstance(config, dict):
        raise DataError(f"{path}: expected the configuration of a run, got {type(config).__name__}")
    return config


def changed_settings(run_dir: Path, config: Mapping[str, Any], apart: Collection[str] = ()) -> str:
    """What `config.yaml` says otherwise than a configuration, in words; "" for nothing.

    Args:
        run_dir: A run directory.
        config: The configuration, as plain values.
        apart: Keys that are not compared, and beginnings of some, which end in a dot.

    Raises:
        DataError: `config.yaml` is missing or damaged.
    """
    return differing(read_config(run_dir), yaml.safe_load(yaml.safe_dump(dict(config))), apart)


def differing(there: Mapping[str, Any], here: Mapping[str, Any], apart: Collection[str] = ()) -> str:
    """Which settings differ, in words; "" if none do.

    Args:
        there: Plain values that may be nested.
        here: Likewise.
        apart: Dotted keys that are not compared, and beginnings of some, which end in a dot.
    """
    before, now = dict(_flat(there)), dict(_flat(here))
    beginnings = tuple(key for key in apart if key.endswith("."))
    keys = [
        key
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key) and key not in apart and not key.startswith(beginnings)
    ]
    texts = [f"{key}: {before.get(key)!r} there, {now.get(key)!r} here" for key in keys[:_SHOWN]]
    return "; ".join(texts) + (f"; and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")


_KEPT = (
    "dir", "output", "name", "batch_size", "images", "heatmaps", "cache", "cache_gb", "timeout", "max_errors",
    "resume",
)  # fmt: skip
_DECIDES_NOTHING = (
    "sampler.max_rows", "model.offload", *(f"run.{key}" for key in _KEPT), "trainer.", "logger.", "started.",
)  # fmt: skip
"""Settings in which the rows of a run may differ."""


def _differences(run_dir: Path, config: Mapping[str, Any]) -> str:
    try:
        found = changed_settings(run_dir, config, _DECIDES_NOTHING)
    except DataError:
        return f"its {CONFIG} cannot be read"
    return found or (
        "the model's weights, the data set, the timesteps of its sampler or the pictures that are scored "
        "have changed since"
    )


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node
