"""How a run samples: the settings of the `sampler` group."""

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal

from p2p_bench.errors import ConfigError
from p2p_bench.fields import AtLeast, Between, check_fields
from p2p_bench.guidance import GuidanceInterval
from p2p_bench.models.spec import ModelSpec
from p2p_bench.models.timesteps import Spacing
from p2p_bench.sampling.consistency import Consistency
from p2p_bench.sampling.ddim import DDIM
from p2p_bench.sampling.dpm_solver import DPMSolver
from p2p_bench.sampling.flow_solvers import Heun, Midpoint
from p2p_bench.sampling.stepper import Stepper

log = logging.getLogger(__name__)

ROWS = 80
"""Samples through the network at once where nobody says."""


@dataclass(frozen=True)
class Sampler(ABC):
    """Settings of a run's sampler, whichever it is.

    Attributes:
        steps: Number of denoising steps; None is the model's own.
        guidance: Guidance scale; None is the model's own.
        spacing: How the timesteps are laid out: "leading", "trailing" or "linspace", see `TimestepLayout`;
            None is the model's own, or where its files say none, that of the sampler in diffusers.
        max_rows: Samples through the network at once, conditional and unconditional counted apart. The
            default holds a 6 x 6 grid of taus with its source. "auto": as many as memory takes, found by
            trying and remembered for the model, the device and the number format.
        guidance_interval: Parts of the steps, from the first on, between which guidance acts, such as
            (0.15, 1); at the others it is 1, which takes no unconditional pass. None is the model's own, all
            steps as a rule.
    """

    steps: Annotated[int | None, AtLeast(1)] = None
    guidance: Annotated[float | None, AtLeast(0)] = None
    spacing: Spacing | None = None
    max_rows: Annotated[int | Literal["auto"], AtLeast(1)] = ROWS
    guidance_interval: GuidanceInterval | None = None

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is out of range.
        """
        check_fields(self, "sampler.")
        self.check()

    def check(self) -> None:  # noqa: B027  # most have nothing to add
        """Refuses values that do not go together."""

    @property
    def rows(self) -> int:
        """`max_rows`, or what "auto" is for those who plan without a device."""
        return ROWS if self.max_rows == "auto" else self.max_rows

    @abstractmethod
    def stepper(self) -> Stepper:
        """The step function."""

    def steps_on(self, spec: ModelSpec) -> int:
        """The number of steps on a model.

        Raises:
            ConfigError: The layout of the timesteps cannot serve so many, or the model has not the noise
                levels of this sampler.
        """
        steps = spec.steps if self.steps is None else self.steps
        spec.laid_out(self.stepper().levels, self.spacing).timesteps.check(steps)
        return steps


@dataclass(frozen=True)
class DDIMSampler(Sampler):
    """Settings of a run that samples with DDIM.

    Attributes:
        eta: Share of DDPM's noise that is added, in [0, 1].
    """

    eta: Annotated[float, Between(0, 1)] = 0.0

    def stepper(self) -> DDIM:
        """See `Sampler.stepper`."""
        return DDIM(self.eta)


@dataclass(frozen=True)
class EulerSampler(Sampler):
    """Settings of a run that samples with Euler's method, as Stable Diffusion XL was published with.

    Attributes:
        ancestral: Each step adds noise, as Stable Diffusion XL Turbo was published with.
    """

    ancestral: bool = False

    def stepper(self) -> DDIM:
        """DDIM's step, on levels that end at the clean image."""
        return DDIM(float(self.ancestral), "euler")


@dataclass(frozen=True)
class DPMSolverSampler(Sampler):
    """Settings of a run that samples with DPM-Solver++ 2M.

    Attributes:
        sde: The stochastic form.
        karras: Levels by Karras's rule, which no spacing is asked for.
    """

    sde: bool = False
    karras: bool = False

    def check(self) -> None:
        """See `Sampler.check`."""
        if self.karras and self.spacing is not None:
            raise ConfigError(
                "sampler.spacing: Karras's levels are laid out by their own rule; set sampler.spacing=null"
            )

    def stepper(self) -> DPMSolver:
        """See `Sampler.stepper`."""
        return DPMSolver(self.sde, self.karras)


@dataclass(frozen=True)
class FlowSampler(Sampler):
    """Settings of a run of a rectified flow in steps of second order, two passes each.

    Attributes:
        rule: "heun", as diffusers has it, or "midpoint".
    """

    rule: Literal["heun", "midpoint"] = "heun"

    def stepper(self) -> Stepper:
        """See `Sampler.stepper`."""
        return Heun() if self.rule == "heun" else Midpoint()


@dataclass(frozen=True)
class LCMSampler(Sampler):
    """Settings of a run of a model that was distilled for latent consistency, in 1 to 8 steps as a rule."""

    def check(self) -> None:
        """See `Sampler.check`."""
        if self.spacing is not None:
            raise ConfigError(
                "sampler.spacing: a latent consistency model has timesteps of its own; set "
                "sampler.spacing=null"
            )

    def stepper(self) -> Consistency:
        """See `Sampler.stepper`."""
        return Consistency()


def check_steps(steps: int) -> None:
    """Raises a `ConfigError` unless there is at least one step."""
    if steps < 1:
        raise ConfigError(f"steps: expected at least 1, got {steps}")


def warn_of_steps(sampler: Sampler, spec: ModelSpec) -> None:
    """Warns of steps that are not those that a checkpoint asks for.

    A network that was distilled for latent consistency may be sampled in other steps, and the file of a
    scheduler may ask for levels that a sampler of its kind does not take here. DDIM has none but those of the
    betas.

    Args:
        sampler: Settings of the run.
        spec: Facts about the model.
    """
    levels, name = sampler.stepper().levels, type(sampler).__name__
    if spec.consistency and levels != "consistency":
        log.warning(
            "model %r was distilled for the few steps of latent consistency, and %s takes others, whose "
            "pictures may be poor: sampler=lcm",
            spec.name,
            name,
        )
    if spec.consistency is None and levels == "consistency":
        log.warning(
            "model %r: nothing says that its LoRA was distilled for latent consistency, as %s has it: "
            'an LCM-LoRA is known by "lcm" in the name of its file or folder, or in its title. If it is one, '
            "model.consistency=true says so; if it is none, pictures are poor",
            spec.name,
            name,
        )
    asked = [one for one in spec.level_options if (one, levels) != ("use_karras_sigmas", "karras")]
    if asked and levels in ("euler", "multistep", "karras"):
        hint = "; sampler.karras=true does" if levels == "multistep" and "use_karras_sigmas" in asked else ""
        log.warning(
            "model %r: its scheduler_config.json asks for %s, which %s does not follow%s",
            spec.name,
            ", ".join(asked),
            name,
            hint,
        )


def check_guidance(guidance: float, spec: ModelSpec) -> None:
    """Raises a `ConfigError` unless the guidance is a finite number of at least 0 that acts on the model.

    0 is for models that are told it: where guidance is made of two passes, it would leave out the prompt.
    """
    if not 0 <= guidance < float("inf"):
        raise ConfigError(f"guidance: expected a finite number of at least 0, got {guidance}")
    if guidance == 0 and spec.guided_by == "passes":
        raise ConfigError(
            "guidance: 0 leaves the prompts out, every image would be that of none; 1 samples without "
            "guidance (where other tools may write 0)"
        )
    if spec.guided_by == "nothing" and guidance != 1:
        raise ConfigError(
            f"guidance: model {spec.name!r} was distilled without and has no input for it; set "
            f"sampler.guidance=1, or model.true_cfg=true for passes without the prompt, got {guidance:g}"
        )
