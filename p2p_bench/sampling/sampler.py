"""How a run samples: the settings of the `sampler` group."""

from dataclasses import dataclass
from typing import Annotated

from p2p_bench.errors import ConfigError
from p2p_bench.fields import AtLeast, Between, check_fields
from p2p_bench.models.spec import ModelSpec
from p2p_bench.models.timesteps import Spacing
from p2p_bench.sampling.ddim import DDIM


@dataclass(frozen=True)
class DDIMSampler:
    """Settings of a run that samples with DDIM.

    Attributes:
        steps: Number of denoising steps; None is the model's own.
        guidance: Guidance scale; None is the model's own.
        eta: Share of DDPM's noise that is added, in [0, 1].
        spacing: How the timesteps are laid out: "leading", "trailing" or "linspace", see `TimestepLayout`;
            None is the model's own, "leading" as a rule.
        max_rows: Samples through the network at once, conditional and unconditional counted apart. The
            default holds a 6 x 6 grid of taus with its source.
    """

    steps: Annotated[int | None, AtLeast(1)] = None
    guidance: Annotated[float | None, AtLeast(0)] = None
    eta: Annotated[float, Between(0, 1)] = 0.0
    spacing: Spacing | None = None
    max_rows: Annotated[int, AtLeast(1)] = 80

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is out of range.
        """
        check_fields(self, "sampler.")

    def stepper(self) -> DDIM:
        """The step function."""
        return DDIM(self.eta)

    def steps_on(self, spec: ModelSpec) -> int:
        """The number of steps on a model.

        Raises:
            ConfigError: The layout of the timesteps cannot serve so many.
        """
        steps = spec.steps if self.steps is None else self.steps
        spec.spaced(self.spacing).timesteps.check(steps)
        return steps


def check_steps(steps: int) -> None:
    """Raises a `ConfigError` unless there is at least one step."""
    if steps < 1:
        raise ConfigError(f"steps: expected at least 1, got {steps}")


def check_guidance(guidance: float, spec: ModelSpec) -> None:
    """Raises a `ConfigError` unless the guidance is a finite number of at least 0 that acts on the model."""
    if not 0 <= guidance < float("inf"):
        raise ConfigError(f"guidance: expected a finite number of at least 0, got {guidance}")
    if spec.guided_by == "nothing" and guidance != 1:
        raise ConfigError(
            f"guidance: model {spec.name!r} was distilled without and has no input for it; set "
            f"sampler.guidance=1, or model.true_cfg=true for passes without the prompt, got {guidance:g}"
        )
