"""The table of a run for the terminal."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from p2p_bench.report.columns import Column, column_notes, main_metrics, metric_columns, metric_counts, number
from p2p_bench.report.references import NAMES

_UNIT_WIDTH = 4
"""Longest unit written in a heading; the page has room for the others."""


def summary_table(summary: Mapping[str, Any]) -> Table:
    """Variants as rows, the main metrics as columns with an arrow for the better direction.

    A cell is the mean, below it half the width of its 95 % interval and its count where that
    differs from the variant's. Failed edits stand below the scored ones. Undefined means are "–". The
    references, in italics, end the table.

    Args:
        summary: Contents of a run's `summary.json`.
    """
    columns = {column.name: column for column in metric_columns(summary["metrics"])}
    names = main_metrics([name for name, count in metric_counts(summary).items() if count])
    table = Table(
        title=Text(str(summary.get("experiment") or "results")),
        caption=_caption(columns[name] for name in names),
        header_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        show_edge=False,
        pad_edge=False,
    )
    table.add_column("variant", no_wrap=True)
    table.add_column("n", justify="right")
    for name in names:
        table.add_column(_header(columns[name]), justify="right")
    for variant, facts in summary["variants"].items():
        table.add_row(
            Text(variant),
            _edits(int(facts["count"]), int(facts.get("failed", 0))),
            *(_cell(facts["metrics"].get(name), int(facts["count"])) for name in names),
        )
    for kind, facts in summary.get("references", {}).items():
        cells = (_cell(facts["metrics"].get(name), int(facts["count"])) for name in names)
        table.add_row(Text(NAMES[kind]), Text(str(facts["count"])), *cells, style="italic")
    return table


def _caption(shown: Iterable[Column]) -> Text:
    text = Text("mean ± half its 95 % interval · ↑ ↓ the better direction · n: edits scored")
    for titles, note in column_notes(shown):
        text.append(f"\n{titles}: {note}")
    return text


def _edits(count: int, failed: int) -> Text:
    text = Text(str(count))
    return text.append(f"\n{failed}\nfailed", style="bold red") if failed else text


def _header(column: Column) -> Text:
    text = Text(column.short.replace(" ", "\n", 1))
    unit = column.unit if len(column.unit) <= _UNIT_WIDTH else ""
    notes = " ".join(note for note in (unit, column.backbone) if note)
    return text.append("\n").append(notes, style="dim").append(f" {column.arrow}".rstrip())


def _cell(mean: Mapping[str, Any] | None, count: int) -> Text:
    if mean is None or math.isnan(number(mean["mean"])):
        return Text("–", style="dim")
    value, low, high = number(mean["mean"]), number(mean.get("low")), number(mean.get("high"))
    size = abs(value)
    digits = 1 if size >= 100 else 2 if size >= 10 else 3 if size >= 0.1 else 4
    text = Text(f"{value:.{digits}f}")
    if not math.isnan(high - low):
        text.append(f"\n±{(high - low) / 2:.{digits}f}", style="dim")
    if int(mean["count"]) != count:
        text.append(f"\nn={mean['count']}", style="dim")
    return text
