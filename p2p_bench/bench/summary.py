"""Means over rows, as `summary.json`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from p2p_bench.bench.provenance import git_state, package_versions
from p2p_bench.bench.rows import write_atomically
from p2p_bench.bench.tally import Row, Scores, Tally, Totals
from p2p_bench.bench.task import Variant
from p2p_bench.metrics.base import MetricColumn

SCHEMA_VERSION = 1
SUMMARY = "summary.json"


def summarise(
    rows: Iterable[Row],
    references: Iterable[Row] = (),
    *,
    name: str,
    variants: Sequence[Variant],
    columns: Sequence[MetricColumn],
    weights: Mapping[str, str] | None = None,
    settings: Mapping[str, Any],
    checksums: Mapping[str, str],
    seed: int,
    objectives: Sequence[str] = (),
    promised: int | None = None,
    pictures: Mapping[str, Any] | None = None,
    made_by: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """The summary of a run; means are over rows with `status=ok`, intervals over whole samples.

    Args:
        rows: All rows of the run; they are looked at once, one after another.
        references: Its references; they are in no other count.
        name: Name of the run.
        variants: The variants, in the order they are shown.
        columns: The metric columns.
        weights: Checksum of the weights behind a column, by its name, where there are any.
        settings: The settings that decided the numbers.
        checksums: Checksum of the model and whatever else was read.
        seed: Seed of the run.
        objectives: Metric columns that a search is told of.
        promised: Number of edits that the run promised; as many as there are rows if not given.
        pictures: What is known of pictures that were made elsewhere; None where the run made them.
        made_by: Who made the rows, where others than those that `versions` names did.
    """
    names = [column.name for column in columns]
    whole, tallies = Totals(), {variant.name: Tally(names) for variant in variants}
    for row in rows:
        whole.add(row)
        if (tally := tallies.get(row["variant"])) is not None:
            tally.add(row)
    kinds: dict[str, Scores] = {}
    for row in references:
        kinds.setdefault(row["reference"], Scores(names)).add(row)
    return {
        "schema_version": SCHEMA_VERSION,
        "experiment": name,
        "settings": dict(settings),
        "variants": {variant.name: _of_variant(tallies[variant.name], variant) for variant in variants},
        "references": {
            kind: {"count": len(scores), "metrics": scores.means()} for kind, scores in kinds.items()
        },
        "metrics": {column.name: _of_column(column, (weights or {}).get(column.name)) for column in columns},
        "versions": package_versions(),
        "git": git_state(),
        **({"made_by": {str(place): dict(one) for place, one in enumerate(made_by)}} if made_by else {}),
        "checksums": dict(checksums),
        "seed": seed,
        "notes": whole.note_counts(),
        "objectives": list(objectives),
        **({"pictures": dict(pictures)} if pictures else {}),
        "totals": {**whole.figures(), "promised": whole.edits if promised is None else promised},
    }


def write_summary(run_dir: Path, summary: Mapping[str, Any]) -> Path:
    """Writes `summary.json`; undefined numbers become null."""
    path = run_dir / SUMMARY
    text = json.dumps(_without_nan(summary), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return path


def _of_column(column: MetricColumn, weights: str | None) -> dict[str, Any]:
    facts = {key: value for key, value in asdict(column).items() if key != "name"}
    return facts | ({"weights": weights} if weights else {})


def _of_variant(tally: Tally, variant: Variant) -> dict[str, Any]:
    return {
        "controller": variant.controller_name,
        "tau_cross": variant.cross,
        "tau_self": variant.self_attn,
        "count": len(tally.scores),
        "failed": tally.failed,
        "masks": dict(tally.masks),
        "mask_from": dict(tally.mask_from),
        "metrics": tally.scores.means(),
        "categories": {
            name: {"count": len(scores), "metrics": scores.means()}
            for name, scores in tally.categories.items()
        },
        "missing": {column: dict(reasons) for column, reasons in tally.missing.items()},
        **tally.costs(),
    }


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and value != value else value
