"""Variants of many runs side by side: names, columns kept apart where they differ, means."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from p2p_bench.bench.references import place_of
from p2p_bench.report.columns import BACKWARD, COSTS, Column, metric_columns, number
from p2p_bench.report.labels import (
    directory_name,
    run_labels,
    setting_labels,
    short_settings,
    shortest_end,
    without_schedule,
)
from p2p_bench.report.runs import NO_CONTROL, Row, Run, plain_generation

Tau = tuple[float | None, float | None]
Key = tuple[str, int]
"""Sample and target of a row."""


@dataclass(frozen=True)
class Entry:
    """One variant of one run.

    Attributes:
        name: Unique among the entries.
        run: The run.
        variant: Name of the variant in the run.
        method: What it is but for its tau; entries of one method make a curve.
        tau: Cross and self tau; None where there is none or it is no single fraction.
        rows: Its rows by sample and target.
        plain: What readers call it if it is plain generation, a reference and no method; "" for a method.
    """

    name: str
    run: Run
    variant: str
    method: str
    tau: Tau
    rows: Mapping[Key, Row]
    plain: str

    def values(self, column: str) -> dict[Key, float]:
        """The defined values of a column by sample and target; failed edits have none."""
        found = {key: number(row.get(column)) for key, row in self.rows.items() if row["status"] == "ok"}
        return {key: value for key, value in found.items() if not math.isnan(value)}


def make_entries(runs: Sequence[Run]) -> tuple[Entry, ...]:
    """The variants of some runs, in order; rows of a metric that means different things are renamed."""
    renamed = {id(run): names for run, names in zip(runs, column_names(runs), strict=True)}
    several = any(len(_controlled(run)) > 1 for run in runs) or len(runs) == 1
    labels = run_labels(runs)
    methods = _method_names(runs)
    entries = []
    for run, label in zip(runs, labels, strict=True):
        by_variant: dict[str, dict[Key, Row]] = {name: {} for name in run.variants}
        for row in run.rows:
            by_variant[row["variant"]][place_of(row)] = _renamed(row, renamed[id(run)])
        for variant, rows in by_variant.items():
            first: Row = next(iter(rows.values()), {})
            plain = plain_generation(rows.values())
            name = f"{label} · {variant}" if label and (several or plain) else label or variant
            controller = str(first.get("controller") or variant)
            method = methods[id(run)] or controller
            if methods[id(run)] and (several or plain):
                method = f"{method} · {controller}"
            if masks := masks_of(rows.values()):
                name, method = f"{name} · mask: {masks}", f"{method} · mask: {masks}"
            tau = _fraction(first.get("tau_cross")), _fraction(first.get("tau_self"))
            entries.append(Entry(name, run, variant, method, tau, rows, plain))
    return _once_each(entries)


def _once_each(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The entries; a method that has a schedule twice is several, which go by their directories or variants.

    Runs of equal settings may differ in what settings do not say, such as the weights or the code, and so may
    images made elsewhere: no choice of tau is one between them.
    """
    methods: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.rows and not entry.plain:
            methods.setdefault(entry.method, []).append(entry)
    names: dict[int, str] = {}
    for method, own in methods.items():
        schedules = [_schedule(entry) for entry in own]
        if len(set(schedules)) == len(own):
            continue
        runs = [entry.run.path.resolve() for entry in own]
        parents = [path.parent for path in runs]
        if len(set(zip(parents, schedules, strict=True))) == len(own):
            told = [shortest_end(path, parents) for path in parents]
        elif len(set(zip(runs, schedules, strict=True))) == len(own):
            told = [shortest_end(path, runs) for path in runs]
        else:  # the tools whose images were scored, say
            ends = [f"{shortest_end(path, runs)} · " if len(set(runs)) > 1 else "" for path in runs]
            told = [f"{end}{entry.variant}" for end, entry in zip(ends, own, strict=True)]
        names.update({id(entry): f"{method} · {name}" for entry, name in zip(own, told, strict=True)})
    return tuple(replace(entry, method=names.get(id(entry), entry.method)) for entry in entries)


def _schedule(entry: Entry) -> tuple[str, str]:
    """Cross and self schedule as the rows have them."""
    row = next(iter(entry.rows.values()))
    return str(row.get("tau_cross") or ""), str(row.get("tau_self") or "")


def masks_of(rows: Iterable[Row]) -> str:
    """Whence the masks that confined edits came, most of them first; "" where nothing confined any."""
    found = Counter(str(row.get("mask_from") or "") for row in rows if row["status"] == "ok")
    return ", ".join(name for name, _ in found.most_common() if name)


def reference_rows(runs: Sequence[Run]) -> Iterator[Row]:
    """The reference rows of some runs; metrics that mean different things are renamed as in their entries."""
    for run, names in zip(runs, column_names(runs), strict=True):
        for row in run.references:
            yield _renamed(row, names)


def _renamed(row: Row, names: Mapping[str, str]) -> Row:
    return {names.get(key, key): value for key, value in row.items()}


def _controlled(run: Run) -> set[str]:
    """Variants of a run that are no reference."""
    return {row["variant"] for row in run.rows if row["controller"] != NO_CONTROL}


