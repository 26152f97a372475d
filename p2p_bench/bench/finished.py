"""A finished run, and what a dashboard is told of one variant: its settings, figures from its own rows."""

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p2p_bench.bench.rows import Key
from p2p_bench.bench.tally import Totals
from p2p_bench.stats import mean_interval

COSTS = ("count", "failed", "unet_rows", "unet_rows_spent", "seconds")
"""Counts and costs of a variant, as its summary has them."""

EDITS = "edits"
"""Name of a variant's table of edits."""

_OWN_GROUPS = "hydra/"
"""Groups that are Hydra's, and no choice of what is measured."""


@dataclass(frozen=True)
class FinishedRun:
    """A run whose files are complete.

    Attributes:
        dir: The run directory.
        run_id: Digest of what decided its numbers.
        name: Name of the run.
        group: Sweep it belongs to; "" for a run of its own.
        job: What sets it apart within the sweep, such as "tau.cross=0.4".
        config: The configuration, as plain values.
        summary: Contents of `summary.json`.
        rows: All rows.
        choices: Chosen option per group.
        variant_settings: By variant, the parts of the configuration that are its own.
        promised: Keys of the rows that the run promised; `whole.shortfall` compares them with the disk.
    """

    dir: Path
    run_id: str
    name: str
    group: str
    job: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    choices: Mapping[str, str] = field(default_factory=dict)
    variant_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    promised: tuple[Key, ...] = ()


def rows_of(run: FinishedRun, variant: str) -> Iterator[Mapping[str, Any]]:
    """The rows of a variant, one after another: there may be more than fit in memory."""
    return (row for row in run.rows if row["variant"] == variant)


def settings_of(run: FinishedRun, variant: str) -> dict[str, Any]:
    """The settings of a variant, as if it had been run alone, and where its figures come from.

    Args:
        run: The run.
        variant: Name of the variant.

    Returns:
        The resolved configuration with the variant's own schedule and controller, numbers as numbers and
        NaN as None; the variant's name and schedules as `variant`; the chosen options by name, as
        `choice/<group>`; versions, state of the source, and checksums.
    """
    facts = run.summary["variants"][variant]
    schedules = {key: _number(facts[key]) for key in ("tau_cross", "tau_self")}
    own = {
        **run.config,
        **run.variant_settings.get(variant, {}),
        "variant": {"name": variant, "controller": facts["controller"], **schedules},
        **choices_of(run, variant),
        "run_id": run.run_id,
        **{key: run.summary[key] for key in ("versions", "git", "checksums")},
    }
    return {key: _without_nan(value) for key, value in own.items()}


def choices_of(run: FinishedRun, variant: str) -> dict[str, str]:
    """The chosen options by name, as `choice/<group>`."""
    chosen = {**run.choices, "controller": run.summary["variants"][variant]["controller"]}
    return {
        f"choice/{group}": option for group, option in chosen.items() if not group.startswith(_OWN_GROUPS)
    }


def figures_of(run: FinishedRun, variant: str) -> dict[str, int | float]:
    """All figures of a variant; those that have no value are left out.

    Args:
        run: The run.
        variant: Name of the variant.

    Returns:
        A metric's mean under its plain name, with `/low`, `/high`, `/count` and `/missing` (edits without a
        value); as `category/<category>/<metric>` the mean of a category with `/count`; the costs; the
        schedules that are one number; `totals/*` of the variant; `run_totals/*` of all variants.
    """
    facts = run.summary["variants"][variant]
    whole, categories = Totals(), _Categories(list(facts["metrics"]))
    for row in rows_of(run, variant):
        whole.add(row)
        categories.add(row)
    figures: dict[str, Any] = {key: _number(facts[key]) for key in ("tau_cross", "tau_self")}
    figures |= {cost: facts[cost] for cost in COSTS}
    for name, mean in facts["metrics"].items():
        ends = {f"{name}/{key}": mean[key] for key in ("low", "high", "count")}
        figures |= {name: mean["mean"], **ends, f"{name}/missing": facts["count"] - mean["count"]}
    figures |= categories.figures()
    figures |= {f"totals/{key}": value for key, value in whole.figures().items()}
    figures |= {f"run_totals/{key}": value for key, value in run.summary["totals"].items()}
    return {name: value for name, value in figures.items() if _is_finite(value)}


def undefined(value: float | None) -> bool:
    """Whether a mean has no value."""
    return value is None or math.isnan(value)


def fraction(text: str) -> float | None:
    """A schedule that is one fraction as a number; an interval or none is None."""
    try:
        return float(text)
    except ValueError:
        return None


def flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested settings, by dotted key; a list is one leaf."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


class _Categories:
    """Means of each category, of rows that did not fail."""

    def __init__(self, metrics: Sequence[str]) -> None:
        self._metrics = metrics
        self._values: dict[str, dict[str, array[float]]] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """One more row."""
        if row["status"] != "ok" or not row["category"]:
            return
        fresh = {name: array("d") for name in self._metrics}
        for name, values in self._values.setdefault(row["category"], fresh).items():
            values.append(math.nan if row[name] is None else row[name])

    def figures(self) -> dict[str, int | float]:
        """The means with their counts, as far as there are values."""
        found: dict[str, int | float] = {}
        for category, metrics in self._values.items():
            for name, values in metrics.items():
                mean = mean_interval(values, resamples=1)
                if mean.count:
                    found[f"category/{category}/{name}"] = mean.mean
                    found[f"category/{category}/{name}/count"] = mean.count
        return found


def _number(text: str) -> float | str | None:
    """A schedule as it stands in rows: a number where it is one, its text where not, None without one."""
    value = fraction(text)
    return value if value is not None else text or None


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
