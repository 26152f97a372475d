"""Methods: entries that differ in tau alone, their curves, and how two methods compare."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from p2p_bench.report.columns import Column
from p2p_bench.report.entries import Entry, Key
from p2p_bench.report.references import References, bound, no_edit
from p2p_bench.stats import Mean, Paired, area_interval, compare_paired, holm, hypervolume

_RESAMPLES = 2000
"""Sign patterns per permutation test: a page holds hundreds of tests."""


@dataclass(frozen=True)
class Method:
    """Entries that differ in tau alone.

    Attributes:
        name: What they share.
        entries: Numbers of the entries, by rising tau.
    """

    name: str
    entries: tuple[int, ...]


@dataclass(frozen=True)
class Ranges:
    """What counts as nothing and as everything on the axes of a trade-off, the larger the better.

    Attributes:
        x: Editability.
        y: Fidelity.
    """

    x: tuple[float, float]
    y: tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """The trade-off of a method.

    Attributes:
        hypervolume: Share of the rectangle of the ranges that its mean points dominate.
        area: Share of it under its joined front, with the interval by source scene.
    """

    hypervolume: float
    area: Mean


@dataclass(frozen=True)
class Comparison:
    """One method against another in one metric and category.

    Attributes:
        first: Method.
        second: Method it is compared with.
        column: Metric.
        category: "" for all.
        paired: The comparison; differences are first minus second, in the metric's own direction.
        p_holm: Permutation p corrected for all comparisons of the same metric.
    """

    first: str
    second: str
    column: str
    category: str
    paired: Paired
    p_holm: float


def methods_of(entries: Sequence[Entry]) -> tuple[Method, ...]:
    """The methods among some entries; references are none."""
    members: dict[str, list[int]] = {}
    for i, entry in enumerate(entries):
        if not entry.plain:
            members.setdefault(entry.method, []).append(i)

    def tau(i: int) -> tuple[float, float]:
        cross, self_attn = entries[i].tau
        return (-1.0 if cross is None else cross, -1.0 if self_attn is None else self_attn)

    return tuple(Method(name, tuple(sorted(found, key=tau))) for name, found in members.items())


def oriented(column: Column) -> float:
    """1 where larger is better, -1 where smaller is."""
    return -1.0 if column.higher_is_better is False else 1.0


def trade_off_ranges(entries: Sequence[Entry], x: Column, y: Column, known: References) -> Ranges | None:
    """Ranges from the worst to the best mean among all entries, widened by the references.

    Editability starts at that of no edit, fidelity ends at the bound of the VAE, where these are known.

    Returns:
        None where the means of one of the two do not differ.
    """

    def ends(column: Column, reference: float) -> tuple[float, float]:
        values = [list(entry.values(column.name).values()) for entry in entries]
        means = [float(np.mean(one)) for one in values if one]
        found = [oriented(column) * mean for mean in (*means, reference) if math.isfinite(mean)]
        return (min(found), max(found)) if means else (0.0, 0.0)

    found = Ranges(ends(x, no_edit(known, x)), ends(y, bound(known, y)))
    return found if found.x[0] < found.x[1] and found.y[0] < found.y[1] else None


def curve_of(entries: Sequence[Entry], method: Method, x: Column, y: Column, ranges: Ranges) -> Curve:
    """The trade-off of a method in two metrics."""
    chosen = [entries[i] for i in method.entries]
    keys = list(dict.fromkeys(key for entry in chosen for key in entry.rows))
    xs, ys = _matrix(chosen, keys, x), _matrix(chosen, keys, y)
    area = area_interval(xs, ys, [sample for sample, _ in keys], ranges.x, ranges.y)
    points = np.array([[_mean(xs[:, i]), _mean(ys[:, i])] for i in range(len(chosen))])
    full = (ranges.x[1] - ranges.x[0]) * (ranges.y[1] - ranges.y[0])
    return Curve(hypervolume(points, (ranges.x[0], ranges.y[0])) / full, area)


def compare_methods(
    values: Mapping[str, Mapping[str, Mapping[Key, float]]],
    columns: Iterable[Column],
    categories: Mapping[Key, str],
    best: str,
) -> list[Comparison]:
    """Every method against the best, per metric, overall and per category, on the samples both have.

    Args:
        values: Method to metric to value by sample and target.
        columns: Metrics to compare in.
        categories: Category of each sample and target.
        best: The method the others are compared with.

    Returns:
        Comparisons with at least one pair; p is corrected by Holm over those of the same metric.
    """
    found: list[Comparison] = []
    for column in columns:
        tests: list[tuple[str, str, Paired]] = []
        for name in values:
            if name == best:
                continue
            first, second = values[name].get(column.name, {}), values[best].get(column.name, {})
            shared = [key for key in first if key in second]
            present = dict.fromkeys(categories[key] for key in shared)
            parts = ["", *present] if len(present) > 1 else [""]
            for category in parts:
                keys = [key for key in shared if category in ("", categories[key])]
                paired = compare_paired(
                    [first[key] for key in keys],
                    [second[key] for key in keys],
                    [sample for sample, _ in keys],
                    resamples=_RESAMPLES,
                )
                if paired.groups:
                    tests.append((name, category, paired))
        corrected = holm([paired.p_permutation for _, _, paired in tests])
        found += [
            Comparison(name, best, column.name, category, paired, p)
            for (name, category, paired), p in zip(tests, corrected, strict=True)
        ]
    return found


def _matrix(
    entries: Sequence[Entry], keys: Sequence[Key], column: Column
) -> Float[np.ndarray, "keys entries"]:
    """Oriented values, a row per sample and target, a column per entry."""
    values = [entry.values(column.name) for entry in entries]
    sign = oriented(column)
    return np.array(
        [[sign * one.get(key, math.nan) for one in values] for key in keys], dtype=np.float64
    ).reshape(len(keys), len(entries))


def _mean(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan
