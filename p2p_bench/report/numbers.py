"""Numbers as the pages' JSON has them."""

import math

from p2p_bench.stats import Mean


def finite(value: float) -> float | None:
    """A number for the page's JSON, which has six digits there and no NaN: None stands for it."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def mean_json(mean: Mean) -> list[float | int | None]:
    """A mean as the page has it: mean, count, low, high."""
    return [finite(mean.mean), mean.count, finite(mean.low), finite(mean.high)]
