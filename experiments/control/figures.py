"""Tables and pictures from the rows that `measure.py` left.

python experiments/control/figures.py [--work outputs/control]
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from objects import ObjectReader, accuracy, object_reader
from PIL import Image, ImageDraw, ImageFont
from scipy.stats import spearmanr

from p2p_bench.stats import mean_interval

HERE = Path(__file__).resolve().parent
TITLES = {
    "swap_colour": "colour swap",
    "swap_pattern": "pattern swap",
    "swap_background": "background swap",
    "swap_shape": "shape swap",
    "refine_local": "refinement, local",
    "refine_global": "refinement, global",
}
NONE, PRESET = "0/0", "0.8/0.4"
TAUS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
RESAMPLES = 2000
_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 820 {height}" font-family="sans-serif" '
    'font-size="13"><rect width="820" height="{height}" fill="white"/>'
)
Row = dict[str, Any]


class Rows:
    """Rows of accepted pairs, looked up by category and variant."""

    def __init__(self, path: Path) -> None:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        self.rejected = sum(line["variant"] is None for line in lines)
        self.rows: list[Row] = [line for line in lines if line["variant"] is not None]
        for row in self.rows:
            row["both"] = row["changed"] * row["kept"]
        self.variants = list(dict.fromkeys(row["variant"] for row in self.rows))
        self._table = {(row["pair"], row["variant"]): row for row in self.rows}

    def pairs(self, categories: Sequence[str]) -> list[str]:
        """Ids of the pairs of some kinds."""
        return list(dict.fromkeys(row["pair"] for row in self.rows if row["category"] in categories))

    def column(self, pairs: Sequence[str], variant: str, name: str) -> np.ndarray:
        """A column of a variant, one value for each pair that has it; NaN where undefined."""
        found = [self._table.get((pair, variant)) for pair in pairs]
        return np.array([np.nan if row is None else row[name] for row in found], dtype=float)


def mean_text(values: np.ndarray, percent: bool = False, digits: int = 2) -> str:
    """A mean with its interval."""
    mean = mean_interval(values.tolist())
    if not mean.count:
        return ""
    scale = 100 if percent else 1
    ends = (
        f"{scale * mean.low:.{0 if percent else digits}f}..{scale * mean.high:.{0 if percent else digits}f}"
    )
    return f"{scale * mean.mean:.{0 if percent else digits}f}{' %' if percent else ''} ({ends})"


def ratio_text(over: np.ndarray, under: np.ndarray) -> str:
    """Ratio of means, with a bootstrap interval over pairs."""
    fine = ~(np.isnan(over) | np.isnan(under))
    over, under = over[fine], under[fine]
    if not len(over):
        return ""
    draws = np.random.default_rng(0).integers(len(over), size=(RESAMPLES, len(over)))
    low, high = np.percentile(over[draws].mean(1) / under[draws].mean(1), [2.5, 97.5])
    return f"{over.mean() / under.mean():.2f} ({low:.2f}..{high:.2f})"


def kinds_table(rows: Rows) -> list[str]:
    """The preset against no control, per kind of edit."""
    lines = [
        "| edit | pairs | changed and all else kept: no control | preset "
        "| mask IoU to the source: no control | preset | gain, paired "
        "| background error, preset / no control |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for category, title in TITLES.items():
        pairs = rows.pairs([category])
        cells = [title, str(len(pairs))]
        cells += [mean_text(rows.column(pairs, variant, "both"), percent=True) for variant in (NONE, PRESET)]
        free, held = (rows.column(pairs, variant, "iou") for variant in (NONE, PRESET))
        cells += [mean_text(free), mean_text(held), mean_text(held - free)]
        errors = [rows.column(pairs, variant, "background_mse") for variant in (PRESET, NONE)]
        is_local = category not in ("swap_background", "refine_global")
        cells.append(ratio_text(*errors) if is_local else "")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def controls_table(rows: Rows) -> list[str]:
    """Every control beside no control and the preset, on the pairs that have it."""
    lines = [
        "| edit | control | changed | all else kept | mask IoU | background MSE x 1e3 | LPIPS |",
        "|---|---|---|---|---|---|---|",
    ]
    for category, title in TITLES.items():
        pairs = rows.pairs([category])
        for variant in (NONE, PRESET, "local blend", "object's word only", "masactrl"):
            if np.isnan(rows.column(pairs, variant, "lpips")).all():
                continue
            name = {NONE: "none", PRESET: f"preset {PRESET}"}.get(variant, variant)
            cells = [title, name]
            cells += [mean_text(rows.column(pairs, variant, column), True) for column in ("changed", "kept")]
            cells.append(mean_text(rows.column(pairs, variant, "iou")))
            cells.append(mean_text(1e3 * rows.column(pairs, variant, "background_mse")))
            cells.append(mean_text(rows.column(pairs, variant, "lpips")))
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def cross_table(rows: Rows, category: str) -> list[str]:
    """One kind of edit along cross tau, with the preset's self tau."""
    pairs = rows.pairs([category])
    free = rows.column(pairs, NONE, "both")
    lines = [
        "| cross tau | changed and all else kept | less no control, paired, points | mask IoU |",
        "|---|---|---|---|",
    ]
    for tau in TAUS:
        variant = f"{tau:g}/{PRESET.split('/')[1]}"
        both, inside = (rows.column(pairs, variant, column) for column in ("both", "iou"))
        cells = [mean_text(both, percent=True), mean_text(100 * (both - free), digits=0), mean_text(inside)]
        lines.append(f"| {tau:g} | " + " | ".join(cells) + " |")
    return lines


