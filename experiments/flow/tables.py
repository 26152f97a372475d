"""Tables of the flow methods: means with intervals by scene, paired tests, orders beside published ones."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from p2p_bench.stats import Mean, compare_paired, draw_groups, holm, mean_interval

CONTROLS = ("none", "replace / refine", "image q-k")

COLUMNS = {
    "background_error": ("background error x 1e3", 1e3, 2),
    "answer_psnr": ("dB to the exact answer", 1.0, 1),
    "attribute_changed": ("changed %", 100.0, 0),
    "others_kept": ("others kept %", 100.0, 0),
    "recon_psnr": ("source row, dB to the VAE's", 1.0, 1),
}
"""Column -> title, factor, digits."""

PUBLISHED = {
    "FireFlow (FLUX)": ("fireflow", "rf_solver", "rf_inversion"),
    "DirectEdit (FLUX)": ("rf_solver", "fireflow", "flowedit", "rf_inversion"),
    "UniEdit and DirectEdit (FLUX)": ("uni_edit", "rf_solver", "fireflow", "flowedit", "rf_inversion"),
}
"""PSNR of the background on PIE-Bench, best first, by the table it was transcribed from."""

RESAMPLES = 2000
Row = Mapping[str, Any]


def summary(rows: Sequence[Row], first_world: Sequence[Row], methods: Sequence[str]) -> dict[str, Any]:
    """Everything that is reported, of the images that every method has.

    Args:
        rows: One per method, control and image.
        first_world: Rows of `experiments/inversion` of these images.
        methods: In the order of the lines.
    """
    wanted = {(name, control) for name in methods for control in CONTROLS}
    have: dict[str, set[tuple[str, str]]] = {}
    for row in rows:
        have.setdefault(row["sample"], set()).add((row["method"], row["control"]))
    whole = {sample for sample, seen in have.items() if seen >= wanted}
    kept = [row for row in rows if row["sample"] in whole]
    beside = best_of_the_first(first_world, whole)
    lines = {(row["method"], row["control"]): [] for row in kept}
    for row in kept:
        lines[row["method"], row["control"]].append(row)
    return {
        "images": len(whole),
        "lines": [
            _line(name, control, lines[name, control]) for name, control in sorted_lines(methods, lines)
        ],
        "first_world": [_line(name, "replace / refine", own) for name, own in beside.items()],
        "paired": paired(kept, beside, methods),
        "orders": [order for control in CONTROLS for order in orders(kept, control)],
    }


def sorted_lines(methods: Sequence[str], lines: Mapping[tuple[str, str], Any]) -> list[tuple[str, str]]:
    """The lines that there are, method after method."""
    return [(name, control) for name in methods for control in CONTROLS if (name, control) in lines]


def best_of_the_first(rows: Sequence[Row], samples: set[str]) -> dict[str, list[Row]]:
    """The first world's three methods with the lowest background error at its own guidance, on all images."""
    by: dict[str, list[Row]] = {}
    for row in rows:
        if row["sample"] in samples and row["guidance"] == 4.0:
            by.setdefault(row["method"], []).append({**row, "recon_psnr": row["recon_vae"]})
    full = {name: own for name, own in by.items() if len(own) == len(samples)}
    means = {name: _mean([row["background_error"] for row in own]).mean for name, own in full.items()}
    best = sorted((name for name in full if means[name] == means[name]), key=lambda name: means[name])[:3]
    return {name: full[name] for name in best}


