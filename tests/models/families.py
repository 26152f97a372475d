"""A small checkpoint of every family."""

import functools
from collections.abc import Callable, Mapping

from p2p_bench.models import Checkpoint
from tests.models.small import small_checkpoint
from tests.models.small_flux import small_flux
from tests.models.small_if import small_if
from tests.models.small_sd3 import small_sd3

FAMILIES: Mapping[str, Callable[[], Checkpoint]] = {
    "SD 2.1 (v)": functools.partial(small_checkpoint, "sd2"),
    "SDXL": functools.partial(small_checkpoint, "sdxl"),
    "LDM": functools.partial(small_checkpoint, "ldm"),
    "DeepFloyd IF": small_if,
    "SD 3.5": small_sd3,
    "FLUX.1": small_flux,
}
"""By name; those of Stable Diffusion 1.x go with what those of 2.1 go with."""
