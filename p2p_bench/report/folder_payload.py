"""The summary that the report over many runs starts with; rows and pictures come after the first view."""

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from p2p_bench.report.auto_tau import Criterion
from p2p_bench.report.changes import highlighted
from p2p_bench.report.columns import BACKWARD, Column, main_metrics, number
from p2p_bench.report.entries import Entry, Key, category_means, masks_of, reference_rows
from p2p_bench.report.gather import LeftOut
from p2p_bench.report.numbers import finite, mean_json
from p2p_bench.report.payload import PICTURES
from p2p_bench.report.published import published_json
from p2p_bench.report.references import references, references_json
from p2p_bench.report.runs import Row, Run
from p2p_bench.report.search import search_table
from p2p_bench.report.tables import JUDGE, Basis, tables, tau_text
from p2p_bench.report.tradeoff import choose_axes, level_metrics
from p2p_bench.stats import Mean, mean_interval, ratio_interval

__all__ = ["PICTURES", "JointData", "summary_payload"]


@dataclass(frozen=True)
class JointData:
    """What a report over many runs is made from.

    Attributes:
        title: Heading of the page.
        entries: Variants of all runs.
        columns: Metrics, then costs.
        notices: What a reader has to know before comparing numbers.
        left_out: Directories of runs that are not shown.
        runs: The runs.
    """

    title: str
    entries: tuple[Entry, ...]
    columns: tuple[Column, ...]
    notices: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    runs: tuple[Run, ...]

    @cached_property
    def sample_numbers(self) -> Mapping[Key, int]:
        """Number of each sample and target, in the order of first appearance."""
        keys = dict.fromkeys(key for entry in self.entries for key in entry.rows)
        return {key: i for i, key in enumerate(keys)}


def summary_payload(data: JointData, page_dir: Path, num_files: int) -> dict[str, Any]:
    """Everything but rows and pictures, ready for JSON; undefined numbers are None.

    Args:
        data: The entries.
        page_dir: Directory of the page; links are relative to it.
        num_files: Number of files that hold the rows.
    """
    counts = _counts(data)
    level = level_metrics(run.summary for run in data.runs)
    axes = choose_axes([column for column in data.columns if column.role != "cost"], counts, level)
    by_name = {column.name: column for column in data.columns}
    known = references(reference_rows(data.runs), data.columns)
    main = main_metrics([name for name in counts if by_name[name].role != "cost" and counts[name]])
    basis = None
    if axes is not None:
        judge = by_name.get(JUDGE) if counts.get(JUDGE) else None
        basis = Basis(by_name[axes.x], by_name[axes.y], judge)
    by_category = category_means(data.entries, data.columns)
    return {
        "title": data.title,
        "pictures": list(PICTURES),
        "numFiles": num_files,
        "metrics": [_metric(column, column.name in main, counts) for column in data.columns],
        "axes": {"x": axes.x, "y": axes.y} if axes else None,
        "categories": sorted({category for _, category in by_category if category}),
        "samples": _samples(data),
        "entries": [
            _entry(i, entry, data.columns, by_category, page_dir) for i, entry in enumerate(data.entries)
        ],
        **references_json(known, data.columns),
        "published": published_json(data.entries),
        "search": search_table(data.entries, data.columns),
        "tables": tables(data.entries, basis, Criterion(basis.x, basis.y), known) if basis else None,
    }


def _counts(data: JointData) -> Counter[str]:
    counts: Counter[str] = Counter()
    for entry in data.entries:
        counts.update({column.name: len(entry.values(column.name)) for column in data.columns})
    if not any(value for entry in data.entries for value in entry.values(BACKWARD.name).values()):
        counts[BACKWARD.name] = 0  # a column of zeros tells nothing
    return counts


def _metric(column: Column, main: bool, counts: Mapping[str, int]) -> dict[str, Any]:
    return {
        "name": column.name,
        "short": column.short,
        "title": column.title,
        "unit": column.unit,
        "higher": column.higher_is_better,
        "role": column.role,
        "version": column.version,
        "backbone": column.backbone,
        "note": column.note,
        "main": main,
        "count": counts[column.name],
    }


def _samples(data: JointData) -> list[list[Any]]:
    """Id, target, category, and the prompts in pieces."""
    first: dict[Key, Row] = {}
    for entry in data.entries:
        for key, row in entry.rows.items():
            first.setdefault(key, row)
    return [
        [key[0], key[1], row["category"] or "", *highlighted(row["source_prompt"], row["target_prompt"])]
        for key, row in first.items()
    ]


def _entry(
    number_: int,
    entry: Entry,
    columns: Sequence[Column],
    by_category: Mapping[tuple[int, str], Mapping[str, tuple[float, int]]],
    page_dir: Path,
) -> dict[str, Any]:
    rows = list(entry.rows.values())
    failed = sum(row["status"] != "ok" for row in rows)
    page = entry.run.path / "report.html"
    cache = Counter(str(row.get("inversion_from") or "") for row in rows)
    return {
        "name": entry.name,
        "run": entry.run.path.as_posix(),
        "link": quote(Path(os.path.relpath(page, page_dir)).as_posix()) if page.is_file() else "",
        "method": entry.method,
        "tau": list(entry.tau),
        "tauText": tau_text(entry),
        "plain": entry.plain,
        "masks": masks_of(rows),
        "counts": [len(rows) - failed, failed],
        "means": [_mean(entry, column) for column in columns],
        "categories": {
            category: [[finite(mean), count] for mean, count in means.values()]
            for (i, category), means in by_category.items()
            if i == number_ and category
        },
        "share": mean_json(
            ratio_interval(
                [number(row.get("unet_rows_spent")) for row in rows],
                [number(row.get("unet_rows")) for row in rows],
                [row["sample_id"] for row in rows],
            )
        ),
        "cold": cache["network"],
        "cached": cache["cache"],
    }


def _mean(entry: Entry, column: Column) -> list[float | int | None]:
    """The mean that the run's summary states, else one from the rows; costs go without an interval."""
    if column.role == "cost":
        values = list(entry.values(column.name).values())
        mean = math.fsum(values) / len(values) if values else math.nan
        return mean_json(Mean(mean, len(values), math.nan, math.nan))
    name = column.name.partition("@")[0]
    stated = entry.run.summary["variants"].get(entry.variant, {}).get("metrics", {}).get(name)
    if stated is not None and len(entry.values(column.name)) == int(stated["count"]):
        low, high = stated.get("low"), stated.get("high")
        return mean_json(Mean(number(stated["mean"]), int(stated["count"]), number(low), number(high)))
    values_by_key = entry.values(column.name)
    return mean_json(mean_interval(list(values_by_key.values()), [sample for sample, _ in values_by_key]))
