"""The runs of a search as data for the page: those that no other beats, and what the objectives depend on."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from p2p_bench.report.columns import Column
from p2p_bench.report.entries import Entry
from p2p_bench.report.labels import short_settings
from p2p_bench.report.numbers import finite
from p2p_bench.stats import pareto_front

_FEWEST = 2
"""Fewest trials of a search."""

_GROUPS = 4
"""Groups of equal size into which the numbers of a setting are put, where it has more."""


def search_table(entries: Sequence[Entry], columns: Sequence[Column]) -> dict[str, Any] | None:
    """Front and importance of the runs that were made for the same objectives, ready for JSON.

    A trial with failed edits, or without a value of an objective, is on no front: a mean over the other edits
    would reward failing.

    Args:
        entries: The entries of the report.
        columns: Its metrics.

    Returns:
        None if the runs are no search.
    """
    objectives = next((tuple(one.run.summary.get("objectives") or ()) for one in entries), ())
    by_name = {column.name: column for column in columns}
    trials = [i for i, one in enumerate(entries) if not one.plain]
    same = all(tuple(entries[i].run.summary.get("objectives") or ()) == objectives for i in trials)
    if not objectives or not same or not set(objectives) <= set(by_name) or len(trials) < _FEWEST:
        return None
    merits = np.array([[_merit(entries[i], by_name[name]) for name in objectives] for i in trials])
    good = np.isfinite(merits).all(axis=1)
    settings = _searched([short_settings(entries[i].run) for i in trials])
    return {
        "objectives": list(objectives),
        "trials": len(trials),
        "failed": int((~good).sum()),
        "parameters": list(settings),
        "front": [
            {"entry": trials[k], "values": [values[k] for values in settings.values()]}
            for k in sorted(pareto_front(merits), key=lambda k: -merits[k, 0])
        ],
        "importance": [
            [
                finite(importance([values[k] for k in np.flatnonzero(good)], merits[good, j]))
                for j in range(len(objectives))
            ]
            for values in settings.values()
        ],
    }


def importance(values: Sequence[str], scores: np.ndarray) -> float:
    """The part of the variance of some scores that a setting alone explains: epsilon squared, at least 0.

    Numbers of more than four values are put into four groups of equal size; the part that as many groups
    would explain by chance is taken off.

    Args:
        values: The setting of each trial, as text.
        scores: The score of each trial, shape (n,).

    Returns:
        A number in [0, 1]; NaN where the scores or the setting do not vary, or the groups leave nothing over.
    """
    groups = _groups(values)
    total = float(((scores - scores.mean()) ** 2).sum()) if len(scores) else 0.0
    kinds = sorted(set(groups))
    free = len(scores) - len(kinds)
    if total <= 0 or len(kinds) < 2 or free < 1:
        return math.nan
    parts = [scores[[group == kind for group in groups]] for kind in kinds]
    within = sum(float(((part - part.mean()) ** 2).sum()) for part in parts)
    explained = total - within - (len(kinds) - 1) * within / free
    return max(0.0, explained / total)


def _merit(entry: Entry, column: Column) -> float:
    """The mean of an objective, the larger the better; NaN for a trial that failed."""
    values = entry.values(column.name)
    if not values or any(row["status"] != "ok" for row in entry.rows.values()):
        return math.nan
    mean = math.fsum(values.values()) / len(values)
    return mean if column.higher_is_better else -mean


def _searched(settings: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """The settings in which trials differ, with their value in each; of those that change together one."""
    found: dict[tuple[str, ...], str] = {}
    keys = dict.fromkeys(key for one in settings for key in one)
    for key in sorted(keys, key=lambda key: (not key.startswith("tau."), len(key))):
        values = tuple(one.get(key, "–") for one in settings)
        if len(set(values)) > 1:
            found.setdefault(values, key)
    return {key: list(values) for values, key in found.items()}


def _groups(values: Sequence[str]) -> list[Any]:
    if len(set(values)) <= _GROUPS:
        return list(values)
    try:
        numbers = np.array([float(value) for value in values])
    except ValueError:
        return list(values)
    edges = np.quantile(numbers, np.linspace(0, 1, _GROUPS + 1)[1:-1])
    groups: list[Any] = np.searchsorted(edges, numbers, side="left").tolist()
    return groups
