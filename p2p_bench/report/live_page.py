"""A page over runs that are going on; it is written again and again, and the browser loads it again."""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from p2p_bench.bench.rows import write_atomically
from p2p_bench.report.columns import metric_columns
from p2p_bench.report.live import Snapshot, duration
from p2p_bench.report.templates import asset, environment

_SIDE = 260
_MARGIN = 34


def write_live_page(file: Path, runs: Sequence[Snapshot], every: float) -> None:
    """Writes the page.

    Args:
        file: Where to.
        runs: How far the runs are.
        every: Seconds after which a browser loads it again; once all runs have ended it does not.
    """
    going_on = any(run.state == "running" for run in runs)
    text = (
        environment()
        .get_template("live.html.j2")
        .render(
            style=Markup(asset("report.css")),
            refresh=max(1, round(every)) if going_on else 0,
            runs=[{"run": run, "left": _left(run), "plot": _plot(run), "table": _table(run)} for run in runs],
        )
    )
    write_atomically(file, lambda temporary: temporary.write_text(text, encoding="utf-8", newline="\n"))


def _left(run: Snapshot) -> str:
    seconds = run.seconds_left
    return "" if run.state != "running" or seconds != seconds else f"about {duration(seconds)} left"


def _table(run: Snapshot) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Headings, and the cells of each variant."""
    columns = [column for column in metric_columns(run.summary["metrics"]) if _has_values(run, column.name)]
    heads = ["edits", "failed", *(f"{column.short} {column.arrow}".strip() for column in columns)]
    rows = []
    for name, facts in run.summary["variants"].items():
        means = [facts["metrics"].get(column.name) for column in columns]
        cells = [str(facts["count"]), str(facts["failed"])]
        rows.append((name, cells + ["" if mean is None else f"{mean['mean']:.4g}" for mean in means]))
    return heads, rows


def _has_values(run: Snapshot, metric: str) -> bool:
    return any(metric in facts["metrics"] for facts in run.summary["variants"].values())


def _plot(run: Snapshot) -> dict[str, object] | None:
    """Points of the trade-off: editability across, fidelity up, in the direction that is better."""
    if run.axes is None:
        return None
    columns = {column.name: column for column in metric_columns(run.summary["metrics"])}
    across, up = (columns[name] for name in run.axes)
    found = [
        (name, facts["metrics"][across.name]["mean"], facts["metrics"][up.name]["mean"])
        for name, facts in run.summary["variants"].items()
        if across.name in facts["metrics"] and up.name in facts["metrics"]
    ]
    if not found:
        return None
    xs = _placed([x for _, x, _ in found], across.higher_is_better is False)
    ys = _placed([y for _, _, y in found], up.higher_is_better is False)
    return {
        "side": _SIDE,
        "across": f"{across.title} {across.arrow}",
        "up": f"{up.title} {up.arrow}",
        "points": [
            {"name": name, "x": x, "y": _SIDE - y, "told": f"{name}: {first:.4g}, {second:.4g}"}
            for (name, first, second), x, y in zip(found, xs, ys, strict=True)
        ],
    }


def _placed(values: Sequence[float], turned: bool) -> list[float]:
    low, high = min(values), max(values)
    parts = [0.5 if high == low else (value - low) / (high - low) for value in values]
    return [round(_MARGIN + (1 - part if turned else part) * (_SIDE - 2 * _MARGIN), 1) for part in parts]
