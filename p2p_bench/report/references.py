"""What to hold an edit against: doing nothing, ignoring the source, and the best the VAE allows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from p2p_bench.report.columns import Column
from p2p_bench.report.entries import Entry
from p2p_bench.stats import Mean, mean_interval

_BOUND = "vae_psnr"

_NO_EDIT = {
    "mse": 0.0,
    "mse_outside": 0.0,
    "background_error": 0.0,
    "lpips": 0.0,
    "ssim": 1.0,
    "psnr": math.inf,
    "psnr_outside": math.inf,
    "others_kept": 1.0,
    "attribute_changed": 0.0,
}
"""Scores of the untouched source that follow from what the metric means, for the metric's plain name.
Without any error a PSNR has no finite value; without any change a direction has none at all."""

_BOUNDED = ("psnr", "psnr_outside", "recon_psnr")
"""Fidelities that the VAE's own error limits and that are told in the unit of its bound."""


@dataclass(frozen=True)
class References:
    """Reference rows of a report.

    Attributes:
        no_edit: Score of the source copied, by column; a column without an entry has to be measured.
        vae_bound: PSNR of the real source images through the VAE alone, over samples; None without one.
        bounded: Columns beside which the bound is shown.
    """

    no_edit: dict[str, float]
    vae_bound: Mean | None
    bounded: tuple[str, ...]


def references(entries: Sequence[Entry], columns: Sequence[Column]) -> References:
    """The references of some entries."""
    plain = {column.name: column.name.partition("@")[0] for column in columns}
    bounds: dict[str, float] = {}
    for entry in entries:
        for column in columns:
            if plain[column.name] == _BOUND:
                bounds.update((sample, value) for (sample, _), value in entry.values(column.name).items())
    return References(
        no_edit={name: _NO_EDIT[known] for name, known in plain.items() if known in _NO_EDIT},
        vae_bound=mean_interval(list(bounds.values())) if bounds else None,
        bounded=tuple(name for name, known in plain.items() if known in _BOUNDED),
    )
