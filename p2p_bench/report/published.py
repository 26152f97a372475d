"""Published means on PIE-Bench, and how far a run is from them.

The figures are of the table that is named: the same method differs between papers. Those of certainty
"transcribed" come from public notes and were not checked against the paper; "unverified" ones are in doubt.
They are for the columns of `metrics=pie_parity` alone, whose quirks are those of the released evaluator.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from p2p_bench.report.columns import number
from p2p_bench.report.entries import Entry
from p2p_bench.report.numbers import finite
from p2p_bench.report.protocols import (
    INSTRUCTED,
    INVERSIONS,
    PROTOCOLS,
    Protocol,
    is_instructed,
    is_protocol,
    is_setting,
)
from p2p_bench.report.templates import asset

FULL = 700
"""Images of PIE-Bench."""

CANARY = ("pie_clip_source", 26.07, 0.05)
"""CLIP of the source images, which no method changes; its value, of one public thread, and tolerance."""


@dataclass(frozen=True)
class Figure:
    """A column of the published tables.

    Attributes:
        key: Its name in the file of figures.
        column: Column of a run.
        factor: What papers multiply the column with.
        tolerance: In the papers' unit: how far a rerun may be; see `relative`.
        relative: Whether the tolerance is a share of the published value.
    """

    key: str
    column: str
    factor: int
    tolerance: float
    relative: bool = False


FIGURES = (
    Figure("structure", "pie_structure", 1_000, 0.039, relative=True),
    Figure("psnr", "pie_psnr", 1, 0.30),
    Figure("lpips", "pie_lpips", 1_000, 0.036, relative=True),
    Figure("mse", "pie_mse", 10_000, 0.061, relative=True),
    Figure("ssim", "pie_ssim", 100, 0.18),
    Figure("clip_whole", "pie_clip_whole", 1, 0.05),
    Figure("clip_edited", "pie_clip_edited", 1, 0.05),
)
"""Tolerances are the largest differences of an outside rerun (ViMAEdit's, two methods) from the table."""

RULES = (
    "Brackets are removed from prompts; masks have the border that the released evaluator adds",
    "An image whose mask is full has no value outside it, and an edit that cannot be made none at all: both "
    "are left out of means and counted, none is a 0",
    "Edited images go through the JPEG of the released code; Stable Diffusion 1.4 in float32, 50 steps, "
    "guidance 7.5, seed 1234, cross 0.4, self 0.6",
    "MasaCtrl: the source is told nothing, there and back; both passes of the target, from step 4, layer 10",
    "Plug-and-play: Stable Diffusion 1.5; the source is told nothing on the way back, targets a negative "
    "prompt; with DDIM its features are those of the reconstruction, a step ahead, as released",
    "pix2pix-zero: the levels and shifts of the released inversion; the source prompt stands for the caption "
    "that BLIP writes there, and the mean of the VAE's posterior for a sample of it",
    "StyleDiffusion: OpenAI's ViT-B/16 as image encoder, in float32; targets' values are mapped in half of "
    "the steps; no blend word and no weight; cross 0.6, replaced where prompts have equally many letters",
    "InstructPix2Pix: 50 steps of Euler's ancestral sampler, guidance 7.5 by instruction, 1.5 by the image",
    "Tolerances: the largest differences of an outside rerun of two methods from this table",
)


@dataclass(frozen=True)
class Published:
    """A row of a published table.

    Attributes:
        method: Its name there.
        table: Where it was published.
        masks: Whether the method is given the masks that outside means are taken by, or draws its own.
        certainty: "published", "transcribed" or "unverified".
        inversion: The option here that it corresponds to; "" for none.
        controller: Likewise.
        values: Means by column of a run, in the column's own unit.
    """

    method: str
    table: str
    masks: bool
    certainty: str
    inversion: str
    controller: str
    values: Mapping[str, float]


@lru_cache
def published_rows() -> tuple[Published, ...]:
    """All rows, in the order of the file."""
    return tuple(_row(line) for line in csv.DictReader(io.StringIO(asset("published/pie_bench.csv"))))


def protocol_of(row: Published) -> Protocol:
    """How a row of the published table was made; one that a run can be."""
    return PROTOCOLS.get(row.method) or Protocol(INVERSIONS[row.inversion])


def published_json(entries: Sequence[Entry]) -> dict[str, Any] | None:
    """What the page shows of published tables; None where no run has their columns.

    Args:
        entries: The variants of all runs.
    """
    columns = [figure.column for figure in FIGURES]
    if not any(entry.values(column) for entry in entries for column in columns):
        return None
    rows = published_rows()
    return {
        "figures": [[one.column, one.factor, one.tolerance, one.relative] for one in FIGURES],
        "rules": list(RULES),
        "rows": [
            {
                "method": row.method,
                "table": row.table,
                "masks": row.masks,
                "certainty": row.certainty,
                "values": row.values,
                **(_verdict(row, entries) if row.controller else {}),
            }
            for row in rows
        ],
        "canary": [_canary(i, entry) for i, entry in enumerate(entries) if entry.values(CANARY[0])],
        "canaryValue": list(CANARY[1:]),
    }


def _row(line: Mapping[str, str]) -> Published:
    values = {one.column: float(line[one.key]) / one.factor for one in FIGURES if line[one.key]}
    return Published(
        line["method"], line["table"], line["masks"] == "yes", line["certainty"], line["inversion"],
        line["controller"], values,
    )  # fmt: skip


def _verdict(row: Published, entries: Sequence[Entry]) -> dict[str, Any]:
    """The run of a published row beside it: reproduced, off by how much, or not run and why."""
    its = [i for i, entry in enumerate(entries) if _is_run_of(row, entry)]
    found = max(its, key=lambda i: len(entries[i].rows), default=None)
    if found is None:
        return {"run": None, "verdict": "not run", "why": "no run here has its settings"}
    entry = entries[found]
    means = {one.column: _mean(entry, one.column) for one in FIGURES}
    done, failed = len(entry.rows), sum(one["status"] != "ok" for one in entry.rows.values())
    facts = {
        "run": found,
        "edits": done - failed,
        "means": {key: list(value) for key, value in means.items()},
    }
    if done < FULL:
        return {**facts, "verdict": "partly run", "why": f"{done} of {FULL} images, so there is no verdict"}
    off = [
        _off(one, row.values[one.column], means[one.column][0]) for one in FIGURES if one.column in row.values
    ]
    lacking = [one.column for one in FIGURES if one.column in row.values and means[one.column][0] is None]
    if lacking:
        return {**facts, "verdict": "partly run", "why": f"no value of {', '.join(lacking)}"}
    worst = [text for text in off if text]
    why = f"{failed} of {done} edits failed and are left out" if failed else ""
    return {**facts, "verdict": f"off by {'; '.join(worst)}" if worst else "reproduced", "why": why}


def _is_run_of(row: Published, entry: Entry) -> bool:
    rows = list(entry.rows.values())
    settings = entry.run.summary.get("settings") or {}
    if not rows or not row.controller:
        return False
    if row.controller == INSTRUCTED:
        return is_instructed(settings, rows)
    protocol = protocol_of(row)
    if not is_setting(settings, protocol):
        return False
    wanted = row.controller, row.inversion
    return all(is_protocol(one, protocol) and (one["controller"], one["inversion"]) == wanted for one in rows)


def _off(figure: Figure, published: float, mean: float | None) -> str:
    """By how much a mean is off, in the papers' unit; "" within the tolerance."""
    if mean is None:
        return ""
    difference = (mean - published) * figure.factor
    limit = figure.tolerance * (abs(published) * figure.factor if figure.relative else 1)
    return "" if abs(difference) <= limit + 1e-9 else f"{difference:+.3g} in {figure.key}"


def _mean(entry: Entry, column: str) -> tuple[float | None, int]:
    values = list(entry.values(column).values())
    return (math.fsum(values) / len(values) if values else None, len(values))


def _canary(number_: int, entry: Entry) -> dict[str, Any]:
    """CLIP of the source images of a run; where it is off, weights, prompts or pictures are others."""
    mean, count = _mean(entry, CANARY[0])
    whole = count >= FULL
    good = mean is not None and abs(mean - CANARY[1]) <= CANARY[2]
    verdict = ("agrees" if good else "off") if whole else "no verdict"
    return {"run": number_, "mean": finite(number(mean)), "count": count, "verdict": verdict}
