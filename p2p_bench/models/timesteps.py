"""Which of its training timesteps a model is asked at in a run of so many steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from p2p_bench.errors import ConfigError, nearest

Spacing = Literal["leading", "trailing", "linspace"]
SPACINGS: tuple[str, ...] = get_args(Spacing)

MOST_TIMESTEPS = 100_000
_LOST = 0.02
"""Largest part of the noise range that leading spacing may leave out at the noisy end."""
_SHOWN = 2


@dataclass(frozen=True)
class TimestepLayout:
    """How a run's timesteps are laid out.

    "leading" is what Prompt-to-Prompt and its successors ran with: whole strides of `train // steps`, from
    `offset` up. 50 steps begin at 981 of 1000. Where steps do not divide `train`, the rest is left out at the
    noisy end: 60 steps begin at 945, 350 at 699 and 501 at 501, from noise that belongs to 999. A count that
    leaves out more than a fiftieth of `train` is refused; no count up to 35 of 1000 does. "trailing" begins
    at the last timestep whatever the count, for few steps too (Lin et al., arXiv 2305.08891, table 2);
    "linspace" includes both ends. Neither is what the papers used.

    Attributes:
        train: Number of training timesteps.
        spacing: The layout.
        offset: Added to the timesteps of the "leading" layout.
    """

    train: int = 1000
    spacing: Spacing = "leading"
    offset: int = 1

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is out of range.
        """
        check_spacing(self.spacing)
        if self.train < 1:
            raise ConfigError(f"training timesteps: expected at least 1, got {self.train}")

    def timesteps(self, steps: int) -> tuple[int, ...]:
        """Timesteps of a run of `steps` steps, noisiest first.

        Raises:
            ConfigError: `steps` is not in 1..train, or leaves out too much of the noise.
        """
        import numpy as np  # late: what is asked before a run needs none of it

        self.check(steps)
        values: np.ndarray
        if self.spacing == "linspace":
            values = np.linspace(0, self.train - 1, steps).round()[::-1]
        elif self.spacing == "trailing":
            # Counted, since floating-point strides may give a value too many.
            values = np.round(self.train - np.arange(steps) * (self.train / steps)) - 1
        else:
            values = (np.arange(steps) * (self.train // steps))[::-1] + self.offset
        return tuple(int(value) for value in values)

    def spaced(self, spacing: Spacing | None) -> "TimestepLayout":
        """The same with other spacing; None keeps its own."""
        return self if spacing is None else replace(self, spacing=spacing)

    def check(self, steps: int) -> None:
        """Refuses a number of steps that this layout cannot serve, in no time whatever the number.

        Raises:
            ConfigError: It is not in 1..train, or leaves out too much of the noise; names the nearest.
        """
        if not 1 <= steps <= self.train:
            raise ConfigError(
                f"steps: expected 1 to {self.train} (the model's training timesteps), got {steps}"
            )
        if not self._serves(steps):
            first = (steps - 1) * (self.train // steps) + self.offset
            raise ConfigError(
                f"steps: with leading spacing {steps} steps begin at timestep {first} of {self.train}, not "
                f"where sampling starts; take {self._nearest(steps)} steps, or another spacing "
                "(sampler.spacing=trailing; spacing='trailing' in Python)"
            )

    def _serves(self, steps: int) -> bool:
        if self.spacing != "leading":
            return True
        reached = (steps - 1) * (self.train // steps) + self.offset
        return reached < self.train and self.train % steps <= _LOST * self.train

    def _nearest(self, steps: int) -> str:
        """The counts that do, nearest to one that does not."""
        good = [count for count in range(1, self.train + 1) if self._serves(count)]
        chosen = sorted(good, key=lambda count: abs(count - steps))[:_SHOWN]
        return " or ".join(map(str, sorted(chosen)))


def layout_from_config(config: Mapping[str, Any], offset: int | None = 1) -> TimestepLayout:
    """The layout of a diffusers `scheduler_config.json`.

    Args:
        config: What it holds.
        offset: The `steps_offset` that the family's pipeline forces; None takes the file's, 0 without one.

    Raises:
        ConfigError: The layout is of a kind this project does not know.
    """
    spacing = known_value(config, "timestep_spacing", "leading", SPACINGS)
    count = config.get("num_train_timesteps", 1000)
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST_TIMESTEPS:
        raise ConfigError(
            f"scheduler_config.json: num_train_timesteps is {count!r}, expected an integer from 1 to "
            f"{MOST_TIMESTEPS}"
        )
    trained = config.get("trained_betas")
    train = len(trained) if isinstance(trained, list) and trained else count
    if offset is None:
        offset = config.get("steps_offset", 0)
        if not isinstance(offset, int) or isinstance(offset, bool) or not 0 <= offset < train:
            raise ConfigError(
                f"scheduler_config.json: steps_offset is {offset!r}, expected an integer from 0 to "
                f"{train - 1}"
            )
    return TimestepLayout(train, spacing, offset)  # type: ignore[arg-type]  # checked against the literals


def known_value(config: Mapping[str, Any], key: str, usual: str, options: Sequence[str]) -> str:
    """A value of a `scheduler_config.json` that has to be one of some.

    Raises:
        ConfigError: It is not.
    """
    value = str(config.get(key, usual))
    if value not in options:
        raise ConfigError(
            f"scheduler_config.json: {key} is {value!r}, expected one of {', '.join(options)}."
            + nearest(value, options)
        )
    return value


def check_spacing(spacing: str) -> None:
    """Raises a `ConfigError` unless this is the name of a layout."""
    if spacing not in SPACINGS:
        raise ConfigError(
            f"sampler.spacing: expected one of {', '.join(SPACINGS)}, or null for the model's own, "
            f"got {spacing!r}.{nearest(str(spacing), SPACINGS)}"
        )
