"""Runs that are still going on: how far they are, from their `progress.json` and their parts alone.

A part never changes, so each is read once, however often one looks; where one has gone, or another took its
name (`run.resume=force`), all is read anew.
"""

import json
import math
import os
import socket
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from p2p_bench.bench.directory import STATUS
from p2p_bench.bench.rows import KEY_COLUMNS, ROWS, part_files, part_number
from p2p_bench.errors import DataError
from p2p_bench.report.columns import metric_columns, metric_counts
from p2p_bench.report.tradeoff import choose_axes

_KEYS = ("experiment", "state", "started", "promised", "variants", "metrics", "host", "process")
_RECENT = 24
"""Parts whose times give the present rate."""


@dataclass(frozen=True)
class Snapshot:
    """How far a run is.

    Attributes:
        path: Its directory.
        name: Its name.
        state: "running", "finished", "interrupted", "failed", or "stopped" where its process is gone.
        done: Edits that are made, failed ones included; not those of an earlier start that are tried again.
        failed: Edits whose last row is a failure.
        promised: Edits of the run.
        rate: Edits a second of late; NaN where it is not known yet.
        summary: What a table of the run needs of its summary, means of what is there.
        reasons: Why edits failed, and how often.
        axes: Metrics of editability and fidelity; None without values.
    """

    path: Path
    name: str
    state: str
    done: int
    failed: int
    promised: int
    rate: float
    summary: Mapping[str, Any]
    reasons: Mapping[str, int]
    axes: tuple[str, str] | None

    @property
    def seconds_left(self) -> float:
        """Until the last edit at the present rate; NaN where that is not known, 0 once nothing goes on."""
        if self.state != "running":
            return 0.0
        return (self.promised - self.done) / self.rate if self.rate > 0 else math.nan

    def line(self) -> str:
        """The snapshot in a line."""
        parts = [f"{self.done} of {self.promised} edits", f"{self.failed} failed", self.state]
        if self.state == "running" and not math.isnan(self.rate):
            parts.insert(2, f"{self.rate:.3g} edits/s")
        if self.state == "running" and not math.isnan(self.seconds_left):
            parts.append(f"about {duration(self.seconds_left)} left")
        return f"{self.name} ({self.path}): " + ", ".join(parts)


@dataclass(frozen=True)
class _Part:
    """A part that was read.

    Attributes:
        number: Its number.
        written: When it was, in seconds since the epoch.
        stamp: What tells it from another of its name.
        rows: Number of its rows.
    """

    number: int
    written: float
    stamp: tuple[int, ...]
    rows: int


@dataclass
class _Variant:
    count: int = 0
    failed: int = 0
    sums: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)


