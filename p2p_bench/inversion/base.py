"""The interface of inversions."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.errors import ConfigError, P2PError
from p2p_bench.guidance import EVERY_STEP, guided_steps, parse_guidance_interval
from p2p_bench.models.conditioning import Conditioning, select
from p2p_bench.models.model import DiffusionModel
from p2p_bench.models.spec import Capability, ModelSpec
from p2p_bench.prompts.words import TokenizedPrompt
from p2p_bench.sampling.ddim import DDIM
from p2p_bench.sampling.replay import Replay
from p2p_bench.sampling.stepper import Stepper

StepProgress = Callable[[], None]
"""Called once after each step of the run's length."""

_WORDS: Mapping[Capability, str] = {
    "unconditional": "passes without the prompt",
    "ladder": "noise levels that a deterministic step can be taken along and back",
    "cross": "cross-attention with a column per token",
    "gradient": "differentiable passes",
    "flow": "velocities of a rectified flow",
    "features": "features of a residual block in the decoder of a U-Net",
    "maps": "cross-attention to the text alone",
    "noise": "a prediction of noise as diffusion models give it",
}


Sampling = Literal["back", "own", "any"]
"""Which samplers a method's replays go with: those whose steps inversions can walk backward ("back"); those
of one step at a time, since the method brings a step of its own ("own"); or any."""


def no_tick() -> None:
    """Nobody wants to see how far things are."""


@dataclass(frozen=True, eq=False)
class Sources:
    """Images to invert and what is known of them, each read, encoded and tokenized once.

    Attributes:
        images: In [0, 1], of the model's size.
        latents: The same as the model's latents.
        prompts: What each image shows.
        conditioning: The same, encoded.
        seeds: Seed of each sample, for methods that draw noise.
    """

    images: Float[Tensor, "n 3 h w"]
    latents: Float[Tensor, "n c k l"]
    prompts: tuple[TokenizedPrompt, ...]
    conditioning: Conditioning
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.prompts)

    def part(self, places: Sequence[int]) -> "Sources":
        """Some of them, by their place."""
        rows = torch.tensor(list(places), dtype=torch.int64)
        latents, text = self.latents, self.conditioning
        on_device = rows.to(latents.device)
        return Sources(
            self.images.index_select(0, rows.to(self.images.device)),
            latents.index_select(0, on_device),
            tuple(self.prompts[place] for place in places),
            select(text, on_device),
            tuple(self.seeds[place] for place in places),
        )


def read_sources(
    model: DiffusionModel,
    images: Float[Tensor, "n 3 h w"],
    prompts: Sequence[str | TokenizedPrompt],
    seeds: Sequence[int] | None = None,
) -> Sources:
    """Encodes images and their prompts.

    Args:
        model: The model.
        images: In [0, 1], of the model's size.
        prompts: What each image shows; may be empty.
        seeds: Seed of each sample; None: 0 for all.

    Raises:
        PromptError: A prompt is longer than the model reads.
    """
    tokenized = tuple(
        model.tokenize(prompt, allow_empty=True) if isinstance(prompt, str) else prompt for prompt in prompts
    )
    return Sources(
        images,
        model.encode_images(images),
        tokenized,
        model.encode(tokenized),
        tuple([0] * len(images) if seeds is None else seeds),
    )


@dataclass(frozen=True)
class Prompts:
    """What the network is told of a source, and of its targets without their prompts.

    Attributes:
        inverted_empty: The source is inverted with the empty prompt, not with its own.
        replayed_empty: It is told nothing while it is sampled again.
        negative: What the targets' passes without a prompt are told; "": nothing.
    """

    inverted_empty: bool = False
    replayed_empty: bool = False
    negative: str = ""


