"""A finished search, and its front measured again on pairs that the search has not seen.

    p2p-bench -m experiment=search run.dir=outputs/search/reference
    python experiments/search/measure.py outputs/search/reference [--pairs 96]

Edits the unseen pairs with every setting on the front, with the preset and without control (directories
`unseen/...` in that of the search; what is there is not made again), and writes trials.json, results.md,
front.svg and edits.png beside this file.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from PIL import Image, ImageDraw, ImageFont

from p2p_bench.app.main import run_verb
from p2p_bench.stats import compare_paired, holm, hypervolume, pareto_front

HERE = Path(__file__).resolve().parent
ERROR, DIRECTION = "background_error", "clip_direction"
CHECKS = ("attribute_changed", "others_kept")
UNSEEN_SEED = 6
"""The search has 5."""
PRESET, NO_CONTROL = (0.8, 0.4, 4.0), (0.0, 0.0, 4.0)
"""Settings beside the front: the default of the command line, and sampling alone."""
GUIDANCE = 1.5, 7.5
"""Ends of the scale in the search."""
SIDE, GAP = 128, 8
SHOWN = 6
"""Settings of the front whose edits are shown, and pairs."""

Setting = tuple[float, float, float]
"""Cross tau, self tau, guidance."""
Value = Mapping[str, float]
"""A mean with `low`, `high` and `count`."""


@dataclass(frozen=True)
class Point:
    """A setting and what it scored.

    Attributes:
        setting: Cross tau, self tau, guidance.
        scores: By column.
        directory: Of its run.
    """

    setting: Setting
    scores: Mapping[str, Value]
    directory: Path

    @property
    def merit(self) -> tuple[float, float]:
        """Both objectives, the larger the better."""
        return self.scores[DIRECTION]["mean"], -self.scores[ERROR]["mean"]


def main() -> None:
    """Reads the search, edits the unseen pairs and writes everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("search", type=Path, help="directory of the finished search")
    parser.add_argument("--pairs", type=int, default=96, help="number of unseen pairs")
    arguments = parser.parse_args()
    trials = [point_of(path) for path in jobs_of(arguments.search)]
    front = front_of(trials)
    settings = [point.setting for point in front]
    extra = [setting for setting in (PRESET, NO_CONTROL) if setting not in settings]
    unseen = {
        setting: measured(setting, arguments.search / "unseen", arguments.pairs)
        for setting in [*settings, *extra]
    }
    kept = [{"setting": point.setting, **point.scores} for point in trials]
    (HERE / "trials.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    (HERE / "results.md").write_text(report(trials, front, unseen), encoding="utf-8")
    (HERE / "front.svg").write_text(chart(trials, front, unseen), encoding="utf-8")
    pictures(front, unseen).save(HERE / "edits.png")
    print((HERE / "results.md").read_text(encoding="utf-8"))


def jobs_of(search: Path) -> list[Path]:
    """Directories of the trials, in order."""
    found = [path for path in search.iterdir() if path.name.isdecimal() and (path / "summary.json").is_file()]
    if not found:
        raise SystemExit(f"{search}: no trials; first p2p-bench -m experiment=search run.dir={search}")
    return sorted(found, key=lambda path: int(path.name))


def point_of(directory: Path) -> Point:
    """The one variant of a run."""
    summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    config = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
    (variant,) = summary["variants"].values()
    tau = (config["tau"][key] for key in ("cross", "self_attn"))
    cross, own, guidance = (round(float(number), 6) for number in (*tau, config["sampler"]["guidance"]))
    scores = {name: variant["metrics"][name] for name in (ERROR, DIRECTION, *CHECKS)}
    return Point((cross, own, guidance), scores, directory)


def front_of(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats, each setting once, from the least error up."""
    places = pareto_front(np.array([point.merit for point in points]))
    once = {points[place].setting: points[place] for place in places}
    return sorted(once.values(), key=lambda point: point.scores[ERROR]["mean"])


def measured(setting: Setting, folder: Path, pairs: int) -> Point:
    """A setting on the unseen pairs."""
    cross, own, guidance = setting
    directory = folder / f"{cross:g} {own:g} {guidance:g}"
    code = run_verb([
        "experiment=search", "run.objectives=[]",
        f"dataset.seed={UNSEEN_SEED}", f"dataset.count={pairs}", f"tau.cross={cross}",
        f"tau.self_attn={own}", f"sampler.guidance={guidance}", f"run.images={SHOWN}",
        f"run.dir='{directory}'",
    ])  # fmt: skip
    if code:
        raise SystemExit(f"{directory}: the run ended with {code}")
    return point_of(directory)


def report(trials: Sequence[Point], front: Sequence[Point], unseen: Mapping[Setting, Point]) -> str:
    """The front as the search saw it and on unseen pairs, and what is left of its lead."""
    counts = [point.scores[ERROR]["count"] for point in (trials[0], unseen[front[0].setting])]
    asked = [unseen[front[0].setting].scores[name]["count"] for name in CHECKS]
    settings = len({point.setting for point in trials})
    lines = [
        f"{len(trials)} trials ({settings} different settings) of {counts[0]:.0f} pairs; the front of "
        f"{len(front)} settings measured again on {counts[1]:.0f} unseen pairs. Error x 1e3, 95 % intervals "
        f"from resampling pairs. Of the unseen pairs the attributes' reader is asked for the change in "
        f"{asked[0]:.0f}, for what was kept in {asked[1]:.0f}.",
        "",
        "| cross, self tau | guidance | error, search | unseen | CLIP direction, search | unseen | "
        "attribute changed, unseen % | others kept, unseen % |",
        "|---" * 8 + "|",
    ]
    searched = {point.setting: point for point in front}
    for setting, again in unseen.items():
        before = searched.get(setting)
        cells = [
            cell(before.scores[ERROR], 1e3) if before else "",
            cell(again.scores[ERROR], 1e3),
            cell(before.scores[DIRECTION]) if before else "",
            cell(again.scores[DIRECTION]),
            *(f"{100 * again.scores[name]['mean']:.0f}" for name in CHECKS),
        ]
        name = {PRESET: " (preset)", NO_CONTROL: " (no control)"}.get(setting, "")
        lines.append(f"| {setting[0]:g}, {setting[1]:g}{name} | {setting[2]:g} | " + " | ".join(cells) + " |")
    again = [unseen[point.setting] for point in front]
    still = pareto_front(np.array([point.merit for point in again]))
    areas = [area(points, trials) for points in (front, again)]
    return "\n".join([
        *lines,
        "",
        f"On the unseen pairs {len(still)} of the {len(front)} settings are beaten by no other of them. "
        f"The front's hypervolume (reference: the largest error and the least direction of all trials) is "
        f"{areas[0]:.3g} as the search saw it and {areas[1]:.3g} on the unseen pairs.",
        "",
        *against_preset(again, unseen[PRESET]),
        "",
    ])  # fmt: skip


def against_preset(points: Sequence[Point], preset: Point) -> list[str]:
    """Both objectives less those of the preset, on the same unseen pairs."""
    there = rows_of(preset)
    found = []
    for point in points:
        here = rows_of(point)
        found += [
            compare_paired(*([rows[sample][name] for sample in there] for rows in (here, there)))
            for name in (ERROR, DIRECTION)
        ]
    corrected = holm([one.p_permutation for one in found])
    lines = [
        "Less the preset, on the same unseen pairs (permutation tests, p by Holm over the table):",
        "",
        "| cross, self tau | guidance | error x 1e3 | p | CLIP direction | p |",
        "|---" * 6 + "|",
    ]
    for number, point in enumerate(points):
        (error, p_error), (direction, p_direction) = (
            (found[k].difference, corrected[k]) for k in (2 * number, 2 * number + 1)
        )
        cross, own, guidance = point.setting
        lines.append(
            f"| {cross:g}, {own:g} | {guidance:g} | {cell(asdict(error), 1e3)} | {p_error:.3f} | "
            f"{cell(asdict(direction))} | {p_direction:.3f} |"
        )
    return lines


def rows_of(point: Point) -> dict[str, Mapping[str, Any]]:
    """The edits of a run by pair."""
    table = pq.read_table(point.directory / "results.parquet").to_pylist()
    return {row["sample_id"]: row for row in table}


def area(points: Sequence[Point], trials: Sequence[Point]) -> float:
    """Hypervolume in units of direction x 1e3 error."""
    merits = np.array([point.merit for point in trials]) * (1.0, 1e3)
    return hypervolume(np.array([point.merit for point in points]) * (1.0, 1e3), tuple(merits.min(0)))


def cell(value: Value, factor: float = 1.0) -> str:
    """A mean with its interval."""
    digits = 1 if factor > 1 else 3
    mean, low, high = (f"{factor * value[key]:.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def chart(trials: Sequence[Point], front: Sequence[Point], unseen: Mapping[Setting, Point]) -> str:
    """Every trial, shaded by its guidance; the front as searched, and the same settings on unseen pairs."""
    everything = [*trials, *unseen.values()]
    xs, ys = (
        [point.scores[name]["mean"] * factor for point in everything]
        for name, factor in ((ERROR, 1e3), (DIRECTION, 1.0))
    )
    right, low, high = max(xs) * 1.06, min(ys) - 0.03, max(ys) + 0.03

    def at(point: Point) -> tuple[float, float]:
        x = point.scores[ERROR]["mean"] * 1e3 / right
        return 70 + 620 * x, 360 - 330 * (point.scores[DIRECTION]["mean"] - low) / (high - low)

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 470"><style>text{font:12px sans-serif;'
        "fill:#333}.grid{stroke:#e4e4e4}.a{stroke:#d95f02}.b{stroke:#1b9e77}.a,.b{fill:none;stroke-width:1.6}"
        '</style><rect width="720" height="470" fill="#fff"/>'
    ]
    for tick in ticks(0.0, right):
        x = 70 + 620 * tick / right
        parts.append(f'<path d="M{x:.1f} 30V360" class="grid"/>')
        parts.append(f'<text x="{x:.1f}" y="378" text-anchor="middle">{tick:g}</text>')
    for tick in ticks(low, high):
        y = 360 - 330 * (tick - low) / (high - low)
        parts.append(f'<path d="M70 {y:.1f}H690" class="grid"/>')
        parts.append(f'<text x="62" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for point in trials:
        x, y = at(point)
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{shade(point.setting[2])}" stroke="#666" '
            f'stroke-width=".6"><title>{point.setting}</title></circle>'
        )
    for points, kind in ((front, "a"), ([unseen[point.setting] for point in front], "b")):
        places = [at(point) for point in points]
        parts.append(f'<path d="M{" L".join(f"{x:.1f} {y:.1f}" for x, y in places)}" class="{kind}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" class="{kind}"/>' for x, y in places]
    for setting, name in ((PRESET, "preset"), (NO_CONTROL, "no control")):
        x, y = at(unseen[setting])
        parts.append(
            f'<path d="M{x - 6:.1f} {y:.1f}h12M{x:.1f} {y - 6:.1f}v12" class="b"/>'
            f'<text x="{x:.1f}" y="{y + 22:.1f}" text-anchor="middle">{name}</text>'
        )
    parts.append(legend())
    return "".join(parts) + "</svg>\n"


def legend() -> str:
    """Titles of the axes and what the marks are."""
    parts = [
        '<text x="380" y="400" text-anchor="middle">background error x 1e3 (left is better)</text>',
        '<text transform="translate(22 195) rotate(-90)" text-anchor="middle">CLIP direction '
        "(up is better)</text>",
        '<path d="M72 430h24" class="a"/><text x="102" y="434">front as the search saw it</text>'
        '<path d="M292 430h24" class="b"/><text x="322" y="434">on unseen pairs</text>',
        '<text x="72" y="456">guidance:</text>',
    ]
    for place, guidance in enumerate(np.linspace(*GUIDANCE, 4)):
        x, colour = 140 + 60 * place, shade(guidance)
        parts.append(f'<circle cx="{x}" cy="452" r="4.5" fill="{colour}" stroke="#666" stroke-width=".6"/>')
        parts.append(f'<text x="{x + 9}" y="456">{guidance:g}</text>')
    return "".join(parts)


def shade(guidance: float) -> str:
    """Blue, the darker the higher the scale."""
    part = (guidance - GUIDANCE[0]) / (GUIDANCE[1] - GUIDANCE[0])
    levels = (round(low + part * (high - low)) for low, high in ((222, 8), (235, 48), (247, 107)))
    return f"rgb({','.join(map(str, levels))})"


def ticks(low: float, high: float) -> list[float]:
    """Some round numbers in a range."""
    step = 10.0 ** np.floor(np.log10(high - low))
    step = next(one for one in (step / 5, step / 2, step, 2 * step) if (high - low) / one <= 8)
    return [round(k * step, 9) for k in range(int(np.ceil(low / step)), int(high / step) + 1)]


def pictures(front: Sequence[Point], unseen: Mapping[Setting, Point]) -> Image.Image:
    """Unseen pairs as lines: the image, and its edits along the front."""
    places = np.unique(np.linspace(0, len(front) - 1, SHOWN).round().astype(int))
    shown = [unseen[front[place].setting] for place in places]
    rows = [rows_of(point) for point in shown]
    samples = [sample for sample, row in rows[0].items() if row["image_original"]][:SHOWN]
    sheet = Image.new(
        "RGB", (GAP + (SIDE + GAP) * (1 + len(shown)), 44 + (SIDE + 30) * len(samples)), "white"
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    titles = ["image", *("{:g}, {:g}\nguidance {:g}".format(*point.setting) for point in shown)]
    for column, title in enumerate(titles):
        draw.multiline_text((GAP + column * (SIDE + GAP), 6), title, "black", font)
    for line, sample in enumerate(samples):
        top = 44 + line * (SIDE + 30)
        files = [shown[0].directory / rows[0][sample]["image_original"]]
        files += [
            point.directory / found[sample]["image_target"] for point, found in zip(shown, rows, strict=True)
        ]
        for column, file in enumerate(files):
            with Image.open(file) as image:
                picture = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST)
            sheet.paste(picture, (GAP + column * (SIDE + GAP), top))
        row: Mapping[str, Any] = rows[0][sample]
        draw.text((GAP, top + SIDE + 4), f"{row['source_prompt']}  ->  {row['target_prompt']}", "black", font)
    return sheet


if __name__ == "__main__":
    main()
