"""What a summary needs to know of rows, gathered row by row: numbers stay, rows go."""

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from p2p_bench.stats import mean_interval, median

Row = Mapping[str, Any]

_NAN = float("nan")
_COSTS = ("unet_rows", "unet_rows_spent", "seconds")


class Scores:
    """The metric columns of some rows.

    Args:
        columns: Names of the columns.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._values = {name: array("d") for name in columns}
        self._samples = array("q")
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        """Number of the rows."""
        return len(self._samples)

    def add(self, row: Row) -> None:
        """One more row."""
        self._samples.append(self._numbers.setdefault(row["sample_id"], len(self._numbers)))
        for name, values in self._values.items():
            value = row[name]
            values.append(_NAN if value is None else value)

    def means(self) -> dict[str, dict[str, float]]:
        """Mean with its interval, median, and numbers of rows with and without a value, by column."""
        return {name: _statistics(values, self._samples) for name, values in self._values.items()}


class Totals:
    """Costs and counts of some rows."""

    def __init__(self) -> None:
        self.edits = 0
        self._failed = 0
        self._samples: set[str] = set()
        self._costs = {name: array("d") for name in _COSTS}
        self._notes: Counter[str] = Counter()

    def add(self, row: Row) -> None:
        """One more row."""
        self.edits += 1
        self._samples.add(row["sample_id"])
        for name, values in self._costs.items():
            values.append(row[name])
        if row["status"] != "ok":
            self._failed += 1
            return
        self._notes.update(notes_of(row))

    def note_counts(self) -> dict[str, int]:
        """How many edits that did not fail each note is about, most first."""
        return dict(self._notes.most_common())

    def figures(self) -> dict[str, int | float]:
        """The sums and numbers."""
        return {
            **{name: sum(values) for name, values in self._costs.items()},
            "samples": len(self._samples),
            "edits": self.edits,
            "failed": self._failed,
        }


class Tally:
    """The rows of a variant. Scores are of rows with `status=ok`, as is what is said of them.

    Args:
        columns: Names of the metric columns.

    Attributes:
        failed: Number of the other rows.
        scores: The scores.
        categories: The scores of each category, in the order of their first rows.
        masks: How often a mask was what, of all rows.
        mask_from: Where masks that confined the edit came from.
        missing: How often a metric column has no value for which reason, where metrics gave one.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.failed = 0
        self.scores = Scores(columns)
        self.categories: dict[str, Scores] = {}
        self.masks: Counter[str] = Counter()
        self.mask_from: Counter[str] = Counter()
        self.missing: dict[str, Counter[str]] = {}
        self._columns = columns
        self._costs = {name: array("d") for name in _COSTS}

    def add(self, row: Row) -> None:
        """One more row."""
        for name, values in self._costs.items():
            values.append(row[name])
        if row.get("mask"):
            self.masks[row["mask"]] += 1
        if row["status"] != "ok":
            self.failed += 1
            return
        self.scores.add(row)
        if row["category"]:
            self.categories.setdefault(row["category"], Scores(self._columns)).add(row)
        if row.get("mask_from"):
            self.mask_from[row["mask_from"]] += 1
        for column, reason in missing_of(row).items():
            self.missing.setdefault(column, Counter())[reason] += 1

    def costs(self) -> dict[str, int | float]:
        """The sums over all rows."""
        return {name: sum(values) for name, values in self._costs.items()}


def notes_of(row: Row) -> list[str]:
    """The notes of a row, one by one."""
    return [note for note in (row.get("notes") or "").split("; ") if note]


def missing_of(row: Row) -> dict[str, str]:
    """Why metric columns of a row have no value, where metrics gave a reason."""
    found: dict[str, str] = json.loads(row.get("missing") or "{}")
    return found


def _statistics(values: Sequence[float], samples: Sequence[int]) -> dict[str, float]:
    mean = mean_interval(values, groups=samples)
    return {**asdict(mean), "median": median(values), "missing": len(values) - mean.count}


def note_counts(rows: Iterable[Row]) -> dict[str, int]:
    """How often each note stands in some rows, most often first."""
    return dict(Counter(note for row in rows for note in notes_of(row)).most_common())


def missing_values(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    """How often a metric column has no value for which reason, where metrics gave one."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        for column, reason in missing_of(row).items():
            counts.setdefault(column, Counter())[reason] += 1
    return {column: dict(reasons) for column, reasons in counts.items()}
