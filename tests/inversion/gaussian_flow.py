"""A rectified flow between Gaussians, whose velocity and whose paths are known in closed form."""

import dataclasses
import functools
from typing import Any

import torch
from torch import Tensor

from p2p_bench.attention.plan import StepPlan
from p2p_bench.models.conditioning import TEXT, Conditioning, select
from p2p_bench.models.level import Denoised, Level, Prediction
from p2p_bench.sampling import StepContext, Stepper
from tests.stubs.flow_family import FlowCheckpoint, FlowModel

PROMPTS = {"a red circle on grass": (1.0, 0.5), "a blue circle on grass": (-0.7, 0.5), "": (0.2, 0.9)}
"""Mean and spread of the images of a prompt."""


def velocity(x: Tensor, sigma: float, mean: Tensor | float, spread: Tensor | float) -> Tensor:
    """E[epsilon - x_0 | x_sigma = x]."""
    alpha = 1 - sigma
    gain = (sigma - alpha * spread**2) / (alpha**2 * spread**2 + sigma**2)
    return gain * (x - alpha * mean) - mean


def path(x: Tensor, here: float, there: float, mean: float, spread: float) -> Tensor:
    """Where the ODE leads from x at one sigma to another."""

    def width(sigma: float) -> float:
        return float(((1 - sigma) ** 2 * spread**2 + sigma**2) ** 0.5)

    return (1 - there) * mean + width(there) / width(here) * (x - (1 - here) * mean)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class GaussianFlow(FlowModel):
    """The stub family with another network: it is told mean and spread."""

    def ladder(self, steps: int) -> tuple[Level, ...]:
        sigmas = [1 - step / steps for step in range(steps + 1)]
        return tuple(Level(1000 * sigma, 1 - sigma, sigma) for sigma in sigmas)

    def encode_one(self, prompt: Any) -> Conditioning:
        return {TEXT: torch.tensor([PROMPTS[prompt.text]], dtype=torch.float64)[:, None]}

    def predict(
        self, latents: Tensor, level: Level, conditioning: Conditioning, plan: StepPlan | None = None
    ) -> Denoised:
        mean, spread = (one[:, :, None, None] for one in conditioning[TEXT][:, 0].split(1, 1))
        assert 0 <= level.sigma <= 1
        assert abs(level.timestep - 1000 * level.sigma) < 1e-9
        return Denoised(latents, level, velocity(latents, level.sigma, mean, spread), "flow")


@functools.cache
def gaussian_flow() -> GaussianFlow:
    plain = FlowCheckpoint().load()
    fields = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
    return GaussianFlow(**{**fields, "encoded": type(plain.encoded)()})


def sampled(
    stepper: Stepper,
    state: tuple[Tensor, ...],
    steps: int,
    prompts: list[str],
    sources: list[int] | None = None,
    first: int = 0,
    noises: list[Tensor] | None = None,
) -> tuple[Tensor, int]:
    """Rows, one per prompt, taken to the image by a stepper; and how often the network was asked."""
    model = gaussian_flow()
    conditioning = model.encode([model.tokenize(prompt, allow_empty=True) for prompt in prompts])
    asked = 0

    def predict(x: Tensor, level: Level) -> Prediction:
        nonlocal asked
        asked += 1
        found = model.predict(x, level, conditioning)
        return Prediction(found, found, found)

    ladder, state = model.ladder(steps), stepper.init(state)
    places = torch.tensor(sources or list(range(len(prompts))))
    targets = (places != torch.arange(len(prompts))).nonzero().flatten()

    def predict_as_sources(x: Tensor, level: Level) -> Denoised:
        nonlocal asked
        asked += 1
        return model.predict(x[targets], level, select(conditioning, places[targets]))

    for step in range(first, steps):
        noise = None if noises is None else noises[step]
        context = StepContext(step, steps, places, predict, noise, predict_as_sources=predict_as_sources)
        state = stepper.step(state, ladder[step], ladder[step + 1], context)
    return state[0], asked
