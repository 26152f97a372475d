"""Means over rows, as `summary.json`."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from p2p_bench.bench.provenance import git_state, package_versions
from p2p_bench.bench.rows import write_atomically
from p2p_bench.bench.task import Variant
from p2p_bench.metrics.base import MetricColumn
from p2p_bench.stats import mean_interval, median

SCHEMA_VERSION = 1
SUMMARY = "summary.json"

Row = Mapping[str, Any]


def summarise(
    rows: Sequence[Row],
    references: Sequence[Row] = (),
    *,
    name: str,
    variants: Sequence[Variant],
    columns: Sequence[MetricColumn],
    settings: Mapping[str, Any],
    checksums: Mapping[str, str],
    seed: int,
    objectives: Sequence[str] = (),
    promised: int | None = None,
    pictures: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The summary of a run; means are over rows with `status=ok`, intervals over whole samples.

    Args:
        rows: All rows of the run.
        references: Its references; they are in no other count.
        name: Name of the run.
        variants: The variants, in the order they are shown.
        columns: The metric columns.
        settings: The settings that decided the numbers.
        checksums: Checksum of the model and whatever else was read.
        seed: Seed of the run.
        objectives: Metric columns that a search is told of.
        promised: Number of edits that the run promised; as many as there are rows if not given.
        pictures: What is known of pictures that were made elsewhere; None where the run made them.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "experiment": name,
        "settings": dict(settings),
        "variants": {
            variant.name: _variant_summary(
                [row for row in rows if row["variant"] == variant.name], variant, columns
            )
            for variant in variants
        },
        "references": {
            kind: _reference_summary([row for row in references if row["reference"] == kind], columns)
            for kind in dict.fromkeys(row["reference"] for row in references)
        },
        "metrics": {
            column.name: {key: value for key, value in asdict(column).items() if key != "name"}
            for column in columns
        },
        "versions": package_versions(),
        "git": git_state(),
        "checksums": dict(checksums),
        "seed": seed,
        "notes": note_counts(row for row in rows if row["status"] == "ok"),
        "objectives": list(objectives),
        **({"pictures": dict(pictures)} if pictures else {}),
        "totals": {**totals(rows), "promised": len(rows) if promised is None else promised},
    }


def totals(rows: Sequence[Row]) -> dict[str, int | float]:
    """Costs and counts of some rows."""
    return {
        "unet_rows": sum(row["unet_rows"] for row in rows),
        "unet_rows_spent": sum(row["unet_rows_spent"] for row in rows),
        "seconds": sum(row["seconds"] for row in rows),
        "samples": len({row["sample_id"] for row in rows}),
        "edits": len(rows),
        "failed": sum(row["status"] != "ok" for row in rows),
    }


def write_summary(run_dir: Path, summary: Mapping[str, Any]) -> Path:
    """Writes `summary.json`; undefined numbers become null."""
    path = run_dir / SUMMARY
    text = json.dumps(_without_nan(summary), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return path


def _variant_summary(
    rows: Sequence[Row], variant: Variant, columns: Sequence[MetricColumn]
) -> dict[str, Any]:
    good = [row for row in rows if row["status"] == "ok"]
    return {
        "controller": variant.controller_name,
        "tau_cross": variant.cross,
        "tau_self": variant.self_attn,
        "count": len(good),
        "failed": len(rows) - len(good),
        "masks": dict(Counter(row["mask"] for row in rows if row.get("mask"))),
        "mask_from": dict(Counter(row["mask_from"] for row in good if row.get("mask_from"))),
        "metrics": _means(good, columns),
        "categories": _by_category(good, columns),
        "missing": missing_values(good),
        "unet_rows": sum(row["unet_rows"] for row in rows),
        "unet_rows_spent": sum(row["unet_rows_spent"] for row in rows),
        "seconds": sum(row["seconds"] for row in rows),
    }


def note_counts(rows: Iterable[Row]) -> dict[str, int]:
    """How many edits each note is about, most first."""
    notes = Counter(note for row in rows for note in (row.get("notes") or "").split("; ") if note)
    return dict(notes.most_common())


def missing_values(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    """How often a metric column has no value for which reason, where metrics gave one."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        for column, reason in json.loads(row.get("missing") or "{}").items():
            counts.setdefault(column, Counter())[reason] += 1
    return {column: dict(reasons) for column, reasons in counts.items()}


def _reference_summary(rows: Sequence[Row], columns: Sequence[MetricColumn]) -> dict[str, Any]:
    return {"count": len(rows), "metrics": _means(rows, columns)}


def _means(rows: Sequence[Row], columns: Sequence[MetricColumn]) -> dict[str, dict[str, float]]:
    """Mean with its interval, median, and numbers of rows with and without a value, by column."""
    samples = [row["sample_id"] for row in rows]
    return {column.name: _statistics([row[column.name] for row in rows], samples) for column in columns}


def _statistics(values: Sequence[float], samples: Sequence[str]) -> dict[str, float]:
    mean = mean_interval(values, groups=samples)
    return {**asdict(mean), "median": median(values), "missing": len(values) - mean.count}


def _by_category(rows: Sequence[Row], columns: Sequence[MetricColumn]) -> dict[str, dict[str, Any]]:
    """The same of each category, in the order of their first rows; rows without a category are in none."""
    parts: dict[str, list[Row]] = {}
    for row in rows:
        if row["category"]:
            parts.setdefault(row["category"], []).append(row)
    return {name: {"count": len(part), "metrics": _means(part, columns)} for name, part in parts.items()}


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and value != value else value
