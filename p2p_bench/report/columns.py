"""The numbers a report shows: metrics and costs, their names, units and directions."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_MAIN = (
    "attribute_changed",
    "clip_direction",
    "clip_target",
    "others_kept",
    "psnr_outside",
    "lpips",
    "answer_psnr",
    "ssim",
)
"""Metrics a reader wants first, in this order; the rest follow as the run lists them."""

_MAIN_COUNT = 6

_WORDS = {
    "clip": "CLIP",
    "lpips": "LPIPS",
    "psnr": "PSNR",
    "ssim": "SSIM",
    "mse": "MSE",
    "vae": "VAE",
    "recon": "reconstruction",
    "unet": "UNet",
}


@dataclass(frozen=True)
class Column:
    """One numeric column of the rows.

    Attributes:
        name: Name in the rows.
        short: Name for narrow places.
        title: Name for readers.
        higher_is_better: None where neither direction is better.
        role: "fidelity" (keeps), "editability" (changes), "other" or "cost".
        unit: Empty for a plain number.
        version: Version of the metric; None for costs.
        backbone: Network behind the metric, such as "world"; empty where there is none.
        note: What a reader should know of the values; empty for nothing.
        weights: Checksum of the files behind it; empty where there are none, or the run did not note it.
    """

    name: str
    short: str
    title: str
    higher_is_better: bool | None
    role: str
    unit: str = ""
    version: str | None = None
    backbone: str = ""
    note: str = ""
    weights: str = ""

    @property
    def arrow(self) -> str:
        """The better direction as an arrow, or the empty string."""
        return {True: "↑", False: "↓", None: ""}[self.higher_is_better]


COSTS = (
    Column("seconds", "time", "time", False, "cost", "s"),
    Column("unet_rows", "UNet rows alone", "UNet rows alone", False, "cost"),
    Column("unet_rows_spent", "UNet rows spent", "UNet rows spent", False, "cost"),
    Column("peak_memory_mb", "peak memory", "peak memory", False, "cost", "MB"),
)
"""What an edit costs; columns of every run."""

BACKWARD = Column("unet_rows_backward", "UNet rows backward", "UNet rows backward", False, "cost")
"""Rows through the network backward: zero but for inversions that optimise."""


def metric_columns(metrics: Mapping[str, Mapping[str, Any]]) -> tuple[Column, ...]:
    """The metric columns of a run, from the `metrics` entry of its summary."""
    return tuple(_metric_column(name, facts) for name, facts in metrics.items())


def _metric_column(name: str, facts: Mapping[str, Any]) -> Column:
    backbone = str(facts.get("backbone") or "")
    version = facts.get("version")
    short = " ".join(_WORDS.get(word, word) for word in name.split("_"))
    return Column(
        name=name,
        short=short,
        title=str(facts.get("label") or short).removesuffix(f" ({backbone})"),
        higher_is_better=facts.get("higher_is_better"),
        role=str(facts.get("role") or "other"),
        unit=str(facts.get("unit") or ""),
        version=None if version is None else str(version),
        backbone=backbone,
        note=str(facts.get("note") or ""),
        weights=str(facts.get("weights") or "")[:12],
    )


def column_notes(columns: Iterable[Column]) -> tuple[tuple[str, str], ...]:
    """Each note on some columns, behind the titles of the columns it is about."""
    titles: dict[str, list[str]] = {}
    for column in columns:
        if column.note:
            titles.setdefault(column.note, []).append(column.title)
    return tuple((", ".join(found), note) for note, found in titles.items())


def main_metrics(names: Iterable[str]) -> tuple[str, ...]:
    """At most six of `names` to show first: the well-known ones, then the others in their order."""
    given = list(names)
    known = [name for name in _MAIN if name in given]
    return tuple((known + [name for name in given if name not in known])[:_MAIN_COUNT])


def number(value: Any) -> float:
    """A number of a row or a summary as a float; an absent one is NaN."""
    return math.nan if value is None else float(value)


def metric_counts(summary: Mapping[str, Any]) -> dict[str, int]:
    """Number of defined values per metric of a summary, over all variants."""
    variants = summary["variants"].values()
    return {
        name: sum(variant["metrics"].get(name, {}).get("count", 0) for variant in variants)
        for name in summary["metrics"]
    }
