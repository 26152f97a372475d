"""The analysis of many runs as data for the page: curves, auto-tau, methods compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from p2p_bench.report.auto_tau import AutoTau, Criterion, Selection, auto_tau
from p2p_bench.report.columns import Column
from p2p_bench.report.entries import Entry, Key
from p2p_bench.report.methods import (
    Comparison,
    Method,
    compare_methods,
    curve_of,
    methods_of,
    oriented,
    trade_off_ranges,
)
from p2p_bench.report.numbers import finite, mean_json
from p2p_bench.report.references import References
from p2p_bench.stats import Mean, mean_interval

JUDGE = "answer_psnr"
"""The metric that knows the exact answer; it judges how a tau was chosen."""

MAX_COMPARED = 24
"""Most methods with a comparison; the best by mean of the judging metric are taken."""

_FEWEST = 2
"""Fewest taus to choose from, and methods to compare."""


@dataclass(frozen=True)
class Basis:
    """What the tables are computed in.

    Attributes:
        x: Editability.
        y: Fidelity.
        judge: The metric with the exact answer; None where the rows have none.
    """

    x: Column
    y: Column
    judge: Column | None

    @property
    def columns(self) -> tuple[Column, ...]:
        """The metrics, each once."""
        found = {column.name: column for column in (self.x, self.y, self.judge) if column is not None}
        return tuple(found.values())


def tables(entries: Sequence[Entry], basis: Basis, criterion: Criterion, known: References) -> dict[str, Any]:
    """Every table, ready for JSON.

    Args:
        entries: The entries of the report.
        basis: Metrics of the tables.
        criterion: How auto-tau chooses.
        known: The references, which span the curves' rectangle.
    """
    methods = methods_of(entries)
    chosen = {
        method.name: auto_tau(entries, method, criterion, basis.judge, basis.columns)
        for method in methods
        if len(method.entries) >= _FEWEST
    }
    return {
        "columns": [column.name for column in basis.columns],
        "methods": [{"name": method.name, "entries": list(method.entries)} for method in methods],
        "curves": _curves(entries, methods, basis, known),
        "rule": criterion.text,
        "autoTau": [_auto(one, entries, basis) for one in chosen.values() if one is not None],
        "compared": _compared(entries, methods, chosen, basis),
    }


def _curves(
    entries: Sequence[Entry], methods: Sequence[Method], basis: Basis, known: References
) -> dict[str, Any] | None:
    ranges = trade_off_ranges(entries, basis.x, basis.y, known)
    if ranges is None:
        return None
    curves = [curve_of(entries, method, basis.x, basis.y, ranges) for method in methods]
    return {
        "x": _natural(ranges.x, basis.x),
        "y": _natural(ranges.y, basis.y),
        "rows": [
            {"hypervolume": finite(curve.hypervolume), "area": mean_json(curve.area)} for curve in curves
        ],
    }


def _natural(span: tuple[float, float], column: Column) -> list[float | None]:
    """Worst and best in the metric's own direction."""
    return [finite(oriented(column) * end) for end in span]


def _auto(one: AutoTau, entries: Sequence[Entry], basis: Basis) -> dict[str, Any]:
    ways = [("best fixed tau", one.fixed), ("auto-tau", one.auto)]
    if one.oracle is not None:
        ways.append(("oracle, upper bound", one.oracle))
    return {
        "method": one.method.name,
        "ways": [
            {
                "name": name,
                "means": [mean_json(_mean(way, column)) for column in basis.columns],
                "taus": [[tau_text(entries[i]), way.taus[i]] for i in one.method.entries if way.taus.get(i)],
            }
            for name, way in ways
        ],
        "gain": None
        if one.gain is None
        else {
            "difference": mean_json(one.gain.difference),
            "effect": finite(one.gain.effect),
            "p": finite(one.gain.p_permutation),
        },
    }


def _mean(way: Selection, column: Column) -> Mean:
    values = way.columns[column.name]
    return mean_interval(list(values.values()), [sample for sample, _ in values])


def _compared(
    entries: Sequence[Entry],
    methods: Sequence[Method],
    chosen: Mapping[str, AutoTau | None],
    basis: Basis,
) -> dict[str, Any] | None:
    ranking = basis.judge or basis.x
    values: dict[str, dict[str, Mapping[Key, float]]] = {}
    for method in methods:
        picked = chosen.get(method.name)
        if picked is not None:
            values[method.name] = dict(picked.auto.columns)
        elif len(method.entries) == 1:
            (only,) = method.entries
            values[method.name] = {column.name: entries[only].values(column.name) for column in basis.columns}
    means = {
        name: oriented(ranking) * sum(found[ranking.name].values()) / len(found[ranking.name])
        for name, found in values.items()
        if found[ranking.name]
    }
    if len(means) < _FEWEST:
        return None
    order = sorted(means, key=lambda name: -means[name])[:MAX_COMPARED]
    categories = {key: str(row["category"] or "") for entry in entries for key, row in entry.rows.items()}
    found = compare_methods({name: values[name] for name in order}, basis.columns, categories, order[0])
    return {
        "best": order[0],
        "by": ranking.name,
        "others": len(means) - len(order),
        "rows": [_comparison(one) for one in found],
    }


def _comparison(one: Comparison) -> dict[str, Any]:
    return {
        "method": one.first,
        "column": one.column,
        "category": one.category,
        "difference": mean_json(one.paired.difference),
        "groups": one.paired.groups,
        "effect": finite(one.paired.effect),
        "p": finite(one.paired.p_permutation),
        "wilcoxon": finite(one.paired.p_wilcoxon),
        "holm": finite(one.p_holm),
    }


def tau_text(entry: Entry) -> str:
    """The schedule of an entry as a reader would write it."""
    cross, self_attn = entry.tau
    if cross is None and self_attn is None:
        return entry.name
    return "/".join(f"{part:g}" for part in (cross, self_attn) if part is not None)
