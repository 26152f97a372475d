"""The data a page holds: variants with their means, samples with their edits, pictures."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from p2p_bench.bench.tally import missing_values, note_counts
from p2p_bench.report.changes import highlighted
from p2p_bench.report.columns import COSTS, Column, main_metrics, metric_columns, metric_counts, number
from p2p_bench.report.genuine import marks_of
from p2p_bench.report.numbers import finite, mean_json
from p2p_bench.report.pictures import MOST_BYTES, PictureStore
from p2p_bench.report.references import references, references_json
from p2p_bench.report.runs import Row, Run, plain_generation, text_of
from p2p_bench.report.tradeoff import choose_axes, level_metrics
from p2p_bench.stats import Mean, mean_interval
from p2p_bench.types import MASK_NOTES

PICTURES = {
    "original": "image_original",
    "vae": "image_vae",
    "source": "image_source",
    "target": "image_target",
    "difference": "image_difference",
    "heatSource": "heatmap_source",
    "heatTarget": "heatmap_target",
    "heatTokens": "heatmap_tokens",
}
_MAX_VALUES = 8
"""Most values of one setting spelt out."""

MOST_EDITS = 20_000
"""Edits that the gallery of a page holds at most; its tables and its plot are over all."""

_ROLES = {"editability": 0, "fidelity": 1}
_SETTINGS = (
    "model",
    "controller",
    "control",
    "tau_cross",
    "tau_self",
    "inversion",
    "dataset",
    "steps",
    "guidance",
)


def build_payload(run: Run, page_dir: Path) -> dict[str, Any]:
    """Everything the page's script shows, ready for JSON: undefined numbers are None.

    Means and counts are over all rows. The gallery has the first samples, as many as a browser opens; `whole`
    says how many samples and edits there are.

    Args:
        run: The run.
        page_dir: Directory the page is written to.
    """
    metrics = metric_columns(run.summary["metrics"])
    counts = metric_counts(run.summary)
    axes = choose_axes(metrics, counts, level_metrics([run.summary]))
    columns = (*sorted(metrics, key=lambda metric: _ROLES.get(metric.role, len(_ROLES))), *COSTS)
    main = main_metrics([column.name for column in metrics if counts[column.name]])
    store = PictureStore(page_dir, MOST_BYTES)
    categories = sorted({row["category"] or "" for row in run.rows})
    numbers = {name: i for i, name in enumerate(run.variants)}
    samples: dict[tuple[Any, ...], dict[str, Any]] = {}
    known: set[tuple[Any, ...]] = set()
    edits, mark = 0, marks_of(run)
    for row in run.rows:
        key = (row["sample_id"], row["target_index"], row["source_prompt"], row["target_prompt"])
        known.add(key)
        if key not in samples and edits >= MOST_EDITS:
            continue
        sample = samples.setdefault(key, _sample(row))
        sample["edits"].append(_edit(row, run, numbers[row["variant"]], columns, store, mark))
        edits += 1
    return {
        "metrics": [{**_column(column), "main": column.name in main} for column in columns],
        "axes": {"x": axes.x, "y": axes.y} if axes else None,
        "categories": categories,
        "variants": [_variant(run, name, columns, categories) for name in run.variants],
        **references_json(references(run.references, columns), columns),
        "samples": list(samples.values()),
        "whole": {"samples": len(known), "edits": len(run.rows), "held": edits, "linked": store.linked},
        "pictures": [[picture.uri, picture.link, picture.note] for picture in store.pictures],
    }


def _column(column: Column) -> dict[str, Any]:
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
    }


def _sample(row: Row) -> dict[str, Any]:
    source, target = highlighted(row["source_prompt"], row["target_prompt"])
    return {
        "id": row["sample_id"],
        "targetIndex": row["target_index"],
        "category": row["category"] or "",
        "source": source,
        "target": target,
        "edits": [],
    }


def _edit(
    row: Row,
    run: Run,
    variant: int,
    columns: Sequence[Column],
    store: PictureStore,
    mark: Callable[[Row, str], str | None],
) -> dict[str, Any]:
    failed = row["status"] != "ok"
    return {
        "variant": variant,
        "failed": failed,
        "error": (row.get("error") or "no reason given") if failed else "",
        "scores": [finite(number(row.get(column.name))) for column in columns],
        "pictures": {
            name: store.add(run.path, row.get(field), mark(row, field)) for name, field in PICTURES.items()
        },
    }


def _variant(run: Run, name: str, columns: Sequence[Column], categories: Sequence[str]) -> dict[str, Any]:
    rows = [row for row in run.rows if row["variant"] == name]
    summary = run.summary["variants"].get(name, {})
    overall = _means(rows, columns)
    for i, column in enumerate(columns):
        stated = summary.get("metrics", {}).get(column.name)
        if stated is not None:
            low, high = stated.get("low"), stated.get("high")
            overall[i] = mean_json(
                Mean(number(stated["mean"]), int(stated["count"]), number(low), number(high))
            )
    by_category = {name: [row for row in rows if (row["category"] or "") == name] for name in categories}
    settings = {key: _listed(_values(rows, key)) for key in _SETTINGS}
    first = rows[0] if rows else {}
    return {
        "name": name,
        "settings": settings,
        "series": " | ".join(
            text for key, text in settings.items() if not key.startswith("tau") and key != "control"
        ),
        "plain": plain_generation(rows),
        "tau": [_tau(first.get("tau_cross")), _tau(first.get("tau_self"))],
        "counts": {"": _counts(rows), **{key: _counts(part) for key, part in by_category.items() if key}},
        "means": {"": overall, **{key: _means(part, columns) for key, part in by_category.items() if key}},
    }


def _values(rows: Iterable[Row], key: str) -> list[str]:
    """The different values of a setting in some rows, as text, those that are not set left out."""
    return [text for text in dict.fromkeys(text_of(row.get(key)) for row in rows) if text != "–"]


def _tau(value: Any) -> float | None:
    """A schedule that is one fraction, as a number; an interval or none is None."""
    try:
        return finite(float(value))
    except (TypeError, ValueError):
        return None


def _counts(rows: Sequence[Row]) -> list[int]:
    failed = sum(row["status"] != "ok" for row in rows)
    return [len(rows) - failed, failed]


def _means(rows: Sequence[Row], columns: Sequence[Column]) -> list[list[float | int | None]]:
    ok = [row for row in rows if row["status"] == "ok"]
    groups = [row["sample_id"] for row in ok]
    return [
        mean_json(mean_interval([number(row.get(column.name)) for row in ok], groups)) for column in columns
    ]


def facts(run: Run) -> list[tuple[str, str]]:
    """What was run, as (term, description) pairs read off the rows and the summary."""
    values = {key: _values(run.rows, key) for key in _SETTINGS}
    values["seed"] = _values([run.summary], "seed")
    terms = {"tau_cross": "cross tau", "tau_self": "self tau"}
    pairs = []
    for key, texts in values.items():
        if texts:
            pairs.append((terms.get(key, key), _listed(texts)))
    return pairs


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _MAX_VALUES} more" if len(texts) > _MAX_VALUES else ""
    # A control such as "replace, reweight fog x 3" is one value.
    separator = "; " if any(", " in text for text in texts) else ", "
    return separator.join(texts[:_MAX_VALUES]) + more


def cautions(run: Run) -> list[tuple[int, str]]:
    """What a reader should know of edits that did not fail, each with the number of edits."""
    good = [row for row in run.rows if row["status"] == "ok"]
    found = note_counts(good)
    masks = Counter(row.get("mask") for row in good)
    found |= {note: masks[state] for state, note in MASK_NOTES.items() if masks[state]}
    confined = Counter(str(row.get("mask_from") or "") for row in good)
    found |= {f"mask that confines the edit: {name}": count for name, count in confined.items() if name}
    columns: dict[tuple[str, int], list[str]] = {}
    for column, reasons in missing_values(good).items():
        for reason, count in reasons.items():
            columns.setdefault((reason, count), []).append(column)
    found |= {f"no {', '.join(names)}: {reason}": count for (reason, count), names in columns.items()}
    return [(count, text) for text, count in found.items()]


def totals(run: Run) -> Mapping[str, int | float]:
    """Sizes and cost of the run, from the rows."""
    rows = run.rows

    def total(key: str) -> float:
        return math.fsum(value for value in (number(row.get(key)) for row in rows) if not math.isnan(value))

    return {
        "samples": len({row["sample_id"] for row in rows}),
        "edits": len(rows),
        "failed": sum(row["status"] != "ok" for row in rows),
        "unet_rows": total("unet_rows"),
        "unet_rows_spent": total("unet_rows_spent"),
        "seconds": total("seconds"),
    }