def dose_lines(path: Path) -> tuple[list[str], dict[str, tuple[list[float], np.ndarray]]]:
    """Density by factor, as a table; and the densities (scenes x factors) of each weather."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    factors = sorted({line["factor"] for line in lines})
    curves: dict[str, tuple[list[float], np.ndarray]] = {}
    for weather in ("fog", "snow"):
        by_pair: dict[str, dict[float, float]] = {}
        for line in lines:
            if line["weather"] == weather:
                by_pair.setdefault(line["pair"], {})[line["factor"]] = line["density"]
        curves[weather] = factors, np.array([[seen[c] for c in factors] for seen in by_pair.values()])
    text = ["| weather | scenes | " + " | ".join(f"c = {c:g}" for c in factors) + " |"]
    text.append("|---" * (len(factors) + 2) + "|")
    for weather, (_, density) in curves.items():
        cells = [mean_text(column) for column in density.T]
        text.append(f"| {weather} | {len(density)} | " + " | ".join(cells) + " |")
    text.append("")
    for weather, (_, density) in curves.items():
        means = density.mean(0)
        within = np.median([spearmanr(factors, row).statistic for row in density])
        text.append(
            f"{weather}: Spearman's correlation of c with the mean density "
            f"{spearmanr(factors, means).statistic:.2f}, median within a scene {within:.2f}; "
            f"the means span {means.max() - means.min():.2f} of the full range.\n"
        )
    return text, curves


def even_mean(rows: Rows, variant: str, column: str) -> float:
    """Mean over pairs of each kind of edit, then over kinds: each kind counts alike."""
    kinds = [rows.column(pairs, variant, column) for kind in TITLES if (pairs := rows.pairs([kind]))]
    return float(np.mean([np.nanmean(values) for values in kinds]))


def write_grid(rows: Rows, path: Path) -> None:
    """Fidelity and editability over cross tau x self tau, all kinds of edit alike."""
    panels = [
        ("asked attribute right, %", "changed", 100.0, "{:.0f}"),
        ("CLIP to the target prompt", "clip_target", 1.0, "{:.1f}"),
        ("LPIPS to the source (lower: kept)", "lpips", 1.0, "{:.2f}"),
        ("mask IoU to the source", "iou", 1.0, "{:.2f}"),
    ]
    parts = []
    for number, (title, column, scale, form) in enumerate(panels):
        x0, y0 = 60 + 400 * (number % 2), 50 + 360 * (number // 2)
        means = np.array([[scale * even_mean(rows, f"{a:g}/{b:g}", column) for b in TAUS] for a in TAUS])
        parts.append(_panel(x0, y0, title, means, form))
    body = "".join(parts)
    path.write_text(
        f"{_SVG.format(height=730)}{body}</svg>\n",
        encoding="utf-8",
    )


def _panel(x0: int, y0: int, title: str, means: np.ndarray, form: str) -> str:
    """A 6 x 6 heatmap: cross tau to the right, self tau upward."""
    low, high = means.min(), means.max()
    out = [f'<text x="{x0}" y="{y0 - 12}" font-weight="bold">{title}</text>']
    for i, cross in enumerate(TAUS):
        for j, own in enumerate(TAUS):
            share = (means[i, j] - low) / (high - low or 1)
            red, green, blue = (round(a + (b - a) * share) for a, b in ((247, 8), (251, 69), (255, 148)))
            x, y = x0 + 52 * i, y0 + 46 * (5 - j)
            ink = "white" if share > 0.55 else "black"
            out.append(f'<rect x="{x}" y="{y}" width="52" height="46" fill="rgb({red},{green},{blue})"/>')
            value = form.format(means[i, j])
            out.append(f'<text x="{x + 26}" y="{y + 28}" text-anchor="middle" fill="{ink}">{value}</text>')
            if i == 0:
                out.append(f'<text x="{x0 - 6}" y="{y + 28}" text-anchor="end">{own:g}</text>')
        out.append(f'<text x="{x0 + 52 * i + 26}" y="{y0 + 293}" text-anchor="middle">{cross:g}</text>')
    out.append(f'<text x="{x0 + 156}" y="{y0 + 311}" text-anchor="middle">cross tau</text>')
    out.append(
        f'<text transform="translate({x0 - 38},{y0 + 138}) rotate(-90)" text-anchor="middle">self tau</text>'
    )
    return "".join(out)


def write_doses(curves: dict[str, tuple[list[float], np.ndarray]], path: Path) -> None:
    """Mean density over the factor, with every scene behind it."""
    parts = []
    for number, (weather, (factors, density)) in enumerate(curves.items()):
        x0 = 60 + 400 * number

        def point(c: float, value: float, left: int = x0) -> str:
            return f"{left + 50 * (c + 2):.1f},{250 - 200 * value:.1f}"

        parts.append(f'<text x="{x0}" y="32" font-weight="bold">density of {weather} read by oracle B</text>')
        for value in (0, 0.5, 1):
            y = 250 - 200 * value
            parts.append(f'<line x1="{x0}" x2="{x0 + 300}" y1="{y}" y2="{y}" stroke="#ccc"/>')
            parts.append(f'<text x="{x0 - 8}" y="{y + 4}" text-anchor="end">{value:g}</text>')
        marks = range(-2, 5)
        parts += [f'<text x="{x0 + 50 * (c + 2)}" y="270" text-anchor="middle">{c}</text>' for c in marks]
        parts.append(f'<text x="{x0 + 150}" y="290" text-anchor="middle">factor c of the word</text>')
        lines = [(row, "#9ecae1", 0.7) for row in density] + [(density.mean(0), "#08306b", 3.0)]
        for row, colour, width in lines:
            points = " ".join(point(c, value) for c, value in zip(factors, row, strict=True))
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
            )
    path.write_text(
        f"{_SVG.format(height=300)}{''.join(parts)}</svg>\n",
        encoding="utf-8",
    )


def write_pictures(folder: Path, columns: Sequence[tuple[str, str]], path: Path, count: int = 3) -> None:
    """A table of pictures: a row per pair, a column per (variant, title); none is written of no pictures."""
    saved = [torch.load(file, weights_only=True) for file in sorted(folder.glob("*.pt"))][:count]
    if not saved:
        return
    columns = [column for column in columns if any(column[0] in entry["names"] for entry in saved)]
    side, gap, head = 160, 6, 24
    sheet = Image.new("RGB", (len(columns) * (side + gap), head + len(saved) * (side + 28)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for i, (_, title) in enumerate(columns):
        draw.text((i * (side + gap) + 2, 5), title, "black", font)
    for j, entry in enumerate(saved):
        top = head + j * (side + 28)
        for i, (name, _) in enumerate(columns):
            if name in entry["names"]:
                pixels = entry["images"][entry["names"].index(name)].permute(1, 2, 0).numpy()
                picture = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
                sheet.paste(picture, (i * (side + gap), top))
        draw.text((2, top + side + 4), " -> ".join(dict.fromkeys(entry["prompts"])), "black", font)
    sheet.save(path, optimize=True)


def write_all(work: Path, out: Path, reader: ObjectReader) -> None:
    """Every table and picture."""
    rows = Rows(work / "rows.jsonl")
    count = len(rows.pairs(list(TITLES)))
    doses, curves = dose_lines(work / "doses.jsonl")
    text = [
        f"{count} pairs accepted by oracle A, {rows.rejected} rejected. Means with 95 % intervals, "
        "bootstrapped over source scenes. Object masks are read by a network whose overlap with true "
        f"masks on renders is {accuracy(reader):.3f}.",
        "",
        *kinds_table(rows),
        "",
        "## Every control",
        "",
        *controls_table(rows),
        "",
        f"## Shape swaps along cross tau, self tau {PRESET.split('/')[1]}",
        "",
        *cross_table(rows, "swap_shape"),
        "",
        "## Re-weighting",
        "",
        *doses,
    ]
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.md").write_text("\n".join(text), encoding="utf-8")
    dosed = [json.loads(line) for line in (work / "doses.jsonl").read_text(encoding="utf-8").splitlines()]
    for lines, name in ((rows.rows, "rows"), (dosed, "doses")):
        pq.write_table(pa.Table.from_pylist(lines), out / f"{name}.parquet", compression="zstd")
    write_grid(rows, out / "grid.svg")
    write_doses(curves, out / "doses.svg")
    usual = [("source", "source"), (NONE, "no control"), (PRESET, "preset 0.8/0.4")]
    for category in TITLES:
        extra = [
            ("local blend", "local blend"),
            ("object's word only", "object's word only"),
            ("masactrl", "MasaCtrl"),
        ]
        write_pictures(work / "pictures" / category, [*usual, *extra], out / f"{category}.png")
    for weather, (factors, _) in curves.items():
        columns = [("source", "source"), *((f"{c:g}", f"c = {c:g}") for c in factors)]
        write_pictures(work / "pictures" / weather, columns, out / f"{weather}.png", count=2)
    print("\n".join(text))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("outputs/control"))
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    write_all(options.work, options.out, object_reader(options.work / "reader.safetensors"))
