"""What is asked of the editor, and the checks that need no network."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from jaxtyping import Float
from torch import Tensor

from p2p_bench.attention.sites import Site
from p2p_bench.controllers import BoundController, Controller, EditContext, NoControl
from p2p_bench.controllers.binding import bind_edit
from p2p_bench.editing.masks import check_blend
from p2p_bench.editing.repair import Repair
from p2p_bench.editing.suited import check_features, check_maps, check_untold, told_faults
from p2p_bench.errors import ConfigError, DataError, ErrorList, P2PError
from p2p_bench.inversion import Inversion
from p2p_bench.inversion.base import Prompts, misfits, steps_guided
from p2p_bench.models import ModelSpec
from p2p_bench.models.spec import GuidedBy
from p2p_bench.prompts.words import PromptReader, TokenizedPrompt
from p2p_bench.sampling import DDIM, Stepper
from p2p_bench.sampling.sampler import check_guidance


@dataclass(frozen=True)
class Target:
    """One edit of a source.

    Attributes:
        prompt: Describes the edited image.
        controller: How the source's attention is used.
        variant: What whoever asks calls this way to edit; for editors that look edits up.
        index: Which of the source's target prompts it is, likewise.
        instruction: The edit as an order, for editors that take one; None where nobody gave it.
    """

    prompt: str
    controller: Controller = field(default_factory=NoControl)
    variant: str = ""
    index: int = 0
    instruction: str | None = None


@dataclass(frozen=True, eq=False)
class EditRequest:
    """One source and its edits. The source is sampled once, whatever the number of targets.

    The source starts from `noise`, else from the noise of `seed`, unless there is an image and an inversion.

    Attributes:
        id: Names the request in errors.
        source_prompt: Describes the source image.
        targets: At least one, unless the source is wanted alone; they may belong to different variants.
        seed: Seed of the sample.
        noise: Start noise instead of the seed's.
        image: Real source image in [0, 1], of the model's size.
        inversion: Turns `image` into a start; goes with `image`.
        guidance: Guidance scale; None takes that of the run.
        inversion_prompt: What the image is inverted with, where that is not the source prompt.
        repair: Puts the source back into the edited images outside a mask.
        alone: The source is all that is wanted: plain generation, without targets.
    """

    id: str
    source_prompt: str
    targets: tuple[Target, ...]
    seed: int = 0
    noise: Float[Tensor, "c h w"] | None = None
    image: Float[Tensor, "3 y x"] | None = None
    inversion: Inversion | None = None
    guidance: float | None = None
    inversion_prompt: str | None = None
    repair: Repair | None = None
    alone: bool = False

    @property
    def prompts(self) -> tuple[str, ...]:
        """The source's prompt, then the targets'."""
        return (self.source_prompt, *(target.prompt for target in self.targets))


@dataclass(frozen=True, eq=False)
class PreparedRequest:
    """A request with its prompts tokenized and its controllers bound: what all that comes after reads.

    Attributes:
        request: The request.
        prompts: Source first; where a target's prompt could not be read, its text alone.
        controllers: One per target; an error where the prompt cannot be read or does not suit the controller.
        guidance: Guidance scale.
        guided: The steps at which it acts; at the others it is 1.
        inversion_prompt: What an image is inverted with.
        guided_by: How its guidance acts on the model.
        told: What the source is told while it is sampled; None: its prompt.
        negative: What its targets' passes without the prompt are told; None: nothing.
    """

    request: EditRequest
    prompts: tuple[TokenizedPrompt, ...]
    controllers: tuple[BoundController | P2PError, ...]
    guidance: float
    guided: range
    inversion_prompt: TokenizedPrompt
    guided_by: GuidedBy = "passes"
    told: TokenizedPrompt | None = None
    negative: TokenizedPrompt | None = None

    @property
    def passes(self) -> int:
        """Rows through the network for one row of the request, at most.

        Guidance 1 needs no unconditional half, unless an inversion says otherwise, nor does guidance that is
        an input of the network, or none at all.
        """
        unguided = self.guidance == 1 and self.request.inversion is None
        return 1 if unguided or self.guided_by != "passes" else 2

    def rows_of(self, start: int, stop: int) -> int:
        """Rows through the network for one row of the request in steps `start` to `stop`, at most."""
        guided = len(range(max(start, self.guided.start), min(stop, self.guided.stop)))
        return stop - start + (self.passes - 1) * guided

    @property
    def faults(self) -> list[P2PError]:
        """What is wrong with targets."""
        return [made for made in self.controllers if isinstance(made, P2PError)]


def prepare(
    reader: PromptReader,
    spec: ModelSpec,
    request: EditRequest,
    steps: int,
    guidance: float | None = None,
    truncate: bool = False,
    sites: Sequence[Site] | None = None,
    stepper: Stepper | None = None,
    interval: Sequence[float | int] | None = None,
) -> PreparedRequest:
    """The one place that tokenizes and binds; it needs no weights.

    Args:
        reader: Reads prompts: the model, or what its checkpoint gives without loading it.
        spec: Facts about the model.
        request: The request.
        steps: Number of denoising steps.
        guidance: Guidance scale of the run; None is the model's own.
        truncate: Cut prompts that are too long instead of refusing them.
        sites: Attention sites of the model, for what blends ask of them; None where it is not loaded.
        stepper: The step function of the run; None is DDIM without noise.
        interval: Between which parts of the steps guidance acts; None is the model's own.

    Returns:
        The request; a target that cannot be edited has an error and leaves the others.

    Raises:
        P2PError: No part of the request can be carried out; all faults found are listed.
    """
    run_scale = spec.guidance if guidance is None else guidance
    scale = run_scale if request.guidance is None else request.guidance
    faults = _start_faults(spec, request, steps, stepper or DDIM())
    guided = range(steps)
    try:
        check_guidance(scale, spec)
        guided = steps_guided(spec, steps, interval, request.inversion)
    except P2PError as error:
        faults.append(error)
    if not request.targets and not request.alone:
        faults.append(P2PError("targets: expected at least one target prompt, got none"))
    if request.targets and request.alone:
        faults.append(P2PError("targets: a source that is wanted alone has none; leave them out, or alone"))
    read = partial(_read, reader, truncate)
    source = read(request.source_prompt, "source prompt")
    prompts = Prompts() if request.inversion is None else request.inversion.prompts
    faults += told_faults(spec, prompts, scale, request.inversion_prompt)
    own = "" if prompts.inverted_empty else request.inversion_prompt
    inverted_with = source if own is None else read(own, "inversion_prompt", allow_empty=True)
    told = read("", "source prompt", allow_empty=True) if prompts.replayed_empty else None
    negative = read(prompts.negative, "inversion.negative_prompt") if prompts.negative else None
    targets = [read(target.prompt, "target prompt") for target in request.targets]
    broken = [one for one in (source, inverted_with, told, negative) if isinstance(one, P2PError)]
    hopeless = [one for one in targets if isinstance(one, P2PError)]
    if faults or broken or (targets and len(hopeless) == len(targets)):
        raise_all([*faults, *broken, *hopeless])
    assert isinstance(source, TokenizedPrompt)
    assert isinstance(inverted_with, TokenizedPrompt)
    assert not isinstance(told, P2PError)
    assert not isinstance(negative, P2PError)
    bind = partial(_bound, spec, sites, told is not None)
    controllers = [
        target
        if isinstance(target, P2PError)
        else bind(asked.controller, EditContext(source, target, steps, spec.self_fraction))
        for asked, target in zip(request.targets, targets, strict=True)
    ]
    if request.inversion is not None:
        request = replace(request, inversion=request.inversion.for_guidance(scale))
    read_targets = [
        TokenizedPrompt(asked.prompt, (), 0, ()) if isinstance(target, P2PError) else target
        for asked, target in zip(request.targets, targets, strict=True)
    ]
    read_as, made = (source, *read_targets), tuple(controllers)
    return PreparedRequest(
        request, read_as, made, scale, guided, inverted_with, spec.guided_by, told, negative
    )


def _read(
    reader: PromptReader, truncate: bool, text: str, role: str, allow_empty: bool = False
) -> TokenizedPrompt | P2PError:
    try:
        return reader.tokenize(text, truncate, allow_empty, role)
    except P2PError as error:
        return error


def raise_all(faults: Sequence[P2PError]) -> None:
    """Raises what there is to raise: the one error, or several as a list, equal messages once."""
    distinct = list({str(fault): fault for fault in faults}.values())
    if distinct:
        raise distinct[0] if len(distinct) == 1 else ErrorList(distinct)


def _bound(
    spec: ModelSpec,
    sites: Sequence[Site] | None,
    untold: bool,
    controller: Controller,
    context: EditContext,
) -> BoundController | P2PError:
    try:
        bound = bind_edit(controller, context)
        if bound.blend is not None:
            check_blend(spec, sites, bound.blend)
        check_features(spec, bound, context.steps)
        check_maps(spec, bound, context.steps)
        if untold:
            check_untold(bound, context.steps)
        return bound
    except P2PError as error:
        return error


def size_fault(spec: ModelSpec, request: EditRequest) -> DataError | None:
    """Why the image of a request is not one of a model; None if it is, or there is none."""
    image = request.image
    if image is None:
        return None
    if image.ndim != 3 or len(image) != 3 or not image.is_floating_point():
        return DataError(
            f"image: expected a float tensor (3, h, w), got {image.dtype} {tuple(image.shape)}; "
            "p2p_bench.edit takes others, and paths"
        )
    height, width = image.shape[-2:]
    if (height, width) != spec.image_size:
        return DataError(
            f"image: {width} x {height} pixels, but model {spec.name!r} works at {spec.image_size[1]} x "
            f"{spec.image_size[0]}; resize it, or give a PIL image or a path, which are cropped and resized"
        )
    low, high = (float(value) for value in image.aminmax())
    if not (low >= 0 and high <= 1):  # nor where it is NaN
        return DataError(f"image: expected values in [0, 1], got {low:g} to {high:g}")
    return None


def noise_fault(spec: ModelSpec, request: EditRequest) -> P2PError | None:
    """Why the noise of a request is not one of a model; None if it is, or there is none."""
    shape, noise = (spec.latent_channels, *spec.latent_size), request.noise
    if noise is None:
        return None
    if tuple(noise.shape) != shape or not noise.is_floating_point():
        kind = "" if noise.is_floating_point() else f"{noise.dtype} "
        return P2PError(
            f"noise: expected the latent shape {shape} of model {spec.name!r}, got {kind}{tuple(noise.shape)}"
        )
    return None


def told_otherwise(spec: ModelSpec) -> ConfigError | None:
    """Why prompts alone edit nothing with a model; None if they do."""
    if "instruction" not in spec.capabilities:
        return None
    return ConfigError(
        f"model {spec.name!r} edits an image by an instruction, not by a pair of prompts under attention "
        "control; set editor=instruct controller=none inversion=none (p2p_bench.instruct in Python)"
    )


def _start_faults(spec: ModelSpec, request: EditRequest, steps: int, stepper: Stepper) -> list[P2PError]:
    if (other := told_otherwise(spec)) is not None:
        return [other]
    faults: list[P2PError] = []
    if request.inversion is not None and request.image is None:
        faults.append(P2PError("inversion: no image to invert; give an image, or leave the inversion out"))
    elif request.inversion is not None:
        faults += misfits(request.inversion, spec, steps, stepper)
    if request.inversion_prompt is not None and request.image is None:
        faults.append(P2PError("inversion_prompt: no image to invert; give an image, or leave it out"))
    if request.image is not None and request.inversion is None:
        faults.append(P2PError("image: expected an inversion with it, such as DDIMInversion(), got None"))
    faults += filter(None, [size_fault(spec, request)])
    if request.image is not None and request.noise is not None:
        faults.append(P2PError("noise: a source image brings its own start; give the image or the noise"))
    faults += filter(None, [noise_fault(spec, request)])
    return faults
