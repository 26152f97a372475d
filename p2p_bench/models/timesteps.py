"""Which of its training timesteps a model is asked at in a run of so many steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from p2p_bench.errors import ConfigError, nearest

Spacing = Literal["leading", "trailing", "linspace"]
SPACINGS: tuple[str, ...] = get_args(Spacing)

LevelKind = Literal["ddim", "euler", "multistep", "karras", "consistency", "flow"]
"""Whose levels a run takes: DDIM's, which end where the checkpoint's own schedule does; or those of another
sampler of diffusers, which end at the clean image: Euler, DPM-Solver multistep, the same by Karras's rule
(arXiv 2206.00364, eq. 5), a latent consistency model. "flow" are those that a rectified flow has of its own,
and no diffusion."""
KINDS: tuple[str, ...] = get_args(LevelKind)

MOST_TIMESTEPS = 100_000
CONSISTENCY_STEPS = 50
"""Steps of the sampler that latent consistency models are distilled from, where their file does not say
another number (`original_inference_steps`); theirs are some of these."""
_LOST = 0.02
"""Largest part of the noise range that leading spacing may leave out at the noisy end."""
_LOST_MULTISTEP = 0.05
"""The same where the layout is DPM-Solver's, whose usual 50 steps begin at 951 of 1000."""
_SHOWN = 2
_OWN: Mapping[LevelKind, Spacing] = {"euler": "linspace", "multistep": "linspace"}
"""What a scheduler of diffusers takes where nobody says a spacing, "leading" where it is not here: it is the
default of the class that samples, also where `from_config` makes it of another one's file."""


