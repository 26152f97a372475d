"""Fake run directories in the layout a real run leaves, with numbers drawn from a seed."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from p2p_bench.bench.references import REFERENCES, reference_schema
from p2p_bench.bench.rows import IMAGE_COLUMNS, RESULTS, row_schema
from p2p_bench.stats import mean_interval

METRICS = {
    "clip_target": (True, "100 x cosine", "CLIP to the target prompt (world)", "editability", "world"),
    "clip_direction": (True, "cosine", "CLIP direction (world)", "editability", "world"),
    "lpips": (False, "", "LPIPS to the source (world)", "fidelity", "world"),
    "psnr": (True, "dB", "PSNR to the source", "fidelity", ""),
    "ssim": (True, "", "SSIM to the source", "fidelity", ""),
    "psnr_outside": (True, "dB", "PSNR outside the mask", "fidelity", ""),
    "recon_psnr": (True, "dB", "PSNR of the reconstruction", "other", ""),
    "attribute_changed": (True, "", "attribute changed (world)", "editability", "world"),
    "others_kept": (True, "", "other attributes kept (world)", "fidelity", "world"),
}
"""Name to (higher_is_better, unit, label, role, backbone)."""

NOTE = "of faultless photos the reader itself misreads shape 0.5%, <i>pairs</i> 7%"
NOTES = dict.fromkeys(("attribute_changed", "others_kept"), NOTE)
"""Notes on some metrics."""

PAIRS = (
    ("colour", "a {} circle on a grass field", "red", "blue", "a {} circle on a grass field"),
    ("shape", "a striped green {} on a brick wall", "square", "star", "a striped green {} on a brick wall"),
    ("background", "a yellow heart on {}", "sand", "water", "a yellow heart on {}"),
    ("refine", "a purple cross on stone", "", "in thick snow", "a purple cross on stone {}"),
)
COLOURS = {"red": "#c8352b", "blue": "#2b59c8", "square": "#2f9950", "star": "#2f9950"}

VARIANTS = {"none": None, "tau=0.2": 0.2, "tau=0.5": 0.5, "tau=0.8": 0.8}
"""Variant to the cross tau; None is plain generation."""


NO_EDIT = {
    "clip_target": 22.0, "clip_direction": math.nan, "lpips": 0.0, "psnr": 100.0, "ssim": 1.0,
    "psnr_outside": 100.0, "recon_psnr": math.nan, "attribute_changed": 0.0, "others_kept": 1.0,
}  # fmt: skip
"""What the untouched source scores."""

VAE = {**NO_EDIT, "lpips": 0.02, "psnr": 31.0, "ssim": 0.97, "psnr_outside": 32.0, "recon_psnr": 31.0}
"""What the VAE alone leaves of it."""


def paint(path: Path, seed: int, colour: str, shape: str = "circle", side: int = 64) -> None:
    """A textured square with one shape, saved as PNG."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(90, 190, (8, 8, 3), dtype=np.uint8))
    image = coarse.resize((side, side), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    box = [side * 0.25, side * 0.25, side * 0.75, side * 0.75]
    (draw.rectangle if shape == "square" else draw.ellipse)(box, fill=colour, outline="#111111")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def fake_row(
    sample: int, variant: str, tau: float | None, rng: np.random.Generator, run: str
) -> dict[str, Any]:
    """One row without pictures: the smaller tau, the more is changed and the less is kept."""
    category, source, old, new, target = PAIRS[sample % len(PAIRS)]
    keep = 0.0 if tau is None else tau
    level = {
        "clip_target": 30 - 4 * keep,
        "clip_direction": 0.28 - 0.15 * keep,
        "lpips": 0.45 - 0.35 * keep,
        "psnr": 14 + 12 * keep,
        "ssim": 0.45 + 0.45 * keep,
        "psnr_outside": 16 + 14 * keep,
        "recon_psnr": math.nan,
        "attribute_changed": 0.95 - 0.4 * keep,
        "others_kept": 0.6 + 0.35 * keep,
    }
    scores = {name: value + 0.08 * abs(value) * rng.normal() for name, value in level.items()}
    if category == "refine":
        scores["attribute_changed"] = math.nan
    return {
        "run_id": run,
        "sample_id": f"pair-{sample:03d}",
        "variant": variant,
        "target_index": 0,
        "category": category,
        "source_prompt": source.format(old).strip(),
        "target_prompt": target.format(new).strip(),
        "model": "world",
        "controller": "none" if tau is None else "by_edit",
        "tau_cross": "" if tau is None else f"{tau:g}",
        "tau_self": "" if tau is None else f"{tau / 2:g}",
        "inversion": "none",
        "inversion_from": "",
        "dataset": "world_pairs",
        "steps": 25,
        "guidance": 5.0,
        "seed": 2**63 + sample,
        "status": "ok",
        "error": "",
        **scores,
        "seconds": 0.4 + 0.05 * rng.normal(),
        "unet_rows": 100.0,
        "unet_rows_spent": 75.0,
        "unet_rows_backward": 0.0,
        "peak_memory_mb": 900.0,
    }


def add_pictures(row: dict[str, Any], run_dir: Path, sample: int, side: int) -> None:
    """Paint the pictures of a row and name them in it."""
    _, _, old, new, _ = PAIRS[sample % len(PAIRS)]
    stem = f"{row['sample_id']}-{row['variant'].replace('=', '')}"
    names = {
        "image_source": f"images/{row['sample_id']}-source.png",
        "image_target": f"images/{stem}.png",
        "image_difference": f"images/{stem}-difference.png",
        "heatmap_source": f"heatmaps/{row['sample_id']}.png",
        "heatmap_target": f"heatmaps/{stem}.png",
        "heatmap_tokens": f"heatmaps/{stem}-tokens.png",
    }
    paint(run_dir / names["image_source"], sample, COLOURS.get(old, "#d8b12a"), old, side)
    shift = 0 if row["controller"] != "none" else 1000
    paint(run_dir / names["image_target"], sample + shift, COLOURS.get(new, "#8a3ab8"), new, side)
    paint(run_dir / names["image_difference"], 1, "#ffffff", new, side)
    paint(run_dir / names["heatmap_source"], 2, "#ffb000", old, side)
    paint(run_dir / names["heatmap_target"], 3, "#ff6000", new, side)
    paint(run_dir / names["heatmap_tokens"], 4, "#ff6000", new, 2 * side)
    row.update(names, image_original="", image_vae="")


def summarise(
    rows: Sequence[Mapping[str, Any]], experiment: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The summary of some rows, with NaN as null."""

    def mean(part: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
        found = mean_interval([row[name] for row in part], [row["sample_id"] for row in part])
        pairs = {"mean": found.mean, "count": found.count, "low": found.low, "high": found.high}
        return {key: None if math.isnan(value) else value for key, value in pairs.items()}

    variants = {}
    for variant in dict.fromkeys(row["variant"] for row in rows):
        every = [row for row in rows if row["variant"] == variant]
        ok = [row for row in every if row["status"] == "ok"]
        means = {name: mean(ok, name) for name in METRICS}
        variants[variant] = {"count": len(ok), "failed": len(every) - len(ok), "metrics": means}
    return {
        "schema_version": 1,
        "experiment": experiment,
        "settings": settings,
        "variants": variants,
        "metrics": {
            name: dict(zip(("higher_is_better", "unit", "label", "role", "backbone"), facts, strict=True))
            | {"version": 1, "note": NOTES.get(name, "")}
            for name, facts in METRICS.items()
        },
        "versions": {"python": "3.11.9", "torch": "2.9.0"},
        "git": "0123abc",
        "checksums": {"unet": "ab" * 16},
        "seed": 0,
        "totals": {"unet_rows": 100 * len(rows), "samples": len({row["sample_id"] for row in rows})},
    }


def write_run(run_dir: Path, rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> Path:
    """Write rows and summary where a run leaves them."""
    run_dir.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=row_schema(list(METRICS)))
    pq.write_table(table, run_dir / RESULTS)
    (run_dir / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return run_dir


def fake_run(
    run_dir: Path,
    *,
    samples: int = 8,
    variants: Mapping[str, float | None] = VARIANTS,
    changes: Mapping[tuple[int, str], Mapping[str, Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
    references: Mapping[str, Mapping[str, float]] | None = None,
    every: Mapping[str, Any] | None = None,
    pictures: bool = True,
    side: int = 64,
    seed: int = 0,
) -> Path:
    """Write a fake run.

    Args:
        run_dir: Where to.
        samples: Number of samples.
        variants: Variant to cross tau.
        changes: Fields to set in the row of (sample number, variant).
        settings: The summary's settings.
        references: Scores by reference, the same for every sample; None is that of no edit.
        every: Fields to set in every row.
        pictures: False leaves every picture out.
        side: Side of the pictures in pixels.
        seed: Seed of the numbers.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for sample in range(samples):
        for variant, tau in variants.items():
            row = {**fake_row(sample, variant, tau, rng, run_dir.name), **(every or {})}
            row.update(dict.fromkeys(IMAGE_COLUMNS, ""))
            if pictures:
                add_pictures(row, run_dir, sample, side)
            row.update((changes or {}).get((sample, variant), {}))
            rows.append(row)
    settings = settings or {
        "model": {"name": "world", "dtype": "float32"},
        "seed": 0,
        "dataset": {"limit": samples},
    }
    write_run(run_dir, rows, summarise(rows, "demo", settings))
    write_references(run_dir, rows, {"no_edit": NO_EDIT} if references is None else references)
    return run_dir


def write_references(
    run_dir: Path, rows: Sequence[Mapping[str, Any]], references: Mapping[str, Mapping[str, float]]
) -> None:
    """Write the references of the samples of some rows."""
    samples = {row["sample_id"]: row["category"] for row in rows}
    found = [
        {"sample_id": sample, "target_index": 0, "reference": kind, "category": category, **scores}
        for sample, category in samples.items()
        for kind, scores in references.items()
    ]
    table = pa.Table.from_pylist(found, schema=reference_schema(list(METRICS)))
    pq.write_table(table, run_dir / REFERENCES)
