"""Reads what an offline W&B run left on the disk."""

import json
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

_BLOCK, _FILE_HEADER, _CHUNK_HEADER = 32768, 7, 7
_FULL, _LAST = 1, 4


@dataclass
class OfflineRun:
    """What can be read back of a run."""

    run_id: str = ""
    name: str = ""
    entity: str = ""
    sweep_id: str = ""
    tags: tuple[str, ...] = ()
    project: str = ""
    group: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, dict[str, Path]] = field(default_factory=dict)
    """Kind of artifact to the files in it: name in the artifact to place on the disk."""
    metrics: dict[str, set[str]] = field(default_factory=dict)
    """Name of a defined metric to what its summary keeps."""
    exit_code: int | None = None


def read_offline_run(path: Path, patience: float = 20.0) -> OfflineRun:
    """The run in a `.wandb` file, once it is complete: another process writes it, also after `finish`."""
    end = time.monotonic() + patience
    while (run := _read(path)).exit_code is None and time.monotonic() < end:
        time.sleep(0.05)
    return run


def _read(path: Path) -> OfflineRun:
    run = OfflineRun()
    for data in _chunks(path.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.name, run.project = record.run.display_name, record.run.project
            run.run_id, run.entity = record.run.run_id, record.run.entity
            run.sweep_id, run.tags = record.run.sweep_id, tuple(record.run.tags)
            run.group = record.run.run_group
            run.config.update(_values(record.run.config.update))
        elif kind == "history":
            run.history.append(_values(record.history.item))
        elif kind == "summary":
            run.summary.update(_values(record.summary.update))
        elif kind == "metric":
            kept = record.metric.summary
            run.metrics[record.metric.name] = {
                name for name in ("min", "max", "mean", "last") if getattr(kept, name)
            }
        elif kind == "artifact":
            files = {entry.path: Path(entry.local_path) for entry in record.artifact.manifest.contents}
            run.artifacts.setdefault(record.artifact.type, {}).update(files)
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def offline_runs(folder: Path) -> list[OfflineRun]:
    """The runs below a directory, in the order they were started."""
    paths = sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_ctime_ns)
    return [read_offline_run(path) for path in paths]


def _chunks(data: bytes) -> Iterator[bytes]:
    """Records of a file in LevelDB's log format: blocks, in them chunks of (checksum, length, kind)."""
    place, parts = _FILE_HEADER, []
    while data[:4] == b":W&B" and place + _CHUNK_HEADER <= len(data):
        left = _BLOCK - place % _BLOCK
        if left < _CHUNK_HEADER:
            place += left
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, place)
        if place + _CHUNK_HEADER + length > len(data):
            return  # still being written
        parts.append(data[place + _CHUNK_HEADER : place + _CHUNK_HEADER + length])
        if zlib.crc32(bytes([kind]) + parts[-1]) != checksum:
            raise ValueError(f"the chunk at {place} is damaged")
        place += _CHUNK_HEADER + length
        if kind in (_FULL, _LAST):
            yield b"".join(parts)
            parts = []


def _values(items: Iterable[Any]) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
