"""Whether what lies in a directory has the shape of a run: a table or a summary may come from anywhere."""

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from p2p_bench.bench.rows import IMAGE_COLUMNS
from p2p_bench.errors import DataError
from p2p_bench.report.columns import number
from p2p_bench.stats import mean_interval

Row = Mapping[str, Any]

_TEXTS = (
    "sample_id", "variant", "category", "source_prompt", "target_prompt", "status", "controller", "inversion",
)  # fmt: skip
_NUMBERS = ("seconds", "unet_rows", "unet_rows_spent", "unet_rows_backward", "peak_memory_mb")
_MEAN = ("mean", "low", "high", "count")


def check_rows(rows: Iterable[Mapping[str, Any]], metrics: Iterable[str], file: Path) -> None:
    """Checks what a report reads of rows.

    Raises:
        DataError: A column is missing, or a value is missing or of another type; names the first.
    """
    numbers = (*_NUMBERS, *metrics)
    for row in rows:
        for key in _TEXTS:
            _check(isinstance(row.get(key), str), file, key, "text", row.get(key))
        _check(
            _is_whole(row.get("target_index")), file, "target_index", "an integer", row.get("target_index")
        )
        _check_optional(row, file, numbers)


def check_references(rows: Iterable[Mapping[str, Any]], metrics: Iterable[str], file: Path) -> None:
    """Checks what a report reads of references, as `check_rows` does."""
    numbers = tuple(metrics)
    for row in rows:
        for key in ("sample_id", "category", "reference"):
            _check(isinstance(row.get(key), str), file, key, "text", row.get(key))
        _check(
            _is_whole(row.get("target_index")), file, "target_index", "an integer", row.get("target_index")
        )
        _check_optional(row, file, numbers)


def check_summary(summary: Any, file: Path) -> None:
    """Checks what a report reads of a summary.

    Raises:
        DataError: An entry is missing or of another type; names the first.
    """
    _check(isinstance(summary, Mapping), file, "the file", "a mapping", summary)
    missing = [key for key in ("schema_version", "variants", "metrics") if key not in summary]
    if missing:
        raise DataError(f"{file}: lacks {', '.join(missing)}; it was not written by this program")
    version = summary["schema_version"]
    _check(_is_whole(version) or isinstance(version, str), file, "schema_version", "a number", version)
    for key in ("variants", "metrics", "references", "settings"):
        value = summary.get(key)
        optional = value is None and key in ("references", "settings")
        _check(optional or isinstance(value, Mapping), file, key, "a mapping", value)
    for name, facts in summary["metrics"].items():
        _check(isinstance(facts, Mapping), file, f"metrics.{name}", "a mapping", facts)
        better = facts.get("higher_is_better")
        _check(better is None or isinstance(better, bool), file, f"metrics.{name}", "true or false", better)
    for key in ("variants", "references"):
        for name, facts in (summary.get(key) or {}).items():
            means = facts.get("metrics") if isinstance(facts, Mapping) else None
            _check(isinstance(means, Mapping), file, f"{key}.{name}", "a mapping with metrics", facts)
            for metric, mean in (means or {}).items():
                _check_mean(mean, file, f"{key}.{name}.{metric}")


def check_together(
    rows: Iterable[Row], references: Iterable[Row], summary: Mapping[str, Any], path: Path
) -> None:
    """Checks that a summary is of these rows: a page shows the means of the one beside edits of the other.

    Args:
        rows: All rows of a run, checked.
        references: Its references, checked.
        summary: Its summary, checked.
        path: Its directory.

    Raises:
        DataError: They differ in their variants, or in the counts or means of one.
    """
    parts = (("variants", "variant", rows), ("references", "reference", references))
    for key, column, given in parts:
        stated = summary.get(key)
        if stated is None:  # of an older version, which has no references
            continue
        groups: dict[str, list[Row]] = {name: [] for name in stated}
        for row in given:
            groups.setdefault(row[column], []).append(row)
        for name, own in groups.items():
            if wrong := _difference(own, stated.get(name)):
                raise DataError(
                    f"{path}: its summary.json is not of its rows ({name}: {wrong}), so one of them was "
                    f"replaced; p2p-bench resume {shlex.quote(str(path))} writes both anew from its parts"
                )


def _difference(rows: Sequence[Row], stated: Mapping[str, Any] | None) -> str:
    """What a summary says otherwise of some rows, in words; "" for nothing."""
    if stated is None:
        return "not in the summary"
    good = [row for row in rows if row.get("status", "ok") == "ok"]
    for key, found in (("count", len(good)), ("failed", len(rows) - len(good))):
        if stated.get(key) not in (None, found):
            return f"{key} {stated[key]}, of the rows {found}"
    for name, told in stated["metrics"].items():
        own = mean_interval([number(row.get(name)) for row in good], resamples=1)
        mean, count = number(told["mean"]), told.get("count")
        equal = own.count == 0 or math.isclose(mean, own.mean, rel_tol=1e-6, abs_tol=1e-12)
        if count != own.count or not equal:
            return f"{name} {mean:g} over {count} edits, of the rows {own.mean:g} over {own.count}"
    return ""


def _check_mean(mean: Any, file: Path, key: str) -> None:
    _check(isinstance(mean, Mapping) and "mean" in mean, file, key, "a mapping with a mean", mean)
    for part in _MEAN:
        _check(_is_number(mean.get(part)), file, f"{key}.{part}", "a number", mean.get(part))
    _check(_is_whole(mean.get("count")), file, f"{key}.count", "an integer", mean.get("count"))


def _check_optional(row: Mapping[str, Any], file: Path, numbers: Iterable[str]) -> None:
    for key in numbers:
        _check(_is_number(row.get(key)), file, key, "a number", row.get(key))
    for key in ("error", "mask_from", "source_checksum", *IMAGE_COLUMNS):
        value = row.get(key)
        _check(value is None or isinstance(value, str), file, key, "text", value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_number(value: Any) -> bool:
    """Whether a value is a number that fits a float, or none."""
    return value is None or isinstance(value, float) or _is_whole(value)


def _check(holds: bool, file: Path, key: str, expected: str, value: Any) -> None:
    if not holds:
        shown = repr(value)
        shown = shown if len(shown) < 60 else f"{shown[:57]}..."
        raise DataError(
            f"{file}: {key}: expected {expected}, got {shown}; it was not written by this program, or damaged"
        )