class LiveRun:
    """A run that is looked at again and again.

    Args:
        path: Its directory.

    Raises:
        DataError: There is no `progress.json`, or it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._forget()
        self._status()

    def _forget(self) -> None:
        self._seen: dict[str, _Part] = {}
        self._keys: dict[tuple[Any, ...], str] = {}
        self._last: dict[tuple[Any, ...], int] = {}
        self._variants: dict[str, _Variant] = {}

    def look(self) -> Snapshot:
        """How far the run is now.

        Raises:
            DataError: A file of the run cannot be read.
        """
        status = self._status()
        first, there = int(status.get("first_part", 0)), int(status.get("there", 0))
        self._read_parts(list(status["metrics"]))
        now = sum(number >= first for number in self._last.values())
        failed = Counter(reason for reason in self._keys.values() if reason)
        summary = self._summary(status)
        columns = metric_columns(status["metrics"])
        axes = choose_axes(columns, metric_counts(summary))
        return Snapshot(
            path=self.path,
            name=str(status["experiment"]),
            state=_state(status),
            done=there + now if "first_part" in status else now,
            failed=failed.total(),
            promised=int(status["promised"]),
            rate=self._rate(float(status["started"]), first),
            summary=summary,
            reasons=dict(failed.most_common()),
            axes=None if axes is None else (axes.x, axes.y),
        )

    def _status(self) -> dict[str, Any]:
        file = self.path / STATUS
        try:
            status = json.loads(file.read_text(encoding="utf-8"))
            lacking = [key for key in _KEYS if key not in status]
            if lacking:
                raise KeyError(*lacking)
            float(status["started"]), int(status["promised"]), list(status["variants"])
            int(status.get("first_part", 0)), int(status.get("there", 0))
            metric_columns(status["metrics"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{file}: not what a run says of its progress ({error!r})") from error
        found: dict[str, Any] = status
        return found

    def _read_parts(self, metrics: Sequence[str]) -> None:
        wanted = [*KEY_COLUMNS, "status", "error", *metrics]
        paths = part_files(self.path / ROWS)
        if self._replaced(paths):
            self._forget()
        for path in paths:
            if path.name in self._seen:
                continue
            try:
                written = path.stat()
                rows = pq.read_table(path, columns=wanted, partitioning=None).to_pylist()
            except FileNotFoundError:
                continue
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{path}: not a readable part of rows ({error})") from error
            number = part_number(path)
            self._seen[path.name] = _Part(number, written.st_mtime, _stamp(written), len(rows))
            for row in rows:
                self._count(row, metrics, number)

    def _replaced(self, paths: Sequence[Path]) -> bool:
        """Whether parts that were read are gone or are others now."""
        stamps = {}
        for path in paths:
            with suppress(FileNotFoundError):
                stamps[path.name] = _stamp(path.stat())
        return any(stamps.get(name) != part.stamp for name, part in self._seen.items())

    def _count(self, row: Mapping[str, Any], metrics: Iterable[str], number: int) -> None:
        key = tuple(row[name] for name in KEY_COLUMNS)
        self._last[key] = max(number, self._last.get(key, 0))
        variant = self._variants.setdefault(str(row["variant"]), _Variant())
        before = self._keys.get(key)
        if before == "":  # computed twice: the same row
            return
        if before is not None:
            variant.failed -= 1
        good = row["status"] == "ok"
        self._keys[key] = "" if good else str(row["error"] or "an error without a reason")
        variant.count, variant.failed = variant.count + good, variant.failed + (not good)
        for name in metrics if good else ():
            if row[name] is not None and math.isfinite(row[name]):
                variant.sums[name] += row[name]
                variant.counts[name] += 1

    def _rate(self, started: float, first_part: int) -> float:
        fresh = (part for part in self._seen.values() if part.number >= first_part)
        parts = sorted(fresh, key=lambda part: part.written)[-_RECENT:]
        if not parts:
            return math.nan
        first = started if len(parts) < 2 else parts[0].written
        count = sum(part.rows for part in (parts if len(parts) < 2 else parts[1:]))
        return count / (parts[-1].written - first) if parts[-1].written > first else math.nan

    def _summary(self, status: Mapping[str, Any]) -> dict[str, Any]:
        names = dict.fromkeys([*map(str, status["variants"]), *self._variants])
        found = {}
        for name in names:
            variant = self._variants.get(name, _Variant())
            means = {
                metric: {"mean": variant.sums[metric] / count, "count": count}
                for metric, count in variant.counts.items()
            }
            found[name] = {"count": variant.count, "failed": variant.failed, "metrics": means}
        return {"experiment": status["experiment"], "variants": found, "metrics": status["metrics"]}


def _stamp(facts: os.stat_result) -> tuple[int, ...]:
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


def live_paths(directory: Path) -> list[Path]:
    """Directories of the runs in a directory: itself, or those of a sweep, in their order.

    Raises:
        DataError: There are none.
    """
    if (directory / STATUS).is_file():
        return [directory]
    found = (path.parent for path in directory.glob(f"*/{STATUS}"))
    ordered = sorted(found, key=lambda path: (len(path.name), path.name))
    if not ordered:
        raise DataError(f"{directory}: no run has begun here, expected {STATUS} in it or in a folder of it")
    return ordered


def duration(seconds: float) -> str:
    """Seconds in words for people: "40 s", "12 min", "3 h 20 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _state(status: Mapping[str, Any]) -> str:
    """As told; a run whose process on this machine is gone has stopped without telling."""
    state = str(status["state"])
    if state != "running" or status["host"] != socket.gethostname():
        return state
    try:
        os.kill(int(status["process"]), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return "stopped"
    except PermissionError:
        pass
    return state
