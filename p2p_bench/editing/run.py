"""Runs requests in batches: inversion, sampling, decoding."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.cache import Cache
from p2p_bench.editing.attention import Record, check_record, kept_maps
from p2p_bench.editing.loop import Sampled, sample_rows
from p2p_bench.editing.request import EditRequest, PreparedRequest, prepare
from p2p_bench.editing.result import EditResult
from p2p_bench.editing.rows import RowTable, Sample, row_tables
from p2p_bench.errors import ConfigError, P2PError
from p2p_bench.inversion.recall import Made, invert_or_recall
from p2p_bench.models import DiffusionModel
from p2p_bench.sampling import DDIM, NoiseReplay, Stepper, initial_noise
from p2p_bench.sampling.sampler import check_guidance, check_steps

Progress = Callable[[int, int], None]
"""Called with the number of steps taken and the number there are, inversions included."""


def run_edits(
    model: DiffusionModel,
    requests: Sequence[EditRequest],
    *,
    steps: int | None = None,
    guidance: float | None = None,
    stepper: Stepper | None = None,
    max_rows: int = 64,
    record: bool | Record = False,
    truncate: bool = False,
    progress: Progress | None = None,
    cache: Cache | None = None,
) -> list[EditResult]:
    """Carries out requests, several to a batch. How they are batched changes results by rounding only.

    Args:
        model: The model.
        requests: The requests.
        steps: Number of denoising steps; None is the model's own.
        guidance: Guidance scale of requests that state none; None is the model's own.
        stepper: Step function; None is DDIM without noise.
        max_rows: Samples through the network at once, conditional and unconditional counted apart. A
            request is never split, so one that is larger runs alone.
        record: Which attention maps are kept for `EditResult.heatmap`; True is `Record()`.
        truncate: Cut prompts that are too long instead of refusing them.
        progress: Called after each step.
        cache: Where inversions are looked for and kept; None always inverts.

    Returns:
        One result per request, in order. A request that cannot be carried out, or whose latents became
        non-finite, has a result with its `error`; the others are not affected.

    Raises:
        ConfigError: `steps`, `guidance` or `max_rows` is out of range, or the model has nothing to record.
    """
    steps = model.spec.steps if steps is None else steps
    guidance = model.spec.guidance if guidance is None else guidance
    kept = Record() if record is True else record or None
    _check_settings(model, steps, guidance, max_rows, kept)
    results: dict[int, EditResult] = {}
    prepared: list[tuple[int, PreparedRequest]] = []
    for place, request in enumerate(requests):
        try:
            prepared.append((place, prepare(model, request, steps, guidance, truncate)))
        except P2PError as error:
            results[place] = _refused(model, request, error)
    batches = list(_batches(prepared, max_rows))
    tick = _ticker(batches, steps, progress)
    for batch in batches:
        members = [one for _, one in batch]
        done = _run_batch(model, members, steps, stepper or DDIM(), kept, truncate, tick, cache)
        results.update(zip((place for place, _ in batch), done, strict=True))
    return [results[place] for place in range(len(requests))]


def _check_settings(
    model: DiffusionModel, steps: int, guidance: float, max_rows: int, record: Record | None
) -> None:
    check_steps(steps)
    model.schedule.timesteps(steps)
    check_guidance(guidance)
    if max_rows < 1:
        raise ConfigError(f"max_rows: expected at least 1, got {max_rows}")
    if record is not None:
        check_record(model, record)


def can_record(model: DiffusionModel) -> bool:
    """Whether the model has cross-attention at its `record_fraction`."""
    try:
        check_record(model, Record())
    except ConfigError:
        return False
    return True


def _batches(
    prepared: Sequence[tuple[int, PreparedRequest]], max_rows: int
) -> Iterator[list[tuple[int, PreparedRequest]]]:
    """Groups requests of equal inversions, in order, as many as the row budget takes."""
    open_batches: dict[object, list[tuple[int, PreparedRequest]]] = {}
    spent: dict[object, int] = {}
    for place, one in prepared:
        key = one.request.inversion
        # Guidance 1 needs no unconditional half, unless an inversion says otherwise.
        rows = len(one.prompts) * (1 if one.guidance == 1 and key is None else 2)
        batch = open_batches.setdefault(key, [])
        if batch and spent[key] + rows > max_rows:
            yield batch
            batch = open_batches[key] = []
        batch.append((place, one))
        spent[key] = rows + (spent[key] if len(batch) > 1 else 0)
    yield from open_batches.values()


def _ticker(
    batches: Sequence[Sequence[tuple[int, PreparedRequest]]], steps: int, progress: Progress | None
) -> Callable[[], None]:
    total = steps * sum(1 if batch[0][1].request.inversion is None else 2 for batch in batches)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(min(done, total), total)

    return tick


def _run_batch(
    model: DiffusionModel,
    batch: Sequence[PreparedRequest],
    steps: int,
    stepper: Stepper,
    record: Record | None,
    truncate: bool,
    tick: Callable[[], None],
    cache: Cache | None,
) -> list[EditResult]:
    try:
        made = _made(model, batch, steps, truncate, tick, cache)
    except P2PError as error:
        return [_refused(model, one.request, error) for one in batch]
    reconstructions = _vae_reconstructions(model, batch)
    results: list[EditResult] = []
    replays = [one.replay for one in made]
    kinds = [(replay.stepper() or stepper, replay.first_step) for replay in replays]
    # Rows that step alike share a batch; as a rule that is all of them.
    for (kind, first_step), run in groupby(range(len(batch)), key=lambda place: kinds[place]):
        places = list(run)
        for _ in range(first_step):
            tick()
        members = [batch[place] for place in places]
        tables = row_tables(members, [replays[place] for place in places], first_step, steps)
        sampled = sample_rows(model, tables, steps, kind, record, tick)
        images = _decoded(model, sampled)
        results += [
            _result(model, batch[i], made[i], tables[-1], number, sampled, images, reconstructions[i])
            for number, i in enumerate(places)
        ]
    return results


def _made(
    model: DiffusionModel,
    batch: Sequence[PreparedRequest],
    steps: int,
    truncate: bool,
    tick: Callable[[], None],
    cache: Cache | None,
) -> list[Made]:
    """Starts of a batch, whose requests have equal inversions."""
    requests = [one.request for one in batch]
    inversion = requests[0].inversion
    if inversion is None:
        return [Made(_noise_replay(model, request)) for request in requests]
    images = torch.stack([request.image for request in requests if request.image is not None])
    prompts = [request.source_prompt for request in requests]
    seeds = [request.seed for request in requests]
    return invert_or_recall(inversion, model, images, prompts, steps, seeds, truncate, tick, cache)


def _noise_replay(model: DiffusionModel, request: EditRequest) -> NoiseReplay:
    shape = (model.spec.latent_channels, *model.spec.latent_size)
    noise = initial_noise(request.seed, shape) if request.noise is None else request.noise
    return NoiseReplay(noise, request.seed)


def _vae_reconstructions(
    model: DiffusionModel, batch: Sequence[PreparedRequest]
) -> list[Float[Tensor, "3 h w"] | None]:
    images = [one.request.image for one in batch]
    real = [image for image in images if image is not None]
    decoded = iter(model.decode_latents(model.encode_images(torch.stack(real))).cpu() if real else ())
    return [None if image is None else next(decoded) for image in images]


def _decoded(model: DiffusionModel, sampled: Sampled) -> Float[Tensor, "n 3 h w"]:
    """Images of all rows; NaN where a row has an error."""
    images = torch.full((len(sampled.latents), 3, *model.spec.image_size), torch.nan)
    fine = [index for index, error in enumerate(sampled.errors) if error is None]
    if fine:
        images[fine] = model.decode_latents(sampled.latents[fine]).cpu()
    return images


def _result(
    model: DiffusionModel,
    prepared: PreparedRequest,
    made: Made,
    table: RowTable,
    number: int,
    sampled: Sampled,
    images: Float[Tensor, "n 3 h w"],
    vae_reconstruction: Float[Tensor, "3 h w"] | None,
) -> EditResult:
    """The part of a batch that is one sample's. Targets without a row stay NaN and keep their error."""
    result, sample = _blank(model, prepared.request), table.samples[number]
    row_of = table.images(sample)
    latents = result.latents.to(sampled.latents.dtype)
    costs, spent = [0] * len(latents), [0.0] * len(latents)
    unsuited = [made if isinstance(made, P2PError) else None for made in prepared.controllers]
    errors: list[P2PError | None] = [None, *unsuited]
    for index, row in row_of.items():
        result.images[index] = images[row]
        latents[index] = sampled.latents[row]
        costs[index], spent[index] = sampled.unet_rows[row], sampled.unet_rows_spent[row]
        errors[index] = sampled.errors[row] or _image_error(model, sample, images[row])
    return replace(
        result,
        latents=latents,
        inversion_rows=made.replay.unet_rows,
        inversion_recalled=made.recalled,
        inversion_rows_backward=made.replay.unet_rows_backward,
        source_rows=costs[0],
        target_rows=tuple(costs[1:]),
        target_rows_spent=tuple(spent[1:]),
        errors=tuple(errors),
        vae_reconstruction=vae_reconstruction,
        prompts=prepared.prompts,
        attention=kept_maps(sampled.recorders, row_of),
    )


def _image_error(model: DiffusionModel, sample: Sample, image: Float[Tensor, "3 h w"]) -> P2PError | None:
    if bool(image.isfinite().all()):
        return None
    return P2PError(
        f"sample {sample.id!r}: the VAE of model {model.spec.name!r} made a non-finite image of finite "
        "latents; set model.dtype=float32 or bfloat16"
    )


def _refused(model: DiffusionModel, request: EditRequest, error: P2PError) -> EditResult:
    """The result of a request that was not carried out."""
    return replace(_blank(model, request), errors=(error,) * len(request.prompts))


def _blank(model: DiffusionModel, request: EditRequest) -> EditResult:
    """A result without any image."""
    count, spec = len(request.prompts), model.spec
    return EditResult(
        id=request.id,
        images=torch.full((count, 3, *spec.image_size), torch.nan),
        latents=torch.full((count, spec.latent_channels, *spec.latent_size), torch.nan),
        inversion_rows=0,
        source_rows=0,
        target_rows=(0,) * (count - 1),
        target_rows_spent=(0.0,) * (count - 1),
        errors=(None,) * count,
    )
