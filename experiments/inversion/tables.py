"""Tables of the inversions' rows, and ranks of methods beside their published ranks."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from p2p_bench.stats import compare_paired, draw_groups, holm, mean_interval

OWN, HIGH = 4.0, 7.5
"""Guidance scales at which methods are ranked: the embedded model's own, and the papers'."""

REMEDIES = (
    ("null_text, decay", "null_text"),
    ("null_text, source", "null_text"),
    ("null_text, decay", "direct"),
    ("null_text, source", "direct"),
)
"""Compared too: null-text held near the empty prompt's embedding, and null-text for the source row alone."""

Row = Mapping[str, Any]

COLUMNS = {
    "recon_image": ("reconstruction, dB to the image", 1.0, 1),
    "recon_vae": ("dB to the VAE's", 1.0, 1),
    "background_error": ("background error x 1e3", 1e3, 2),
    "answer_psnr": ("dB to the exact answer", 1.0, 1),
    "attribute_changed": ("changed %", 100.0, 0),
    "others_kept": ("others kept %", 100.0, 0),
}
"""Column -> title, factor, digits."""

FIDELITY = ("direct", "null_text", "negative_prompt", "ddim")
"""Published order on PIE-Bench, best first: structure distance, PSNR, LPIPS, MSE and SSIM all agree on it."""

EDITABILITY = ("ddim", "direct", "negative_prompt", "null_text")
"""Published order of the CLIP score of the edited part, best first."""


def report(rows: Sequence[Row], methods: Mapping[str, tuple[object, tuple[float, ...]]]) -> str:
    """The tables, over the images that every method has.

    Args:
        rows: One per method, guidance and image.
        methods: Guidance scales by method, in the order of the lines.
    """
    wanted = {(name, scale) for name, (_, scales) in methods.items() for scale in scales}
    seen: dict[str, set[tuple[str, float]]] = {}
    for row in rows:
        seen.setdefault(row["sample"], set()).add((row["method"], row["guidance"]))
    whole = {sample for sample, have in seen.items() if have >= wanted}
    kept = [row for row in rows if row["sample"] in whole]
    if not kept:
        return "No image has been edited with every method yet.\n"
    bound = mean_interval([row["vae_image"] for row in kept], [row["sample"] for row in kept])
    parts = [
        f"{len(whole)} images, {kept[0]['steps']} steps; 95 % intervals from resampling scenes. The VAE "
        f"alone reaches {bound.mean:.1f} dB ({bound.low:.1f} to {bound.high:.1f}). Seconds are CPU time of "
        "one image with its inversion and its edit, in batches of 8."
    ]
    scales = sorted({row["guidance"] for row in kept})
    parts += [
        f"**Guidance {scale:g}**\n\n{table([row for row in kept if row['guidance'] == scale], methods)}"
        for scale in scales
    ]
    parts += [part(kept, scale) for scale in (OWN, HIGH) for part in (ranks, verdicts)]
    return "\n\n".join(parts) + "\n"


def table(rows: Sequence[Row], methods: Iterable[str]) -> str:
    """One line per method."""
    titles = [title for title, _, _ in COLUMNS.values()]
    lines = [
        f"| method | {' | '.join(titles)} | s | UNet rows (backward) |",
        "|---" * (len(titles) + 3) + "|",
    ]
    for name in methods:
        own = [row for row in rows if row["method"] == name]
        if not own:
            continue
        cells = [
            _cell([_number(row[column]) for row in own], factor, digits)
            for column, (_, factor, digits) in COLUMNS.items()
        ]
        means = {
            key: np.mean([row[key] for row in own]) for key in ("seconds", "unet_rows", "unet_rows_backward")
        }
        cost = f"{means['unet_rows']:.0f}" + (
            f" ({means['unet_rows_backward']:.0f})" if means["unet_rows_backward"] else ""
        )
        lines.append(f"| {name} | {' | '.join(cells)} | {means['seconds']:.1f} | {cost} |")
    return "\n".join(lines)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _cell(values: Sequence[float], factor: float, digits: int) -> str:
    mean = mean_interval(values)
    low, middle, high = (f"{factor * value:.{digits}f}" for value in (mean.low, mean.mean, mean.high))
    return f"{middle} ({low} to {high})"


def ranks(rows: Sequence[Row], scale: float) -> str:
    """Rank correlation of four methods here with their published order, over resampled scenes."""
    own = [row for row in rows if row["guidance"] == scale]
    lines = [
        f"**Ranks at guidance {scale:g}**",
        "",
        "| question | published order | order here | Spearman's rho (95 % interval) |",
        "|---|---|---|---|",
    ]
    for question, column, sign, order in (
        ("keeps the background", "background_error", -1.0, FIDELITY),
        ("changes the attribute", "attribute_changed", 1.0, EDITABILITY),
    ):
        values = _by_scene(own, column, order)
        rho = _rho(np.nanmean(values, 0) * sign)
        draws = draw_groups(len(values), 0, 2000)
        low, high = np.percentile([_rho(np.nanmean(values[draw], 0) * sign) for draw in draws], [2.5, 97.5])
        here = _ordered(order, np.nanmean(values, 0) * sign)
        lines.append(f"| {question} | {' > '.join(order)} | {here} | {rho:.2f} ({low:.2f} to {high:.2f}) |")
    return "\n".join(lines)


def _ordered(names: Sequence[str], scores: np.ndarray) -> str:
    """Names from the best score down, with = between equal ones."""
    places = np.argsort(-scores, kind="stable")
    text = names[places[0]]
    for before, place in pairwise(places):
        text += (" = " if scores[before] == scores[place] else " > ") + names[place]
    return text


def _by_scene(rows: Sequence[Row], column: str, methods: Sequence[str]) -> np.ndarray:
    """Values as (scenes, methods), scenes without a value left out."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["method"] in methods and row[column] is not None:
            found.setdefault(row["sample"], {})[row["method"]] = row[column]
    return np.array([[by[method] for method in methods] for by in found.values() if len(by) == len(methods)])


def _rho(scores: np.ndarray) -> float:
    """Spearman's correlation of scores, best first expected, with that order; ties share their rank."""
    better = np.array([[(a > b) + 0.5 * (a == b) for b in scores] for a in scores]).sum(1)
    expected = np.arange(len(scores), 0, -1, dtype=float)
    return 0.0 if better.std() == 0 else float(np.corrcoef(better, expected)[0, 1])


def verdicts(rows: Sequence[Row], scale: float) -> str:
    """Two methods on the same images: does an order hold, and is that sure?

    Holm's correction is over all lines of the table.
    """
    own = [row for row in rows if row["guidance"] == scale]
    compared = [
        (
            first,
            second,
            compare_paired(*(_by_scene(own, "background_error", (first, second)).T * 1e3).tolist()),
        )
        for first, second in (*combinations(FIDELITY, 2), *REMEDIES)
    ]
    corrected = holm([one.p_permutation for _, _, one in compared])
    lines = [
        f"**Each two at guidance {scale:g}, on the same images** (the first should be better: as published, "
        "or as a remedy)",
        "",
        "| first | second | background error x 1e3, first less second | p (permutation, Holm) | the order |",
        "|---|---|---|---|---|",
    ]
    for (first, second, one), p in zip(compared, corrected, strict=True):
        held = "open" if p > 0.05 else "holds" if one.difference.mean < 0 else "is reversed"
        mean = one.difference
        cell = f"{mean.mean:.2f} ({mean.low:.2f} to {mean.high:.2f})"
        lines.append(f"| {first} | {second} | {cell} | {p:.3f} | {held} |")
    return "\n".join(lines)
