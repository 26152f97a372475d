"""RF-Inversion (Rout et al., arXiv 2410.10792): a flow that is drawn to a noise and, sampled, to the image.

Notation:
    sigma            share of noise of a level; x_sigma = (1 - sigma) x_0 + sigma epsilon
    v                velocity dx / dsigma, which the network predicts
    y_0, y_1         the image, and a noise of the sample's seed
    gamma, eta       how far the way there and the way back are drawn to their goals (eq. 8 and 15)

The paper's reference code asks the network at levels that are not shifted and steps between levels that are;
here both are the run's levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.errors import ConfigError
from p2p_bench.fields import Between, check_fields
from p2p_bench.inversion.base import Inversion, Sources, StepProgress, no_tick
from p2p_bench.inversion.ddim import guided
from p2p_bench.inversion.flow_ode import backward
from p2p_bench.models.conditioning import repeated
from p2p_bench.models.level import Level
from p2p_bench.models.model import DiffusionModel
from p2p_bench.models.spec import Capability
from p2p_bench.sampling.noise import initial_noise
from p2p_bench.sampling.replay import Replay
from p2p_bench.sampling.stepper import RowState, StepContext, Stepper
from p2p_bench.tau import part_of


@dataclass(frozen=True)
class RFInversionStepper(Stepper):
    """Euler's step, drawn to the image at some steps; its state is the latents and the image.

    Attributes:
        eta: How far it is drawn, in [0, 1]; 1 leads straight to the image.
        start: First step at which it is.
        stop: Step after the last.
    """

    eta: float
    start: int
    stop: int

    def step(self, state: RowState, here: Level, there: Level, context: StepContext) -> RowState:
        """See `Stepper.step`."""
        x, y_0 = state
        v = context.predict(x, here).velocity
        if self.start <= context.step < self.stop:
            v = v + self.eta * ((x - y_0) / here.sigma - v)
        return x + (there.sigma - here.sigma) * v, y_0


@dataclass(frozen=True, eq=False)
class RFInversionReplay(Replay):
    """Sampling from where the inversion ended, drawn to the image.

    Attributes:
        latents: Start latents.
        image: The image's latents.
        drawn: The step function.
        rows: UNet rows spent.
    """

    latents: Float[Tensor, "c h w"]
    image: Float[Tensor, "c h w"]
    drawn: RFInversionStepper
    rows: int

    @property
    def start(self) -> tuple[Float[Tensor, "c h w"], ...]:
        """Start latents, and the image that every row is drawn to."""
        return self.latents, self.image

    @property
    def unet_rows(self) -> int:
        """UNet rows of the inversion."""
        return self.rows

    def stepper(self) -> Stepper:
        """The drawn step."""
        return self.drawn


@dataclass(frozen=True)
class RFInversion(Inversion):
    """Controlled ODEs there and back; the image is kept by being drawn to, not by the start alone.

    Both ways are of first order, but the pull to the noise grows without bound as it nears: with gamma in
    (0, 1) the way there is of order gamma (measured on a flow with a closed form). With gamma = 1 and with
    eta = 1 to the end the goals are reached exactly.

    Attributes:
        gamma: How far the way to the noise is drawn to a noise of the sample's seed, in [0, 1].
        eta: How far the way to the image is drawn to the image, in [0, 1]. The paper's examples take 0.9.
        start: Share of the steps before that begins.
        stop: Share of the steps after which it ends; the paper's is 7 of 28.
    """

    needs: ClassVar[frozenset[Capability]] = frozenset({"ladder", "flow"})
    gamma: Annotated[float, Between(0, 1)] = 0.5
    eta: Annotated[float, Between(0, 1)] = 0.9
    start: Annotated[float, Between(0, 1)] = 0.0
    stop: Annotated[float, Between(0, 1)] = 0.25

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is out of range.
        """
        check_fields(self, "inversion.")
        if self.start > self.stop:
            raise ConfigError(
                f"inversion: start={self.start:g} comes after stop={self.stop:g}; swap them, or raise stop"
            )

    @property
    def draws_noise(self) -> bool:
        """Where it is drawn to a noise."""
        return self.gamma > 0

    @torch.no_grad()
    def invert(
        self, model: DiffusionModel, sources: Sources, steps: int, tick: StepProgress = no_tick
    ) -> Sequence[Replay]:
        """See `Inversion.invert`. The way there is told the empty prompt and no guidance, as published."""
        told = model.spec.guided_by == "input"
        x = sources.latents
        shape = (x.shape[1], x.shape[2], x.shape[3])
        y_1 = torch.stack([initial_noise(seed, shape) for seed in sources.seeds]).to(x)
        empty = repeated(model.encode([model.tokenize("", allow_empty=True)]), len(x))
        for here, there in backward(model, steps):
            v = guided(model, x, here, empty, 0.0 if told else 1.0).velocity
            v = v + self.gamma * ((y_1 - x) / (1 - here.sigma) - v)
            x = x + (there.sigma - here.sigma) * v
            tick()
        drawn = RFInversionStepper(self.eta, part_of(self.start, steps), part_of(self.stop, steps))
        return [
            RFInversionReplay(start, image, drawn, steps)
            for start, image in zip(x, sources.latents, strict=True)
        ]