def _line(name: str, control: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Means of one line, as numbers."""
    costs = {key: float(np.mean([row[key] for row in rows])) for key in ("rows", "seconds") if key in rows[0]}
    costs.setdefault("rows", float(np.mean([row.get("unet_rows", 0) for row in rows])))
    found = {column: _mean([row[column] for row in rows]) for column in COLUMNS}
    failed = sum(row.get("error") is not None for row in rows)
    columns = {column: _plain(mean) if mean.count else None for column, mean in found.items()}
    return {"method": name, "control": control, "images": len(rows), "failed": failed, **costs, **columns}


def _plain(mean: Mean) -> dict[str, float | None]:
    """As JSON takes it; bounds that are not known are null."""
    return {key: None if value != value else value for key, value in dataclasses.asdict(mean).items()}


def _mean(values: Sequence[float | None]) -> Mean:
    return mean_interval([_number(value) for value in values])


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def paired(rows: Sequence[Row], beside: Mapping[str, Sequence[Row]], methods: Sequence[str]) -> list[Any]:
    """Two lines on the same images, for either question; Holm's correction is over all of a question.

    Each control against none, of every method; each method against the plain ODE, replaced or refined; and
    the flow line with the best mean against each of the first world's best.
    """
    found: list[dict[str, Any]] = []
    for column, factor, sign in (("background_error", 1e3, 1.0), ("answer_psnr", 1.0, -1.0)):
        values = {(row["method"], row["control"], row["sample"]): row[column] for row in rows}
        values |= {
            ("first world: " + name, CONTROLS[1], row["sample"]): row[column]
            for name, own in beside.items()
            for row in own
        }
        places = list(dict.fromkeys((name, control) for name, control, _ in values))
        samples = list(dict.fromkeys(sample for _, _, sample in values))
        numbers = {
            place: np.array([_number(values.get((*place, sample))) for sample in samples]) for place in places
        }
        compared = [
            {**_compared(first, second, numbers, factor), "column": column}
            for first, second in _pairs(places, numbers, methods, sign)
        ]
        corrected = holm([one["p"] for one in compared]) if compared else []
        found += [{**one, "p_holm": p} for one, p in zip(compared, corrected, strict=True)]
    return found


def _pairs(
    places: Sequence[tuple[str, str]],
    values: Mapping[tuple[str, str], np.ndarray],
    methods: Sequence[str],
    sign: float,
) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Which lines are compared: those that have an image in common."""
    wanted = [((name, control), (name, CONTROLS[0])) for name in methods for control in CONTROLS[1:]]
    wanted += [((name, CONTROLS[1]), ("ode", CONTROLS[1])) for name in methods if name != "ode"]
    own = [place for place in places if place[0] in methods and np.isfinite(values[place]).any()]
    if own:
        best = min(own, key=lambda place: sign * float(np.nanmean(values[place])))
        wanted += [(best, place) for place in places if place[0].startswith("first world")]
    return [
        (a, b)
        for a, b in wanted
        if a in values and b in values and np.isfinite(values[a] - values[b]).sum() > 1
    ]


def _compared(
    first: tuple[str, str],
    second: tuple[str, str],
    values: Mapping[tuple[str, str], np.ndarray],
    factor: float,
) -> dict[str, Any]:
    a, b = (factor * values[place] for place in (first, second))
    both = np.isfinite(a) & np.isfinite(b)
    one = compare_paired(a[both].tolist(), b[both].tolist())
    mean = one.difference
    return {
        "first": list(first), "second": list(second), "images": int(both.sum()), "difference": mean.mean,
        "low": mean.low, "high": mean.high, "p": one.p_permutation,
    }  # fmt: skip


def orders(rows: Sequence[Row], control: str) -> list[dict[str, Any]]:
    """Published orders of the background's PSNR, of the methods that are here, beside the order here."""
    found = []
    measured = {row["method"] for row in rows}
    for table, published in PUBLISHED.items():
        order = tuple(name for name in published if name in measured)
        if len(order) < 2:
            continue
        values: dict[str, dict[str, float]] = {}
        for row in rows:
            if row["control"] == control and row["method"] in order and row["background_error"] is not None:
                values.setdefault(row["sample"], {})[row["method"]] = -row["background_error"]
        scores = np.array([[by[name] for name in order] for by in values.values() if len(by) == len(order)])
        if not len(scores):
            continue
        draws = [_rho(scores[draw].mean(0)) for draw in draw_groups(len(scores), 0, RESAMPLES)]
        low, high = np.percentile(draws, [2.5, 97.5])
        means = scores.mean(0)
        here = [order[place] for place in np.argsort(-means, kind="stable")]
        found.append(
            {
                "table": table, "control": control, "published": list(order), "here": here,
                "rho": _rho(means), "low": float(low), "high": float(high), "images": len(scores),
            }
        )  # fmt: skip
    return found


def _rho(scores: np.ndarray) -> float:
    """Spearman's correlation of scores, best first expected, with that order; ties share their rank."""
    better = np.array([[(a > b) + 0.5 * (a == b) for b in scores] for a in scores]).sum(1)
    expected = np.arange(len(scores), 0, -1, dtype=float)
    return 0.0 if better.std() == 0 else float(np.corrcoef(better, expected)[0, 1])


def report(made: Mapping[str, Any]) -> str:
    """The tables as Markdown."""
    if not made["images"]:
        return "No image has been edited with every method yet.\n"
    parts = [
        f"{made['images']} images; means with 95 % intervals from resampling scenes. Rows are those of one "
        "edit alone, its inversion and its source included; seconds are CPU time of a batch of 8 images "
        "divided by its rows, times these.",
        _lines(made["lines"], made["settings"]),
    ]
    if made["first_world"]:
        parts += [
            "**The first world's three with the lowest background error, on the same images** (25 steps, "
            "guidance 4, `experiments/inversion`)",
            _lines(made["first_world"], {}),
        ]
    parts += [_paired(made["paired"]), _orders(made["orders"])]
    return "\n\n".join(part for part in parts if part) + "\n"


def _lines(lines: Sequence[Mapping[str, Any]], settings: Mapping[str, Mapping[str, Any]]) -> str:
    titles = [title for title, _, _ in COLUMNS.values()]
    head = f"| method (steps) | control | {' | '.join(titles)} | rows | s | failed |"
    text = [head, "|---" * (len(titles) + 5) + "|"]
    for line in lines:
        cells = [_cell(line[column], factor, digits) for column, (_, factor, digits) in COLUMNS.items()]
        steps = settings.get(line["method"], {}).get("steps")
        name = line["method"] + (f" ({steps})" if steps else "")
        cost = f"{line['rows']:.0f} | {line['seconds']:.2f} | {line['failed']}"
        text.append(f"| {name} | {line['control']} | {' | '.join(cells)} | {cost} |")
    return "\n".join(text)


def _cell(mean: Mapping[str, float] | None, factor: float, digits: int) -> str:
    if mean is None:
        return "-"
    if mean["low"] is None:
        return f"{factor * mean['mean']:.{digits}f}"
    middle, low, high = (f"{factor * mean[key]:.{digits}f}" for key in ("mean", "low", "high"))
    return f"{middle} ({low} to {high})"


def _paired(compared: Sequence[Mapping[str, Any]]) -> str:
    if not compared:
        return ""
    text = [
        "**Each two on the same images** (first less second; p by permutation, after Holm's correction over "
        "the lines of a question)",
        "",
        "| question | first | second | images | difference | p |",
        "|---|---|---|---|---|---|",
    ]
    for one in compared:
        title, _, _ = COLUMNS[one["column"]]
        first, second = (f"{name}, {control}" for name, control in (one["first"], one["second"]))
        cell = f"{one['difference']:.2f} ({one['low']:.2f} to {one['high']:.2f})"
        text.append(f"| {title} | {first} | {second} | {one['images']} | {cell} | {one['p_holm']:.3f} |")
    return "\n".join(text)


def _orders(found: Sequence[Mapping[str, Any]]) -> str:
    if not found:
        return ""
    text = [
        "**Orders of the background beside published ones** (PSNR on PIE-Bench, each by its table; those of "
        "RF-Solver and FireFlow share attention features between source and target, which are controls here)",
        "",
        "| table | control here | published, best first | here | Spearman's rho (95 % interval) |",
        "|---|---|---|---|---|",
    ]
    for one in found:
        rho = f"{one['rho']:.2f} ({one['low']:.2f} to {one['high']:.2f})"
        published, here = (" > ".join(one[key]) for key in ("published", "here"))
        text.append(f"| {one['table']} | {one['control']} | {published} | {here} | {rho} |")
    return "\n".join(text)
