"""What to hold an edit against: the source untouched, and what the VAE alone leaves of it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from p2p_bench.bench.references import KINDS, NO_EDIT, VAE, place_of
from p2p_bench.report.columns import Column, number
from p2p_bench.report.numbers import mean_json
from p2p_bench.report.runs import Row
from p2p_bench.stats import Mean, mean_interval

NAMES = {NO_EDIT: "no edit", VAE: "VAE alone"}
"""What readers see."""

_BOUNDED = ("recon_psnr",)
"""Metrics that the VAE bounds although they score no edit: for the metric's plain name."""


@dataclass(frozen=True)
class Reference:
    """Scores of one reference.

    Attributes:
        count: Number of samples and targets, by category, "" for all.
        means: By category, "" for all, and column.
    """

    count: Mapping[str, int]
    means: Mapping[str, Mapping[str, Mean]]

    def mean(self, column: str) -> float:
        """Mean over all samples and targets; NaN where it has none."""
        return self.means[""][column].mean


References = Mapping[str, Reference]
"""Reference by kind; kinds that no run has are absent."""


def references(rows: Iterable[Row], columns: Sequence[Column]) -> References:
    """The references of one run or several.

    Args:
        rows: Reference rows of all runs. What several runs score of a sample counts once, as their mean.
        columns: The metric columns.
    """
    by_kind: dict[str, dict[tuple[str, int], list[Row]]] = {}
    for row in rows:
        by_kind.setdefault(row["reference"], {}).setdefault(place_of(row), []).append(row)
    return {kind: _reference(list(by_kind[kind].values()), columns) for kind in KINDS if kind in by_kind}


def no_edit(known: References, column: Column) -> float:
    """What the untouched source scores; NaN where that is unknown or undefined."""
    return known[NO_EDIT].mean(column.name) if NO_EDIT in known else math.nan


def bound(known: References, column: Column) -> float:
    """What the VAE alone scores in a fidelity; NaN where that is unknown, or the column is none."""
    return known[VAE].mean(column.name) if VAE in known and _is_bounded(column) else math.nan


def references_json(known: References, columns: Sequence[Column]) -> dict[str, Any]:
    """The references as a page has them: counts and means by category, and which columns are bounded."""
    return {
        "references": [
            {
                "kind": kind,
                "name": NAMES[kind],
                "counts": dict(reference.count),
                "means": {
                    category: [mean_json(means[column.name]) for column in columns]
                    for category, means in reference.means.items()
                },
            }
            for kind, reference in known.items()
        ],
        "bounded": [column.name for column in columns if math.isfinite(bound(known, column))],
    }


def _reference(places: Sequence[Sequence[Row]], columns: Sequence[Column]) -> Reference:
    categories = dict.fromkeys(str(rows[0]["category"] or "") for rows in places)
    parts = {"": places}
    for category in filter(None, categories):
        parts[category] = [rows for rows in places if rows[0]["category"] == category]
    return Reference(
        count={category: len(part) for category, part in parts.items()},
        means={
            category: {column.name: _mean(part, column.name) for column in columns}
            for category, part in parts.items()
        },
    )


def _mean(places: Sequence[Sequence[Row]], column: str) -> Mean:
    values = []
    for rows in places:
        found = [value for value in (number(row.get(column)) for row in rows) if not math.isnan(value)]
        values.append(math.fsum(found) / len(found) if found else math.nan)
    return mean_interval(values, [rows[0]["sample_id"] for rows in places])


def _is_bounded(column: Column) -> bool:
    return column.role == "fidelity" or column.name.partition("@")[0] in _BOUNDED
