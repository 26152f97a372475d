"""Turns a finished demo run into this folder's results: edits.png, tradeoff.svg and results.md.

p2p-bench run experiment=demo run.dir=outputs/demo/reference
python experiments/demo/figures.py outputs/demo/reference
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).resolve().parent
PICTURE = 128
"""Side of a shown picture: twice the world's 64 pixels."""
GAP, HEADER, CAPTION = 8, 30, 42
REAL = 3
"""Real images shown besides the first pair of each category."""
X, Y = "attribute_changed", "lpips"
COLUMNS = (
    "attribute_changed", "others_kept", "clip_direction", "background_error", "answer_psnr", "lpips", "psnr",
    "recon_psnr", "vae_psnr",
)  # fmt: skip

Row = Mapping[str, Any]


def main() -> None:
    """Reads the run directory named on the command line and writes the results beside this file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", type=Path)
    parser.add_argument(
        "--pairs",
        nargs="*",
        help="ids of the pairs to show; default: the first of each category and of the real",
    )
    arguments = parser.parse_args()
    rows = pq.read_table(arguments.run_dir / "results.parquet").to_pylist()
    summary = json.loads((arguments.run_dir / "summary.json").read_text())
    edits_picture(arguments.run_dir, rows, list(summary["variants"]), arguments.pairs).save(
        HERE / "edits.png"
    )
    (HERE / "tradeoff.svg").write_text(tradeoff(summary))
    (HERE / "results.md").write_text(table(summary))


def edits_picture(
    run_dir: Path, rows: Sequence[Row], variants: Sequence[str], wanted: Sequence[str] | None
) -> Image.Image:
    """A line per pair: its source, then its edit by each variant, the prompts below."""
    by_pair: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_pair.setdefault(row["sample_id"], {})[row["variant"]] = row
    first: dict[str, str] = {}
    for sample, found in by_pair.items():
        first.setdefault(next(iter(found.values()))["category"], sample)
    real = [sample for sample, found in by_pair.items() if next(iter(found.values()))["image_original"]]
    shown = list(wanted or dict.fromkeys([*first.values(), *real[:REAL]]))
    width = GAP + (PICTURE + GAP) * (1 + len(variants))
    sheet = Image.new("RGB", (width, HEADER + (PICTURE + CAPTION) * len(shown)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for column, title in enumerate(
        ["source", *("no control" if name == "none" else name for name in variants)]
    ):
        draw.text((GAP + column * (PICTURE + GAP) + PICTURE // 2, 8), title, "black", font, anchor="ma")
    for line, sample in enumerate(shown):
        top = HEADER + line * (PICTURE + CAPTION)
        found = by_pair[sample]
        any_row = next(iter(found.values()))
        paths = [
            any_row["image_original"] or any_row["image_source"],
            *(found[v]["image_target"] for v in variants),
        ]
        for column, path in enumerate(paths):
            with Image.open(run_dir / path) as image:
                shown_image = image.convert("RGB").resize((PICTURE, PICTURE), Image.Resampling.NEAREST)
            sheet.paste(shown_image, (GAP + column * (PICTURE + GAP), top))
        draw.text((GAP, top + PICTURE + 4), _change(any_row), "black", ImageFont.load_default(13))
    return sheet


def _change(row: Row) -> str:
    kind = "real image: " if row["image_original"] else ""
    if row["source_prompt"] == row["target_prompt"]:
        return f"{kind}{row['source_prompt']}  (one word re-weighted)"
    return f"{kind}{row['source_prompt']}  ->  {row['target_prompt']}"


def tradeoff(summary: Mapping[str, Any]) -> str:
    """A point per variant: share of edits that took, against distance to the source; 95 % intervals."""
    points = {name: (v["metrics"][X], v["metrics"][Y]) for name, v in summary["variants"].items()}
    width, height, left, right, top, bottom = 640, 400, 80, 24, 24, 64
    bounds = [
        (min(p[axis]["low"] for p in points.values()), max(p[axis]["high"] for p in points.values()))
        for axis in (0, 1)
    ]
    pads = [(high - low) * 0.12 for low, high in bounds]
    (x0, x1), (y0, y1) = [(low - pad, high + pad) for (low, high), pad in zip(bounds, pads, strict=True)]

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + (x - x0) / (x1 - x0) * (width - left - right),
            top + (y - y0) / (y1 - y0) * (height - top - bottom),  # less distance is better: it stands higher
        )

    parts = []
    for x in _ticks(x0, x1):
        px = at(x, y0)[0]
        parts.append(f'<path d="M{px:.1f} {top}V{height - bottom}" class="grid"/>')
        parts.append(f'<text x="{px:.1f}" y="{height - bottom + 18}" text-anchor="middle">{x:g}</text>')
    for y in _ticks(y0, y1):
        py = at(x0, y)[1]
        parts.append(f'<path d="M{left} {py:.1f}H{width - right}" class="grid"/>')
        parts.append(f'<text x="{left - 8}" y="{py + 4:.1f}" text-anchor="end">{y:g}</text>')
    line = " L".join("{:.1f} {:.1f}".format(*at(x["mean"], y["mean"])) for x, y in points.values())
    parts.append(f'<path d="M{line}" class="line"/>')
    floor = 0.0
    for name, (x, y) in sorted(
        points.items(), key=lambda point: at(point[1][0]["mean"], point[1][1]["mean"])[1]
    ):
        cx, cy = at(x["mean"], y["mean"])
        (lx, ly), (hx, hy) = at(x["low"], y["low"]), at(x["high"], y["high"])
        parts.append(f'<path d="M{lx:.1f} {cy:.1f}H{hx:.1f}M{cx:.1f} {ly:.1f}V{hy:.1f}" class="bar"/>')
        parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="5"/>')
        floor = max(cy - 9, floor + 14)  # labels of near points stand below one another
        label = "no control" if name == "none" else name
        parts.append(f'<text x="{cx + 9:.1f}" y="{floor:.1f}" class="name">{escape(label)}</text>')
    middle = (left + width - right) / 2
    parts.append(
        f'<text x="{middle}" y="{height - 16}" text-anchor="middle">editability: share of edits whose asked '
        "attribute is right, by the oracle (right is better)</text>"
    )
    parts.append(
        f'<text transform="translate(20 {(top + height - bottom) / 2}) rotate(-90)" text-anchor="middle">'
        "fidelity: LPIPS (world) to the source, lower is higher</text>"
    )
    style = (
        "text{font:12px sans-serif;fill:#333}.name{font-weight:600;fill:#111}.grid{stroke:#ddd}"
        ".line{stroke:#9bb;fill:none}.bar{stroke:#9ab;stroke-width:1.2}circle{fill:#07a}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"><style>{style}</style>'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _ticks(low: float, high: float) -> list[float]:
    step = 10 ** math.floor(math.log10(high - low))
    step = next(s for s in (step / 5, step / 2, step, step * 2) if (high - low) / s <= 7)
    return [round(k * step, 10) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def table(summary: Mapping[str, Any]) -> str:
    """Means with 95 % intervals and counts, as Markdown."""
    lines = [
        "| variant | "
        + " | ".join(_title(summary, name) for name in COLUMNS)
        + " | UNet rows alone | spent |",
        "|---" * (len(COLUMNS) + 3) + "|",
    ]
    for variant, found in summary["variants"].items():
        cells = [_cell(found["metrics"][name]) for name in COLUMNS]
        cost = f"{found['unet_rows']:.0f} | {found['unet_rows_spent']:.0f}"
        lines.append(f"| {variant} | " + " | ".join(cells) + f" | {cost} |")
    return "\n".join(lines) + "\n"


def _title(summary: Mapping[str, Any], column: str) -> str:
    return f"{column} {'↑' if summary['metrics'][column]['higher_is_better'] else '↓'}"


def _cell(mean: Mapping[str, Any]) -> str:
    if not mean["count"]:
        return "–"
    return f"{mean['mean']:.3g} [{mean['low']:.3g}, {mean['high']:.3g}] n={mean['count']}"


if __name__ == "__main__":
    main()
