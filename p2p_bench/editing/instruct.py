"""Edits by instruction, as InstructPix2Pix makes them (Brooks et al., arXiv 2211.09800, section 3.2.1).

No attention is controlled and no image inverted: the network is shown the image, and told what to change.

Notation (eq. 3):
    c_I, c_T     image and instruction; a pass without one is told zeros, or the empty prompt
    s_I, s_T     their guidance scales
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.controllers.blend import GIVEN
from p2p_bench.editing import arguments, hooks
from p2p_bench.editing.budget import RowBudget, is_out_of_memory, too_large
from p2p_bench.editing.by_hand import check_settings, checked_requests
from p2p_bench.editing.gather import blank_images, image_error, refused
from p2p_bench.editing.mending import repaired
from p2p_bench.editing.request import EditRequest, noise_fault, raise_all, size_fault
from p2p_bench.editing.result import EditResult
from p2p_bench.editing.run import Progress
from p2p_bench.errors import ConfigError, DataError, NonFiniteLatentError, P2PError
from p2p_bench.models import DiffusionModel, ModelSpec
from p2p_bench.models.conditioning import IMAGE, Conditioning, joined, repeated
from p2p_bench.models.device import free_memory
from p2p_bench.models.level import Level, Prediction
from p2p_bench.models.timesteps import Spacing
from p2p_bench.pinned import with_pinned_settings
from p2p_bench.prompts.words import PromptReader, TokenizedPrompt
from p2p_bench.sampling import DDIM, Replay, StepContext, Stepper, noise_replay
from p2p_bench.sampling.sampler import check_guidance, check_steps

PASSES = 3
"""Rows through the network for an edit at a step: image and instruction, the image alone, neither."""


Scale = float | Float[Tensor, "n 1 1 1"]


def guided(
    full: Float[Tensor, "n c h w"],
    image: Float[Tensor, "n c h w"],
    neither: Float[Tensor, "n c h w"],
    s_T: Scale,
    s_I: Scale,
) -> Float[Tensor, "n c h w"]:
    """Eq. 3.

    Args:
        full: What the network answers to image and instruction.
        image: To the image alone.
        neither: To neither.
        s_T: Guidance scale by the instruction.
        s_I: Guidance scale by the image.
    """
    return neither + s_I * (image - neither) + s_T * (full - image)


def unfit(spec: ModelSpec) -> ConfigError | None:
    """Why a model cannot be edited with by instructions; None if it can."""
    if "instruction" in spec.capabilities:
        return None
    return ConfigError(
        f"editor: model {spec.name!r} of family {spec.family!r} is shown no image and takes no "
        "instruction; set model=instruct_pix2pix, or editor=controlled"
    )


def read_instructions(
    reader: PromptReader, request: EditRequest, has_image: bool, truncate: bool = False
) -> list[TokenizedPrompt]:
    """The instructions of a request, one per target; needs no weights.

    Args:
        reader: Reads prompts.
        request: The request.
        has_image: Whether its source is an image, loaded or not.
        truncate: Cut instructions that are too long instead of refusing them.

    Raises:
        DataError: There is no image, or no instruction, or it is not known which target it leads to.
        PromptError: An instruction cannot be read.
    """
    if not has_image:
        raise DataError(
            "there is no source image, which an edit by instruction starts from; take a data set with images"
        )
    instructions = [target.instruction for target in request.targets]
    if any(one is None or not one.strip() for one in instructions):
        raise DataError(
            "there is no instruction, which is what this editor edits by; take a data set that has them "
            '("instruction" in a JSONL file), such as dataset=pie_bench'
        )
    if not request.targets:
        raise DataError("instructions: expected at least one, got none")
    prompts = {target.prompt for target in request.targets}
    if len(set(instructions)) < len(prompts):
        raise DataError(
            f"there is a single instruction for {len(prompts)} target prompts, so that it is not known which "
            "it leads to; give each target a pair of its own"
        )
    return [reader.tokenize(one or "", truncate, role="instruction") for one in instructions]


@with_pinned_settings
def run_instructions(
    model: DiffusionModel,
    requests: Sequence[EditRequest],
    *,
    image_guidance: float = 1.5,
    steps: int | None = None,
    guidance: float | None = None,
    stepper: Stepper | None = None,
    spacing: Spacing | None = None,
    max_rows: int | RowBudget = 80,
    truncate: bool = False,
    progress: Progress | None = None,
) -> list[EditResult]:
    """Edits images by the instructions of their targets; controllers and inversions are not looked at.

    Args:
        model: A model that is shown images, see "instruction" in `Capability`.
        requests: What to edit; each has an image, its targets have instructions.
        image_guidance: s_I, at least 0.
        steps: Number of denoising steps; None is the model's own.
        guidance: s_T of requests that state none; None is the model's own.
        stepper: Step function; None is DDIM without noise.
        spacing: Layout of the timesteps, see `TimestepLayout`; None is the model's own.
        max_rows: Samples through the network at once, three per edit. Where memory does not suffice it is
            halved, in the `RowBudget` too if it is one.
        truncate: Cut instructions that are too long instead of refusing them.
        progress: Called after each step of a batch.

    Returns:
        A result per request, in order; the source is the image itself. What cannot be made has its error.

    Raises:
        ConfigError: The model is shown no image; `steps`, `spacing` or a scale is out of range; or an
            argument or a field of a request is of another type.
    """
    check_settings(model, steps, guidance, stepper, spacing, max_rows, truncate, progress)
    requests = checked_requests(requests)
    if (fault := unfit(model.spec)) is not None:
        raise fault
    if not 0 <= arguments.number("image_guidance", image_guidance) < float("inf"):
        raise ConfigError(f"image_guidance: expected a finite number of at least 0, got {image_guidance}")
    stepper = stepper or DDIM()
    model = model.laid_out(stepper.levels, spacing)
    steps = model.spec.steps if steps is None else steps
    check_steps(steps)
    ladder = model.ladder(steps)
    edits: list[_Edit] = []
    refusals: dict[int, EditResult] = {}
    for place, request in enumerate(requests):
        try:
            edits += _prepared(model, place, request, guidance, image_guidance, truncate)
        except P2PError as error:
            refusals[place] = refused(model, request, [error])
    budget = max_rows if isinstance(max_rows, RowBudget) else RowBudget(max_rows)
    made = _Run(model, ladder, stepper, progress).all(edits, budget)
    results = []
    for place, request in enumerate(requests):
        own = [one for one in zip(edits, made, strict=True) if one[0].place == place]
        result = refusals[place] if place in refusals else _gathered(model, request, own, steps)
        results.append(result if request.repair is None else repaired(result, request.repair, request.image))
    return results


def _prepared(
    model: DiffusionModel,
    place: int,
    request: EditRequest,
    guidance: float | None,
    image_guidance: float,
    truncate: bool,
) -> "list[_Edit]":
    """The edits of a request.

    Raises:
        P2PError: It cannot be carried out.
    """
    prompts = read_instructions(model, request, request.image is not None, truncate)
    raise_all([one for one in (size_fault(model.spec, request), noise_fault(model.spec, request)) if one])
    scale = model.spec.guidance if guidance is None else guidance
    scale = scale if request.guidance is None else request.guidance
    check_guidance(scale, model.spec)
    return [_Edit(place, request, prompt, (scale, image_guidance)) for prompt in prompts]


@dataclass(frozen=True, eq=False)
class _Edit:
    """One edit of the request at a place, with its instruction and (s_T, s_I)."""

    place: int
    request: EditRequest
    prompt: TokenizedPrompt
    scales: tuple[float, float]


@dataclass(frozen=True, eq=False)
class _Made:
    """What an edit left: final latents, the image, and the source through the VAE and back."""

    latents: Float[Tensor, "c k l"]
    image: Float[Tensor, "3 h w"]
    vae: Float[Tensor, "3 h w"]


@dataclass(frozen=True, eq=False)
class _Run:
    """What all batches of a call share."""

    model: DiffusionModel
    ladder: tuple[Level, ...]
    stepper: Stepper
    progress: Progress | None

    @property
    def steps(self) -> int:
        return len(self.ladder) - 1

    def all(self, edits: Sequence[_Edit], budget: RowBudget) -> list[_Made | P2PError]:
        """Every edit, as many at once as the budget takes, fewer where memory does not suffice."""
        done: list[_Made | P2PError] = []
        taken = 0
        while len(done) < len(edits):
            batch = edits[len(done) :][: max(1, budget.rows // PASSES)]
            batches = -(-(len(edits) - len(done)) // len(batch))
            made = self._batch(batch, taken, taken + batches * self.steps)
            if made is None:
                budget.halve(PASSES * len(batch))
                continue
            taken += self.steps
            done += made
        return done

    def _batch(self, edits: Sequence[_Edit], taken: int, total: int) -> list[_Made | P2PError] | None:
        """A batch; None where memory did not suffice and a smaller one may fit."""
        try:
            return self._sampled(edits, taken, total)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if len(edits) == 1:
                return [too_large(self.model.spec.name, error)]
        # Here the traceback, which holds what had been computed, is gone.
        free_memory(self.model.device)
        return None

    @torch.no_grad()
    def _sampled(self, edits: Sequence[_Edit], taken: int, total: int) -> list[_Made | P2PError]:
        model = self.model
        images = torch.stack([one.request.image for one in edits if one.request.image is not None])
        predict = partial(_predicted, model, _told(model, edits, images), [one.scales for one in edits])
        replays = [noise_replay(model, one.request.seed, self.steps, one.request.noise) for one in edits]
        start = torch.stack([replay.start[0] for replay in replays])
        state = self.stepper.init((start.to(device=model.device, dtype=model.state_dtype),))
        rows = torch.arange(len(edits), device=model.device)
        broken: dict[int, P2PError] = {}
        for step in range(self.steps):
            asked: list[Prediction] = []
            context = StepContext(
                step=step,
                steps=self.steps,
                sources=rows,
                predict=partial(predict, asked=asked),
                noise=_noise(model, replays, step) if self.stepper.stochastic else None,
                before=self.ladder[step - 1] if step else None,
            )
            after = self.stepper.step(state, self.ladder[step], self.ladder[step + 1], context)
            hooks.check_state(self.stepper, step, state, after, asked)
            state = after
            for row in (~state[0].isfinite().flatten(1).all(1)).nonzero().flatten().tolist():
                broken.setdefault(row, NonFiniteLatentError(model.spec.name, edits[row].request.id, step))
            if self.progress is not None:
                self.progress(taken + step + 1, total)
        decoded, restored = (
            model.decode_latents(latents).cpu() for latents in (state[0], model.encode_images(images))
        )
        return [
            broken[row]
            if row in broken
            else image_error(model, one.request.id, decoded[row])
            or _Made(state[0][row], decoded[row], restored[row])
            for row, one in enumerate(edits)
        ]


def _told(model: DiffusionModel, edits: Sequence[_Edit], images: Float[Tensor, "n 3 h w"]) -> Conditioning:
    """What the rows of a batch are told: image and instruction of each, the image of each, neither."""
    image = model.shown(images)
    text = model.encode([one.prompt for one in edits])
    empty = repeated(model.unconditional(), len(edits))
    none = {IMAGE: torch.zeros_like(image[IMAGE])}
    return joined([{**text, **image}, {**empty, **image}, {**empty, **none}])


def _predicted(
    model: DiffusionModel,
    told: Conditioning,
    scales: Sequence[tuple[float, float]],
    x_t: Float[Tensor, "n c h w"],
    level: Level,
    *,
    asked: list[Prediction],
) -> Prediction:
    """What is in the latents of a batch; added to what was asked in this step."""
    inputs = x_t.repeat(PASSES, 1, 1, 1)
    predicted = model.predict(inputs, level, told)
    hooks.check_prediction(model, inputs, predicted)
    full, image, neither = (predicted.rows(at, at + len(x_t)) for at in range(0, len(inputs), len(x_t)))
    by_row = torch.tensor(scales, dtype=x_t.dtype, device=x_t.device).T[..., None, None, None]
    output = guided(full.output, image.output, neither.output, *by_row)
    asked.append(Prediction(full.with_output(output), full, neither))
    return asked[-1]


def _noise(model: DiffusionModel, replays: Sequence[Replay], step: int) -> Float[Tensor, "n c h w"]:
    shape = (model.spec.latent_channels, *model.spec.latent_size)
    drawn = [hooks.noise_of(replay, step, shape) for replay in replays]
    noise = torch.stack([one for one in drawn if one is not None])
    return noise.to(device=model.device, dtype=model.state_dtype)


def _gathered(
    model: DiffusionModel, request: EditRequest, edits: Sequence[tuple[_Edit, _Made | P2PError]], steps: int
) -> EditResult:
    """The result of a request; the source is its image, which is not sampled."""
    assert request.image is not None
    made = [one if isinstance(one, _Made) else None for _, one in edits]
    images, latents = blank_images(model, 1 + len(made), model.state_dtype)
    images[0] = request.image
    for place, one in enumerate(made, start=1):
        if one is not None:
            images[place], latents[place] = one.image, one.latents
    spent = [0 if one is None else PASSES * steps for one in made]
    return EditResult(
        id=request.id,
        images=images,
        latents=latents,
        inversion_rows=0,
        source_rows=0,
        target_rows=tuple(spent),
        target_rows_spent=tuple(map(float, spent)),
        errors=(None, *(one if isinstance(one, P2PError) else None for _, one in edits)),
        vae_reconstruction=next((one.vae for one in made if one is not None), None),
        reconstructions=[None] * len(made),
        known=[_known(edit) for edit, _ in edits],
    )


def _known(edit: _Edit) -> dict[str, str]:
    """What a row says of how an edit was made."""
    known = {"control": f"told {edit.prompt.text!r}, image guidance {edit.scales[1]:g}"}
    if edit.request.repair is not None:
        known["mask_from"] = GIVEN
    if edit.prompt.truncated:
        last = edit.prompt.words[-1].text if edit.prompt.words else ""
        known["notes"] = f"instruction cut after {last!r}"
    return known