@dataclass(frozen=True)
class TimestepLayout:
    """How a run's timesteps are laid out.

    "leading" is what Prompt-to-Prompt and its successors ran with: whole strides of `train // steps`, from
    `offset` up. 50 steps begin at 981 of 1000. Where steps do not divide `train`, the rest is left out at the
    noisy end: 60 steps begin at 945, 350 at 699 and 501 at 501, from noise that belongs to 999. A count that
    leaves out more than a fiftieth of `train` is refused; no count up to 35 of 1000 does. "trailing" begins
    at the last timestep whatever the count, for few steps too (Lin et al., arXiv 2305.08891, table 2);
    "linspace" includes both ends. Neither is what the papers used. A step ends at the level where the next
    begins. diffusers' `DDIMScheduler` goes `train // steps` timesteps on instead, which is another level with
    "linspace", and with "trailing" where steps do not divide `train`: images differ from its there.

    DPM-Solver lays out one timestep more and leaves the cleanest out. A latent consistency model takes every
    so many-th of the timesteps that it was distilled on, and Karras's levels are no timesteps of the
    schedule: neither asks for a spacing.

    Attributes:
        train: Number of training timesteps.
        spacing: The layout; None, where nobody says one: that of the sampler whose levels they are, see
            `spaced`.
        offset: Added to the timesteps of the "leading" layout.
        kind: Whose levels they are.
        distilled: Number of timesteps that a latent consistency model was distilled on.
    """

    train: int = 1000
    spacing: Spacing | None = "leading"
    offset: int = 1
    kind: LevelKind = "ddim"
    distilled: int = CONSISTENCY_STEPS

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is out of range.
        """
        if self.spacing is not None:
            check_spacing(self.spacing)
        if self.train < 1:
            raise ConfigError(f"training timesteps: expected at least 1, got {self.train}")

    def timesteps(self, steps: int) -> tuple[float, ...]:
        """Timesteps of a run of `steps` steps, noisiest first; whole numbers but for Euler's "linspace".

        Raises:
            ConfigError: `steps` is not in 1..train, or leaves out too much of the noise; or the levels are
                Karras's, which are no timesteps.
        """
        import numpy as np  # late: what is asked before a run needs none of it

        self.check(steps)
        if self.kind == "karras":
            raise ConfigError("timesteps: Karras's levels lie between them; ask for the ladder")
        count = steps + (self.kind == "multistep")
        values: np.ndarray
        if self.kind == "consistency":
            known = np.arange(self.distilled, 0, -1) * (self.train // self.distilled) - 1
            values = known[np.floor(np.linspace(0, len(known), steps, endpoint=False)).astype(int)]
        elif self.spaced == "linspace":
            values = np.linspace(0, self.train - 1, count)[::-1][:steps]
            values = values if self.kind == "euler" else values.round()
        elif self.spaced == "trailing":
            # Counted, since floating-point strides may give a value too many.
            values = np.round(self.train - np.arange(steps) * (self.train / steps)) - 1
        else:
            values = (np.arange(count) * (self.train // count))[::-1][:steps] + self.offset
        return tuple(map(float, values))

    def laid_out(self, kind: LevelKind, spacing: Spacing | None = None) -> "TimestepLayout":
        """The same with the levels of another sampler, and other spacing unless that is None."""
        return replace(self, kind=kind, spacing=self.spacing if spacing is None else spacing)

    @property
    def spaced(self) -> Spacing:
        """The layout that is taken: where none is said, the default of the sampler's class in diffusers."""
        return self.spacing or _OWN.get(self.kind, "leading")

    @property
    def most(self) -> int:
        """The most steps there can be."""
        return {"multistep": self.train - 1, "consistency": self.distilled}.get(self.kind, self.train)

    def check(self, steps: int) -> None:
        """Refuses a number of steps that this layout cannot serve, in no time whatever the number.

        Raises:
            ConfigError: It is not in 1..train, or leaves out too much of the noise; names the nearest.
        """
        if not 1 <= steps <= self.most:
            whose = "the model's training timesteps" if self.most == self.train else "the sampler's most"
            raise ConfigError(f"steps: expected 1 to {self.most} ({whose}), got {steps}")
        if self.kind == "consistency" and self.train < self.distilled:
            raise ConfigError(
                f"sampler: latent consistency takes some of {self.distilled} timesteps, but the model was "
                f"trained on {self.train}; take another sampler"
            )
        if not self._serves(steps):
            raise ConfigError(
                f"steps: with leading spacing {steps} steps begin at timestep {self._reached(steps)} of "
                f"{self.train}, not where sampling starts; take {self._nearest(steps)} steps, or another "
                "spacing (sampler.spacing=trailing; spacing='trailing' in Python)"
            )

    def _reached(self, steps: int) -> int:
        """The first timestep of leading spacing."""
        more = self.kind == "multistep"
        return (steps - 1 + more) * (self.train // (steps + more)) + self.offset

    def _serves(self, steps: int) -> bool:
        if self.spaced != "leading" or self.kind in ("karras", "consistency"):
            return True
        more = self.kind == "multistep"
        lost = (_LOST_MULTISTEP if more else _LOST) * self.train
        return self._reached(steps) < self.train and self.train % (steps + more) <= lost

    def _nearest(self, steps: int) -> str:
        """The counts that do, nearest to one that does not."""
        good = [count for count in range(1, self.most + 1) if self._serves(count)]
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
    said = "timestep_spacing" in config
    spacing = known_value(config, "timestep_spacing", "leading", SPACINGS) if said else None
    count = _whole(config, "num_train_timesteps", 1000, 1, MOST_TIMESTEPS)
    trained = config.get("trained_betas")
    train = len(trained) if isinstance(trained, list) and trained else count
    if offset is None:
        offset = _whole(config, "steps_offset", 0, 0, train - 1)
    distilled = _whole(config, "original_inference_steps", CONSISTENCY_STEPS, 1, MOST_TIMESTEPS)
    return TimestepLayout(train, spacing, offset, distilled=distilled)  # type: ignore[arg-type]  # checked against the literals


def _whole(config: Mapping[str, Any], key: str, usual: int, low: int, high: int) -> int:
    value = config.get(key, usual)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(
            f"scheduler_config.json: {key} is {value!r}, expected an integer from {low} to {high}"
        )
    return value


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
