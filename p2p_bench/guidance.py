"""At which steps guidance acts: an interval of the run, as a user writes it; loads no torch.

Kynkäänniemi et al., "Applying guidance in a limited interval improves sample and distribution quality in
diffusion models" (arXiv 2404.07724): at the highest noise levels guidance costs variety, and at the lowest it
does next to nothing.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from p2p_bench.errors import ConfigError
from p2p_bench.fields import Parsed
from p2p_bench.tau import parse_interval, part_of

Interval = tuple[float, float]
"""Parts of the steps, counted from the first, noisiest one, between which guidance acts."""

EVERY_STEP: Interval = (0.0, 1.0)
"""At every step."""


def parse_guidance_interval(value: Any, name: str = "guidance_interval") -> Interval:
    """An interval as given by a user, checked.

    Raises:
        ConfigError: Not two numbers in [0, 1], the second above the first.
    """
    interval = parse_interval(value, name)
    if not isinstance(interval, tuple):
        raise ConfigError(
            f"{name}: expected two numbers, the parts of the steps after which guidance starts and stops, "
            f"got {value!r}"
        )
    if interval[0] == interval[1]:
        raise ConfigError(
            f"{name}: the interval {value!r} is empty; sampler.guidance=1 takes no guidance at all"
        )
    return interval


GuidanceInterval = Annotated[Sequence[float | int], Parsed(parse_guidance_interval)]
"""An interval, as given."""


def guided_steps(interval: Interval, steps: int) -> range:
    """The steps at which guidance acts: from `int(start * steps)` up to `int(stop * steps)`, without that.

    So do the guiders of diffusers count theirs.

    Args:
        interval: Where it starts and stops.
        steps: Number of steps of the run.

    Raises:
        ConfigError: There is no such step.
    """
    first, stop = (part_of(share, steps) for share in interval)
    if first >= stop:
        raise ConfigError(
            f"guidance_interval: none of {steps} steps lies in [{interval[0]:g}, {interval[1]:g}]; widen it, "
            "or take more steps"
        )
    return range(first, stop)
