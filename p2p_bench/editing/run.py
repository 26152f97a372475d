"""Runs requests in batches: inversion, sampling, decoding."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.cache import Cache
from p2p_bench.editing.attention import Record, check_record
from p2p_bench.editing.budget import Batch, RowBudget, batches, is_out_of_memory, too_large
from p2p_bench.editing.by_hand import check_kept, check_settings, checked_requests
from p2p_bench.editing.finishing import finished
from p2p_bench.editing.gather import Part, gathered, refused, sampled_parts
from p2p_bench.editing.loop import sample_rows
from p2p_bench.editing.mending import repaired
from p2p_bench.editing.request import EditRequest, PreparedRequest, prepare, raise_all
from p2p_bench.editing.result import EditResult
from p2p_bench.editing.rows import row_tables
from p2p_bench.errors import ConfigError, P2PError
from p2p_bench.inversion.base import read_sources, steps_guided
from p2p_bench.inversion.recall import Made, invert_or_recall
from p2p_bench.models import DiffusionModel
from p2p_bench.models.device import free_memory
from p2p_bench.models.timesteps import Spacing
from p2p_bench.pinned import with_pinned_settings
from p2p_bench.sampling import DDIM, Stepper, noise_replay
from p2p_bench.sampling.sampler import check_guidance, check_steps

Progress = Callable[[int, int], None]
"""Called with the number of steps taken and the number there are, inversions included."""


@with_pinned_settings
def run_edits(
    model: DiffusionModel,
    requests: Sequence[EditRequest],
    *,
    steps: int | None = None,
    guidance: float | None = None,
    stepper: Stepper | None = None,
    spacing: Spacing | None = None,
    guidance_interval: Sequence[float | int] | None = None,
    max_rows: int | RowBudget = 80,
    record: bool | Record = False,
    truncate: bool = False,
    progress: Progress | None = None,
    cache: Cache | None = None,
    whole: bool = False,
) -> list[EditResult]:
    """Carries out requests, several to a batch. How they are batched changes results by rounding only.

    Args:
        model: The model.
        requests: The requests.
        steps: Number of denoising steps; None is the model's own.
        guidance: Guidance scale of requests that state none; None is the model's own.
        stepper: Step function; None is DDIM without noise.
        spacing: Layout of the timesteps, see `TimestepLayout`; None is the model's own.
        guidance_interval: Between which parts of the steps guidance acts; None is the model's own.
        max_rows: Samples through the network at once, conditional and unconditional counted apart. A
            request that is larger is sampled in parts of its targets, each with the source; a single edit
            is never divided. Where memory does not suffice it is halved, in the `RowBudget` too if it is one.
        record: Which attention maps are kept for `EditResult.heatmap`; True is `Record()`.
        truncate: Cut prompts that are too long instead of refusing them.
        progress: Called after each step.
        cache: Where inversions are looked for and kept; None always inverts.
        whole: Raise, before anything is computed, where a request cannot be carried out with all its targets.

    Returns:
        One result per request, in order. A request that cannot be carried out, or whose latents became
        non-finite, has a result with its `error`; the others are not affected.

    Raises:
        ConfigError: `steps`, `spacing`, `guidance` or `max_rows` is out of range, or the model has nothing to
            record; or an argument or a field of a request is of another type.
        P2PError: With `whole`, what is wrong with requests.
    """
    check_settings(model, steps, guidance, stepper, spacing, max_rows, truncate, progress)
    check_kept(record, cache)
    requests = checked_requests(requests)
    stepper = stepper or DDIM()
    model = model.laid_out(stepper.levels, spacing)
    steps = model.spec.steps if steps is None else steps
    guidance = model.spec.guidance if guidance is None else guidance
    repairs = [request.repair for request in requests if request.repair is not None]
    record = record or any(repair.records for repair in repairs)
    kept = Record() if record is True else record or None
    budget = max_rows if isinstance(max_rows, RowBudget) else RowBudget(max_rows)
    check_steps(steps)
    model.ladder(steps)  # refuses a number that the model cannot serve
    check_guidance(guidance, model.spec)
    steps_guided(model.spec, steps, guidance_interval)
    if kept is not None:
        check_record(model, kept)
    results: dict[int, EditResult] = {}
    prepared: list[tuple[int, PreparedRequest]] = []
    for place, request in enumerate(requests):
        try:
            made = prepare(
                model, model.spec, request, steps, guidance, truncate, model.sites, stepper, guidance_interval
            )
            if whole:
                raise_all(made.faults)
            if made.faults and len(made.faults) == len(made.controllers):
                results[place] = refused(model, request, [made.faults[0], *made.faults])
            else:
                prepared.append((place, made))
        except P2PError as error:
            if whole:
                raise
            results[place] = refused(model, request, [error])
    ticker = _Ticker(progress, steps, 0 if model.upscaler is None else model.upscaler.settings.steps)
    editor = _Editor(model, steps, stepper, kept, cache, ticker)
    results |= editor.run_all(prepared, budget)
    return [
        results[place] if one.repair is None else repaired(results[place], one.repair, one.image)
        for place, one in enumerate(requests)
    ]


def can_record(model: DiffusionModel) -> bool:
    """Whether the model has cross-attention at its `record_fraction`."""
    try:
        check_record(model, Record())
    except ConfigError:
        return False
    return True


class _Ticker:
    """Counts steps, for whoever wants to see how far things are."""

    def __init__(self, progress: Progress | None, steps: int, upscaling: int) -> None:
        self._progress = progress
        self._steps = steps
        self._upscaling = upscaling
        self._total = 0
        self.done = 0

    def expect(self, done: int, batches: Sequence[Batch]) -> None:
        """So many steps count as taken, and those of some batches are to come."""
        self.done = self._total = done
        for batch in batches:
            inverted = batch.members[0].request.inversion is not None
            chunks = max(1, len(batch.chunks))
            self._total += self._steps * (inverted + chunks) + self._upscaling * chunks

    def __call__(self) -> None:
        """One more step was taken."""
        self.done += 1
        if self._progress is not None:
            self._progress(min(self.done, self._total), self._total)


@dataclass(frozen=True, eq=False)
class _Editor:
    """Carries out batches; what all of them share."""

    model: DiffusionModel
    steps: int
    stepper: Stepper
    record: Record | None
    cache: Cache | None
    tick: _Ticker

    def run_all(
        self, prepared: Sequence[tuple[int, PreparedRequest]], budget: RowBudget
    ) -> dict[int, EditResult]:
        """Results of all requests by their place, in smaller batches where memory does not suffice."""
        results: dict[int, EditResult] = {}
        waiting = batches(prepared, budget.rows, self.steps)
        self.tick.expect(0, waiting)
        while waiting:
            batch, done = waiting.pop(0), self.tick.done
            made = self.run(batch, budget.rows)
            if made is not None:
                results.update(zip(batch.places, made, strict=True))
                continue
            budget.halve(batch.rows)
            left = [one for other in (batch, *waiting) for one in other.requests]
            waiting = batches(left, budget.rows, self.steps)
            self.tick.expect(done, waiting)
        return results

    def run(self, batch: Batch, max_rows: int) -> list[EditResult] | None:
        """Results of the batch's requests; None where memory did not suffice and smaller batches may fit."""
        try:
            with self.model.at_work():
                return self._run(batch, max_rows)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if not batch.divisible:
                large = too_large(self.model.spec.name, error)
                return [refused(self.model, one.request, [large]) for one in batch.members]
        # Here the traceback, which holds what had been computed, is gone.
        free_memory(self.model.device)
        return None

    def _run(self, batch: Batch, max_rows: int) -> list[EditResult]:
        members = batch.members
        try:
            made, reconstructions = self._started(members)
        except P2PError as error:
            return [refused(self.model, one.request, [error]) for one in members]
        kinds = [(one.replay.stepper() or self.stepper, one.replay.first_step) for one in made]
        parts: list[list[Part]] = [[] for _ in members]
        # Rows that step alike share a batch; as a rule that is all of them.
        for (kind, first_step), run in groupby(range(len(members)), key=lambda place: kinds[place]):
            places = list(run)
            replays = [made[place].replay for place in places]
            for chunk in batch.chunks or (None,):
                together = [members[place] for place in places]
                tables = row_tables(together, replays, first_step, self.steps, chunk)
                for _ in range(first_step):
                    self.tick()
                sampled = sample_rows(self.model, tables, self.steps, kind, self.record, self.tick)
                table, budget = tables[-1], (max_rows, self.tick)
                images, sampled = finished(self.model, table, sampled, together, *budget)
                for place, part in zip(
                    places, sampled_parts(self.model, table, sampled, images), strict=True
                ):
                    parts[place].append(part)
        return [
            gathered(self.model, *of_one, self.steps)
            for of_one in zip(members, made, parts, reconstructions, strict=True)
        ]

    def _started(
        self, members: Sequence[PreparedRequest]
    ) -> tuple[list[Made], Sequence[Float[Tensor, "3 h w"] | None]]:
        """Starts of a batch, whose inversions are equal; its real images through the VAE and back."""
        asked = [one.request for one in members]
        inversion = asked[0].inversion
        if inversion is None:
            plain = [noise_replay(self.model, one.seed, self.steps, one.noise) for one in asked]
            return [Made(replay) for replay in plain], [None] * len(asked)
        images = torch.stack([one.image for one in asked if one.image is not None])
        prompts, seeds = [one.inversion_prompt for one in members], [one.seed for one in asked]
        sources = read_sources(self.model, images, prompts, seeds)
        made = invert_or_recall(inversion, self.model, sources, self.steps, self.tick, self.cache)
        if self.model.upscaler is not None:  # what it would make of the image is not asked for
            return made, [None] * len(asked)
        return made, list(self.model.decode_latents(sources.latents).cpu())
