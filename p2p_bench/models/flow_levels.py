"""Noise levels of rectified flows, those of diffusers' `FlowMatchEulerDiscreteScheduler`.

Notation:
    sigma            share of noise, so that x_t = (1 - sigma) x_0 + sigma epsilon
    s                static shift (Esser et al., arXiv 2403.03206, eq. 23): s sigma / (1 + (s - 1) sigma)
    mu               dynamic shift, which grows with the number of image tokens: s = exp(mu)

Loads no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp
from typing import Any

from p2p_bench.errors import ConfigError
from p2p_bench.models.timesteps import MOST_TIMESTEPS, LevelKind, Spacing

_REFUSED = (
    "invert_sigmas", "shift_terminal", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas",
    "stochastic_sampling", "use_flow_sigmas",
)  # fmt: skip
"""Settings of the scheduler that no model of the families here has; none may be on."""


@dataclass(frozen=True)
class DynamicShift:
    """A shift that grows with the image: linear in the number of its tokens between two of them.

    Attributes:
        tokens: Few tokens and many.
        mu: The shift's logarithm at each.
    """

    tokens: tuple[int, int] = (256, 4096)
    mu: tuple[float, float] = (0.5, 1.15)

    def at(self, count: int) -> float:
        """`mu` of an image of so many tokens."""
        slope = (self.mu[1] - self.mu[0]) / (self.tokens[1] - self.tokens[0])
        return slope * count + self.mu[0] - slope * self.tokens[0]


@dataclass(frozen=True)
class FlowLayout:
    """How the levels of a run are laid out.

    The ladder is f of equal steps, with f the shift. In Stable Diffusion 3 they go from 1 down to the
    smallest level of training, which a static shift has shifted already: it acts twice there, as in
    diffusers. In FLUX they go from 1 down to 1 / steps.

    Attributes:
        train: Number of training timesteps; the network is told sigma times this.
        shift: The static shift s; 1 is none.
        mu: The dynamic shift in its place; None: the shift is static.
        from_one: Whether the equal steps go down to 1 / steps, as in FLUX.
    """

    train: int = 1000
    shift: float = 1.0
    mu: float | None = None
    from_one: bool = False

    def check(self, steps: int) -> None:
        """Refuses a number of steps that is out of range, in no time whatever the number.

        Raises:
            ConfigError: It is not in 1..train.
        """
        if not 1 <= steps <= self.train:
            raise ConfigError(
                f"steps: expected 1 to {self.train} (the model's training timesteps), got {steps}"
            )

    def laid_out(self, kind: LevelKind, spacing: Spacing | None = None) -> "FlowLayout":
        """The same, since there is no other layout: Euler's step along it is DDIM's.

        Raises:
            ConfigError: A spacing is asked for.
        """
        if spacing is not None:
            raise ConfigError(
                f"sampler.spacing: a flow model has noise levels of its own and no {spacing!r} spacing; "
                "leave it at null"
            )
        return self

    def sigmas(self, steps: int) -> tuple[float, ...]:
        """The levels of a run of `steps` steps, noisiest first, without the clean end; of single precision.

        Raises:
            ConfigError: See `check`.
        """
        import numpy as np  # late: what is asked before a run needs none of it

        self.check(steps)
        if self.from_one:
            # The pipeline hands them over, and the scheduler takes them in single precision.
            equal: Any = np.linspace(1.0, 1 / steps, steps).astype(np.float32)
        else:
            least = 1 / self.train if self.mu is not None else self._shifted(1 / self.train)
            equal = np.linspace(self.train, least * self.train, steps) / self.train
        return tuple(float(sigma) for sigma in np.asarray(self._shifted(equal), np.float32))

    def _shifted(self, sigma: Any) -> Any:
        if self.mu is not None:
            return exp(self.mu) / (exp(self.mu) + (1 / sigma - 1))
        return self.shift * sigma / (1 + (self.shift - 1) * sigma)


def flow_layout(config: Mapping[str, Any], tokens: int, from_one: bool = False) -> FlowLayout:
    """The layout of a diffusers `scheduler_config.json` of a flow model.

    Args:
        config: What it holds.
        tokens: Image tokens of the model, for a dynamic shift.
        from_one: See `FlowLayout`.

    Raises:
        ConfigError: The schedule is of a kind this project does not know.
    """
    kind = config.get("_class_name", "FlowMatchEulerDiscreteScheduler")
    if kind != "FlowMatchEulerDiscreteScheduler":
        raise ConfigError(
            f"scheduler_config.json: _class_name is {kind!r}, expected FlowMatchEulerDiscreteScheduler"
        )
    for key in _REFUSED:
        if config.get(key):
            raise ConfigError(f"scheduler_config.json: {key} is on, which is not known here; set it to null")
    if config.get("time_shift_type", "exponential") != "exponential":
        raise ConfigError("scheduler_config.json: time_shift_type: expected exponential")
    train = config.get("num_train_timesteps", 1000)
    if not isinstance(train, int) or isinstance(train, bool) or not 1 <= train <= MOST_TIMESTEPS:
        raise ConfigError(
            f"scheduler_config.json: num_train_timesteps is {train!r}, expected an integer from 1 to "
            f"{MOST_TIMESTEPS}"
        )
    if config.get("use_dynamic_shifting"):
        few, many = _number(config, "base_image_seq_len", 256.0), _number(config, "max_image_seq_len", 4096.0)
        if few >= many or few % 1 or many % 1:
            raise ConfigError(
                "scheduler_config.json: base_image_seq_len: expected a whole number less than "
                f"max_image_seq_len, another, got {few:g} and {many:g}"
            )
        mu = _number(config, "base_shift", 0.5), _number(config, "max_shift", 1.15)
        return FlowLayout(train, mu=DynamicShift((int(few), int(many)), mu).at(tokens), from_one=from_one)
    return FlowLayout(train, _number(config, "shift", 1.0), from_one=from_one)


def _number(config: Mapping[str, Any], key: str, usual: float) -> float:
    value = config.get(key)
    value = usual if value is None else value
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e6:
        raise ConfigError(f"scheduler_config.json: {key} is {value!r}, expected a number above 0")
    return float(value)
