"""A fake run on PIE-Bench, whose means are what is asked for exactly."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from p2p_bench.bench.rows import IMAGE_COLUMNS, RESULTS, row_schema
from p2p_bench.report.published import CANARY, FIGURES
from p2p_bench.stats import mean_interval
from tests.report.fake_run import fake_row

COLUMNS = (*(figure.column for figure in FIGURES), CANARY[0])
SETTINGS: Mapping[str, Any] = {
    "model": {"_target_": "x.Checkpoint", "dtype": "float32"},
    "dataset": {"_target_": "x.PieBench", "border": True},
    "inversion": {"_target_": "x.Direct", "guidance": 1.0},
    "controller": {"_target_": "x.pie"},
    "metrics": {"pie_pixel": {"jpeg": True}},
    "seed": 1234,
}


def pie_run(
    run_dir: Path,
    means: Mapping[str, float],
    *,
    images: int = 700,
    variant: str = "pie",
    every: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] = SETTINGS,
    seed: int = 0,
) -> Path:
    """Writes rows around the means, and their summary; columns without a mean are NaN."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(images, len(COLUMNS)))
    noise -= noise.mean(0)
    rows = []
    for sample in range(images):
        plain = fake_row(sample, variant, 0.4, rng, run_dir.name)
        own = row_schema(COLUMNS).names
        scores = {
            column: means[column] * (1 + 0.2 * noise[sample, place]) if column in means else math.nan
            for place, column in enumerate(COLUMNS)
        }
        facts = {
            "controller": "pie", "inversion": "direct", "model": "sd14", "dataset": "pie_bench", "steps": 50,
            "guidance": 7.5, "tau_cross": "0.4", "tau_self": "0.6", **(every or {}),
        }  # fmt: skip
        row = {**plain, **facts, **scores, **dict.fromkeys(IMAGE_COLUMNS, "")}
        rows.append({name: row.get(name, "") for name in own})
    run_dir.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=row_schema(COLUMNS)), run_dir / RESULTS)
    (run_dir / "summary.json").write_text(json.dumps(_summary(rows, variant, settings)), encoding="utf-8")
    return run_dir


def _summary(rows: list[dict[str, Any]], variant: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    lower = ("pie_structure", "pie_lpips", "pie_mse")
    roles = {"pie_clip_whole": "editability", "pie_clip_edited": "editability", "pie_clip_source": "other"}
    columns = {name: (name not in lower, roles.get(name, "fidelity")) for name in COLUMNS}
    means = {}
    for column in columns:
        found = mean_interval([row[column] for row in rows])
        values = {"mean": found.mean, "count": found.count, "low": found.low, "high": found.high}
        means[column] = {key: None if math.isnan(value) else value for key, value in values.items()}
    return {
        "schema_version": 1,
        "experiment": "pie_table",
        "settings": settings,
        "variants": {variant: {"count": len(rows), "failed": 0, "metrics": means}},
        "metrics": {
            name: {
                "higher_is_better": higher, "unit": "", "label": f"PIE-Bench {name[4:].replace('_', ' ')}",
                "role": role, "backbone": "", "version": 1, "note": "",
            }
            for name, (higher, role) in columns.items()
        },
        "seed": 1234,
    }  # fmt: skip