class Inversion(ABC):
    """Finds how a model can sample a given image.

    Implementations are frozen dataclasses: images of requests with equal inversions share a batch. So are
    their replays, of tensors, plain values and other frozen dataclasses, so that a cache can keep them.

    Attributes:
        needs: What it asks of a model.
        sampling: Which samplers may follow it.
        own_eta: With steps of its own: values of DDIM's eta that say nothing else than these steps.
        own_scale: Setting that holds the targets' guidance scale in place of the request's; "" for none.
    """

    needs: ClassVar[frozenset[Capability]] = frozenset({"ladder"})
    sampling: ClassVar[Sampling] = "back"
    own_eta: ClassVar[tuple[float, ...]] = (0.0,)
    own_scale: ClassVar[str] = ""

    @property
    def draws_noise(self) -> bool:
        """Whether a replay depends on the sample's seed."""
        return False

    @property
    def prompts(self) -> Prompts:
        """What the network is told; by default the source prompt, whatever it is asked for."""
        return Prompts()

    @property
    def scales_every_step(self) -> bool:
        """Whether the guidance of every step is its own, so that no interval of the run's applies."""
        return bool(self.own_scale) and getattr(self, self.own_scale) is not None

    def for_guidance(self, guidance: float) -> "Inversion":
        """This method for requests sampled at a guidance scale: itself, unless it depends on that."""
        return self

    def for_model(self, spec: ModelSpec) -> "Inversion":
        """This method for a model: itself, unless the model settles something that was left open."""
        return self

    def steps_taken(self, steps: int) -> int:
        """Of a run's steps, those that are taken again from what the method finds."""
        return steps

    def files(self) -> tuple[Path, ...]:
        """Weights that it reads besides the model's, looked for and not loaded; what decides its results.

        Raises:
            MissingWeightsError: One is not there; names it, where it was looked for and how to get it.
            ConfigError: Its settings name none.
        """
        return ()

    def refusal(self, spec: ModelSpec, steps: int) -> str:
        """Why a run of so many steps on a model that has what the method needs cannot be; "" if it can."""
        return ""

    @abstractmethod
    def invert(
        self, model: DiffusionModel, sources: Sources, steps: int, tick: StepProgress = no_tick
    ) -> Sequence[Replay]:
        """Inverts images.

        Args:
            model: The model that will sample them again.
            sources: The images, and what is known of them.
            steps: Number of denoising steps of the run.
            tick: Called after each of `steps` steps.

        Returns:
            One replay per image.
        """


def unserved(inversion: Inversion, spec: ModelSpec, steps: int | None = None) -> ConfigError | None:
    """Why a method cannot serve a model, or a run of so many steps on it; None if it can."""
    lacking = sorted(inversion.needs - spec.capabilities)
    if not lacking:
        refusal = _guides(inversion, spec)
        if steps is not None:
            refusal = refusal or inversion.refusal(spec, steps)
        return ConfigError(f"inversion: {refusal}") if refusal else None
    needed = " and ".join(_WORDS[name] for name in lacking)
    return ConfigError(
        f"inversion: {type(inversion).__name__} needs {needed}, which model {spec.name!r} of family "
        f"{spec.family!r} does not have; take another inversion, or another model"
    )


def _guides(inversion: Inversion, spec: ModelSpec) -> str:
    """Which guidance of its own a method asks for that does not act on a model, or on targets; "" if none."""
    name = inversion.own_scale
    if spec.guided_by == "passes" and name and getattr(inversion, name) == 0:
        return f"{name}=0 leaves the target prompts out; inversion.{name}=1 samples without guidance"
    if spec.guided_by != "nothing" or not is_dataclass(inversion):
        return ""
    own = {field.name: getattr(inversion, field.name) for field in fields(inversion)}
    scales = {name: value for name, value in own.items() if name.endswith("guidance")}
    asked = [name for name, value in scales.items() if isinstance(value, int | float) and value != 1]
    if not asked:
        return ""
    return (
        f"{type(inversion).__name__} asks for guidance, which model {spec.name!r} was distilled without; set "
        + " and ".join(f"inversion.{name}=1" for name in asked)
    )