def _method_names(runs: Sequence[Run]) -> dict[int, str]:
    """For each run (by identity) the settings but tau in which the runs differ; of equal ones the weights."""
    settings = {id(run): without_schedule(short_settings(run)) for run in runs}
    weights: dict[tuple[tuple[str, str], ...], set[tuple[str, ...]]] = {}
    for run in runs:
        weights.setdefault(tuple(sorted(settings[id(run)].items())), set()).add(_weights(run))
    for run in runs:
        if len(weights[tuple(sorted(settings[id(run)].items()))]) > 1:
            sums = zip(_WEIGHTS, _weights(run), strict=True)
            settings[id(run)] |= {f"checksum of the {part}": text for part, text in sums if text}
    first: dict[tuple[tuple[str, str], ...], Run] = {}
    for run in runs:
        first.setdefault(tuple(sorted(settings[id(run)].items())), run)
    if len(first) == 1:
        return dict.fromkeys(settings, "")
    labels = setting_labels([settings[id(run)] for run in first.values()])
    names = labels or [directory_name(run, runs) for run in first.values()]
    by_settings = dict(zip(first, names, strict=True))
    return {key: by_settings[tuple(sorted(one.items()))] for key, one in settings.items()}


_WEIGHTS = ("model", "inversion")
"""Checksums that decide edits, and that settings which name a folder or a version do not tell."""


def _weights(run: Run) -> tuple[str, ...]:
    checksums = run.summary.get("checksums") or {}
    return tuple(str(checksums.get(part, ""))[:12] for part in _WEIGHTS)


def _fraction(value: Any) -> float | None:
    """A schedule that is one fraction, as a number; an interval or none is None."""
    try:
        fraction = float(value)
    except (TypeError, ValueError):
        return None
    return fraction if math.isfinite(fraction) else None


def column_names(runs: Sequence[Run]) -> list[dict[str, str]]:
    """For each run how its metrics are called here, where the same name means different numbers."""
    columns = [metric_columns(run.summary["metrics"]) for run in runs]
    weights: dict[str, set[str]] = {}
    for column in chain.from_iterable(columns):
        weights.setdefault(column.name, set()).update([column.weights] if column.weights else [])
    told = {name for name, known in weights.items() if len(known) > 1}
    meanings: dict[str, set[tuple[str | None, str, bool | None, str]]] = {}
    for column in chain.from_iterable(columns):
        own = column.weights if column.name in told else ""
        meaning = column.version, column.backbone, column.higher_is_better, own
        meanings.setdefault(column.name, set()).add(meaning)
    return [
        {column.name: _apart(column, column.name in told) for column in own if len(meanings[column.name]) > 1}
        for own in columns
    ]


def _apart(column: Column, by_weights: bool) -> str:
    backbone = f"/{column.backbone}" if column.backbone else ""
    weights = f"#{column.weights}" if by_weights and column.weights else ""
    return f"{column.name}@{column.version}{backbone}{weights}"


def joint_columns(runs: Sequence[Run]) -> tuple[tuple[Column, ...], list[str]]:
    """The metric columns of some runs, then the costs.

    Returns:
        The columns, and a sentence for each metric that is not the same number in all runs.
    """
    columns: dict[str, Column] = {}
    kept_apart: dict[str, Counter[str]] = {}
    for run, names in zip(runs, column_names(runs), strict=True):
        for column in metric_columns(run.summary["metrics"]):
            name = names.get(column.name)
            if name is not None:
                kept_apart.setdefault(column.name, Counter())[name] += 1
                suffix = name.removeprefix(column.name)
                column = replace(
                    column, name=name, short=column.short + suffix, title=f"{column.title} {suffix}"
                )
            columns.setdefault(column.name, column)
    notes = [
        f"{name} is not the same number in all runs and stands in columns of its own: "
        + ", ".join(f"{key} ({count} {'run' if count == 1 else 'runs'})" for key, count in found.items())
        for name, found in kept_apart.items()
    ]
    order = {"editability": 0, "fidelity": 1}
    ordered = sorted(columns.values(), key=lambda column: order.get(column.role, len(order)))
    return (*ordered, *COSTS, BACKWARD), notes


def category_means(
    entries: Sequence[Entry], columns: Iterable[Column]
) -> dict[tuple[int, str], dict[str, tuple[float, int]]]:
    """Mean and count of every column per entry (its number) and category, aggregated by Arrow."""
    names = [column.name for column in columns]
    rows = [
        (i, row["category"] or "", row)
        for i, entry in enumerate(entries)
        for row in entry.rows.values()
        if row["status"] == "ok"
    ]
    table = pa.table(
        {
            "entry": pa.array([i for i, _, _ in rows], pa.int64()),
            "category": pa.array([category for _, category, _ in rows], pa.string()),
            **{name: _defined([row.get(name) for _, _, row in rows]) for name in names},
        }
    )
    grouped = table.group_by(["entry", "category"]).aggregate(
        [(name, how) for name in names for how in ("mean", "count")]
    )
    return {
        (line["entry"], line["category"]): {
            name: (number(line[f"{name}_mean"]), line[f"{name}_count"]) for name in names
        }
        for line in grouped.to_pylist()
    }


def _defined(values: Sequence[Any]) -> pa.Array:
    """A column with NaN as null, which Arrow leaves out of means and counts."""
    array = pa.array(values, pa.float64())
    return pc.if_else(pc.is_nan(array), pa.scalar(None, pa.float64()), array)
