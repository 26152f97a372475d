"""What the scheduler's file of a model of pixels says: noise levels, and what is done to predicted images."""

from collections.abc import Mapping
from typing import Any

from p2p_bench.errors import ConfigError
from p2p_bench.models.level import Thresholding
from p2p_bench.models.schedule import NoiseSchedule, schedule_from_config


def pixel_schedule(config: Mapping[str, Any]) -> NoiseSchedule:
    """The levels of a `scheduler_config.json` as `DDIMScheduler.from_config` reads it, which forces nothing.

    Raises:
        ConfigError: The schedule is of a kind this project does not know.
    """
    # What is refused for latents is right for pixels, see `thresholding_from_config`.
    pixels = {"thresholding": False, "clip_sample": False}
    return schedule_from_config({"set_alpha_to_one": True, **config, **pixels}, offset=None)


def thresholding_from_config(config: Mapping[str, Any]) -> Thresholding | None:
    """What a `scheduler_config.json` does to predicted images; plain clipping is thresholding at 1.

    Raises:
        ConfigError: A value is out of range.
    """
    if not config.get("thresholding"):
        clipped = config.get("clip_sample", True)
        if clipped and config.get("clip_sample_range", 1.0) != 1.0:
            raise ConfigError("scheduler_config.json: clip_sample_range: expected 1, the range of pixels")
        return Thresholding(1.0, 1.0) if clipped else None
    ratio, most = config.get("dynamic_thresholding_ratio", 0.995), config.get("sample_max_value", 1.0)
    for key, value, low, high in (
        ("dynamic_thresholding_ratio", ratio, 0, 1),
        ("sample_max_value", most, 1, 1e6),
    ):
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigError(
                f"scheduler_config.json: {key} is {value!r}, expected a number from {low} to {high:g}"
            )
    return Thresholding(float(ratio), float(most))