def not_found(inversion: Inversion) -> P2PError | None:
    """What is wrong with the weights that a method reads besides the model's; None if nothing is."""
    try:
        inversion.files()
    except P2PError as error:
        return type(error)(f"inversion: {error}")
    return None


def not_sampled(inversion: Inversion, stepper: Stepper) -> ConfigError | None:
    """Why a sampler cannot follow a method; None if it can."""
    name = type(inversion).__name__
    if inversion.sampling == "back" and not stepper.leads_back:
        return ConfigError(
            f"inversion: {name} walks DDIM's steps without noise backward, and {stepper} takes others; set "
            "sampler=ddim with sampler.eta=0 or sampler=euler, or take inversion=noising or none"
        )
    if inversion.sampling == "own" and not isinstance(stepper, DDIM):
        return ConfigError(
            f"inversion: {name} takes steps of its own instead of those of {stepper}; set sampler=ddim, or "
            "take inversion=noising or none"
        )
    if inversion.sampling == "own" and isinstance(stepper, DDIM) and stepper.eta not in inversion.own_eta:
        return ConfigError(
            f"inversion: {name} takes steps of its own, which know no sampler.eta={stepper.eta:g}; set "
            "sampler.eta=0 (and no ancestral sampler), or take another inversion"
        )
    return None


def steps_guided(
    spec: ModelSpec, steps: int, interval: Sequence[float | int] | None, inversion: Inversion | None = None
) -> range:
    """The steps at which the guidance of a run acts; at the others it is 1.

    Args:
        spec: Facts about the model.
        steps: Number of steps.
        interval: That of the run; None: the model's own, which methods that scale every step are spared.
        inversion: The method, if there is one.

    Raises:
        ConfigError: An interval is asked for that leaves no step, on a model whose guidance is no second
            pass, or with a method that scales every step.
    """
    scaled = inversion is not None and inversion.scales_every_step
    if interval is None:
        applies = spec.guided_by == "passes" and not scaled
        return guided_steps(spec.guidance_interval if applies else EVERY_STEP, steps)
    parsed = parse_guidance_interval(interval, "sampler.guidance_interval")
    if parsed == EVERY_STEP:
        return range(steps)
    if spec.guided_by != "passes":
        raise ConfigError(
            f"sampler.guidance_interval: model {spec.name!r} takes no pass without the prompt that "
            "could be left out; set sampler.guidance_interval=null"
        )
    if scaled:
        raise ConfigError(
            f"sampler.guidance_interval: {type(inversion).__name__} is made for one guidance scale at "
            "every step; set sampler.guidance_interval=null, or take another inversion"
        )
    return guided_steps(parsed, steps)


def no_step_left(inversion: Inversion, steps: int) -> ConfigError | None:
    """Why a method leaves no edit of a run of so many steps; None if it leaves one."""
    if inversion.steps_taken(steps) > 0:
        return None
    return ConfigError(
        f"inversion: {inversion} takes none of the {steps} steps, so that every edit is the image itself; "
        "take more steps, a higher strength or a lower skip"
    )


def misfits(inversion: Inversion, spec: ModelSpec, steps: int | None, stepper: Stepper) -> list[P2PError]:
    """All that keeps a method from a model, a sampler and so many steps, or for want of its own weights.

    Args:
        inversion: The method.
        spec: Of the model.
        steps: Number of steps; None where it is not known.
        stepper: Of the sampler.
    """
    faults = [unserved(inversion, spec, steps), not_sampled(inversion, stepper), not_found(inversion)]
    left = None if steps is None else no_step_left(inversion, steps)
    return [fault for fault in (*faults, left) if fault is not None]


def tick_all(tick: StepProgress, count: int) -> None:
    """Reports steps that a method does not take."""
    for _ in range(count):
        tick()


def every(count: int, tick: StepProgress) -> StepProgress:
    """Passes every `count`-th call on."""
    calls = itertools.count(1)
    return lambda: tick() if next(calls) % count == 0 else None
