"""The sampling loop: the rows of a table, from their starts to the final latents."""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from p2p_bench.attention.features import injected_features
from p2p_bench.attention.plan import StepPlan, build_step_plan
from p2p_bench.attention.recorder import Recorder
from p2p_bench.attention.terms import Role
from p2p_bench.editing import hooks
from p2p_bench.editing.attention import Record, forked, recorders
from p2p_bench.editing.blend import Blender
from p2p_bench.editing.map_guidance import Descended, Half, descended
from p2p_bench.editing.rows import RowTable
from p2p_bench.editing.values import alike, valued
from p2p_bench.errors import NonFiniteLatentError, P2PError
from p2p_bench.models import DiffusionModel
from p2p_bench.models.conditioning import TEXT, Conditioning, joined, row_of, select, told_guidance
from p2p_bench.models.level import Denoised, Level, Prediction, stacked
from p2p_bench.sampling import Replay, RowState, StepContext, Stepper, classifier_free, select_rows


@dataclass(frozen=True, eq=False)
class Sampled:
    """What the loop leaves.

    Attributes:
        latents: Final latents of each row of the last table; NaN in rows with an error.
        unet_rows: Passes of the network each row took, those before it was forked included.
        unet_rows_spent: The same, each divided by the number of targets that shared it.
        unet_rows_backward: Passes of each row that went backward as well.
        errors: What went wrong with each row, or None.
        recorders: What was recorded.
    """

    latents: Float[Tensor, "n c h w"]
    unet_rows: tuple[int, ...]
    unet_rows_spent: tuple[float, ...]
    unet_rows_backward: tuple[int, ...]
    errors: tuple[NonFiniteLatentError | None, ...]
    recorders: tuple[Recorder, ...]


@torch.no_grad()
def sample_rows(
    model: DiffusionModel,
    tables: Sequence[RowTable],
    steps: int,
    stepper: Stepper,
    record: Record | None = None,
    progress: Callable[[], None] | None = None,
) -> Sampled:
    """Samples the rows of consecutive tables; between two of them rows fork.

    Args:
        model: The model.
        tables: The rows of each stretch of steps.
        steps: Number of steps.
        stepper: The step function of all rows.
        record: Which attention maps of conditional rows are kept, besides what blends need.
        progress: Called after each step.

    Raises:
        P2PError: The stepper wants noise that a replay does not have.
        ValueError: A replay, the stepper or the model answers with something of another kind or shape.
    """
    ladder = model.ladder(steps)
    network = _Network(model, tables[0], recorders(model, record, tables[0]), Blender(model.spec, tables[0]))
    state = stepper.init(_start(model, tables[0]))
    errors: list[NonFiniteLatentError | None] = [None] * len(state[0])
    with model.controlled():
        for table in tables:
            if table is not tables[0]:
                network = network.forked(table, forked(model, network.recorders, record, table))
                state = select_rows(state, torch.tensor(table.parents, device=model.device))
                errors = [errors[parent] for parent in table.parents]
            for step in range(table.start, table.stop):
                asked: list[Prediction] = []
                moved = network.descended(state[0], ladder[step], step)
                state = state if moved is None else (moved.latents, *state[1:])
                context = StepContext(
                    step=step,
                    steps=steps,
                    sources=network.sources,
                    predict=partial(network.predict, step=step, asked=asked, moved=moved),
                    noise=_step_noise(model, table, step) if stepper.stochastic else None,
                    before=ladder[step - 1] if step > tables[0].start else None,
                    predict_as_sources=partial(network.predict_as_sources, step=step),
                )
                after = stepper.step(state, ladder[step], ladder[step + 1], context)
                hooks.check_state(stepper, step, state, after, asked)
                state = after
                state = _corrected(table, state, step, asked[-1])
                state = (network.blender.blended(step, state[0]), *state[1:])
                errors = _note_errors(model, table, state[0], step, errors)
                if progress is not None:
                    progress()
    broken = torch.tensor([error is not None for error in errors], device=model.device)
    latents = state[0].masked_fill(broken[:, None, None, None], torch.nan)
    costs = tuple(network.unet_rows), tuple(network.unet_rows_spent), tuple(network.unet_rows_backward)
    return Sampled(latents, *costs, tuple(errors), tuple(network.recorders))


@dataclass
class _Network:
    """Guided and edited predictions for the rows of a table; counts what goes through the network.

    `unet_rows` counts all that a row and those it came from took; `unet_rows_spent` divides it by the number
    of targets that shared it.
    """

    model: DiffusionModel
    table: RowTable
    recorders: Sequence[Recorder]
    blender: Blender
    unet_rows: list[int] = field(init=False)
    unet_rows_spent: list[float] = field(init=False)
    unet_rows_backward: list[int] = field(init=False)
    sources: Int64[Tensor, " n"] = field(init=False)
    _plans: dict[Hashable, StepPlan] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.unet_rows = [0] * len(self.table.rows)
        self.unet_rows_spent = [0.0] * len(self.table.rows)
        self.unet_rows_backward = [0] * len(self.table.rows)
        self.sources = torch.tensor([row.source for row in self.table.rows], device=self.model.device)
        self._recorded = (*self.recorders, *self.blender.recorders.values())
        self._conditional = self.model.encode([row.prompt for row in self.table.rows])
        self._empty = self.model.unconditional()

    def forked(self, table: RowTable, recorders: Sequence[Recorder]) -> "_Network":
        """The network of the next table, which counts on."""
        other = _Network(self.model, table, recorders, Blender(self.model.spec, table, self.blender))
        other.unet_rows = [self.unet_rows[parent] for parent in table.parents]
        other.unet_rows_spent = [self.unet_rows_spent[parent] for parent in table.parents]
        other.unet_rows_backward = [self.unet_rows_backward[parent] for parent in table.parents]
        return other

    def predict(
        self,
        x_t: Float[Tensor, "n c h w"],
        level: Level,
        step: int,
        asked: list[Prediction],
        moved: Descended | None = None,
    ) -> Prediction:
        """What is in the latents of all rows; added to what was asked in this step."""
        for recorder in self._recorded:
            recorder.begin(step)
        # Passes with the prompt have latents of their own where the step begins, and nowhere else.
        told = moved.conditional if moved is not None and x_t is moved.latents else None
        unconditional, conditional, scale = self._pass(x_t, level, step, range(len(x_t)), told_at=told)
        parts = []
        for sample in self.table.samples:
            at = sample.rows.start, sample.rows.stop
            halves = unconditional.rows(*at), conditional.rows(*at)
            parts.append(hooks.combined(sample.replay, step, sample.roles, halves, scale[slice(*at)]))
        asked.append(Prediction(stacked(parts), conditional, unconditional))
        return asked[-1]

    def predict_as_sources(self, x_t: Float[Tensor, "n c h w"], level: Level, step: int) -> Denoised:
        """What is in the latents of the targets' rows by the prompts of their sources; nothing is edited."""
        targets = [index for index, row in enumerate(self.table.rows) if row.role == "target"]
        return classifier_free(*self._pass(x_t, level, step, targets, as_sources=True))

    def _pass(
        self,
        x_t: Float[Tensor, "n c h w"],
        level: Level,
        step: int,
        rows: Sequence[int],
        as_sources: bool = False,
        told_at: Float[Tensor, "n c h w"] | None = None,
    ) -> tuple[Denoised, Denoised, Float[Tensor, "m 1 1 1"]]:
        """Predictions without and with the prompt, and the guidance, of some rows; counts the pass.

        Args:
            x_t: Latents of all rows.
            level: Their level.
            step: Index from 0.
            rows: The rows that pass.
            as_sources: By the prompts of their sources and unedited, in place of their own.
            told_at: Latents of the passes with the prompt, where these are others.
        """
        guidance, own = self._guidance(step, rows if as_sources else None)
        readers = {} if as_sources else self._readers(own, step)
        wanted = sorted({*own, *readers})
        role: Role | None = "source" if as_sources else None
        told = select(self._conditional, self.sources[[*rows]]) if as_sources else self._conditional
        told = joined([told, *(self._unconditional(row, step, role) for row in wanted)])
        told = valued(self.model, told, [self._replay(row, role) for row in rows], step)
        if self.model.spec.guided_by == "input":
            told = told_guidance(told, guidance)
        # The conditional half comes first, so that a row keeps its place whatever else is computed.
        owners = [*rows, *wanted]
        inputs = x_t.index_select(0, torch.tensor(owners, device=x_t.device))
        if told_at is not None:
            inputs = torch.cat([told_at, inputs[len(rows) :]])
        plan = None if as_sources else self._plan(wanted, step)
        with injected_features(self.model.network, plan.features) if plan is not None else nullcontext():
            predicted = self.model.predict(inputs, level, told, plan)
        hooks.check_prediction(self.model, inputs, predicted)
        self._count([*rows, *own])
        for reading in readers.values():
            self._count_for(reading)
        conditional = predicted.rows(0, len(rows))
        if told_at is not None:
            conditional = replace(conditional, x_t=x_t)
        without = conditional.output.clone()
        # A source's pass that is made for its readers is no part of the source's own guidance.
        places = [len(rows) + wanted.index(row) for row in own]
        without[[rows.index(row) for row in own]] = predicted.output[places]
        scale = torch.tensor(guidance, dtype=x_t.dtype, device=x_t.device)[:, None, None, None]
        return conditional.with_output(without), conditional, scale

    def descended(self, x_t: Float[Tensor, "n c h w"], level: Level, step: int) -> Descended | None:
        """The latents after the descent of controllers toward the maps of sources; None where none asks."""
        amounts = self.table.map_guidance(step)
        if not amounts:
            return None
        scales, wanted = self._guidance(step)
        halves = [Half(row, False) for row in amounts]
        halves += [Half(row, True) for row in amounts if row in wanted]
        references = {half: Half(self.table.rows[half.row].source, half.unprompted) for half in halves}
        told = alike({half: self._told(half, step, scales) for half in (*halves, *references.values())})
        moved = descended(self.model, x_t, level, references, told, amounts)
        self._count_descent(moved.shown)
        return moved

    def _told(self, half: Half, step: int, scales: Sequence[float]) -> Conditioning:
        """What one pass of a row is told, a single row."""
        if half.unprompted:
            return self._unconditional(half.row, step)
        told = row_of(self._conditional, half.row)
        told = valued(self.model, told, [self._replay(half.row)], step)
        return told_guidance(told, [scales[half.row]]) if self.model.spec.guided_by == "input" else told

    def _count(self, owners: Sequence[int]) -> None:
        """Counts a pass of each of some rows."""
        for owner in owners:
            self.unet_rows[owner] += 1
            self.unet_rows_spent[owner] += 1 / max(1, len(self.table.rows[owner].targets))

    def _count_descent(self, shown: Mapping[Half, Half]) -> None:
        """Counts the passes of a descent; those of sources belong to the rows that they are made for."""
        self._count([half.row for half in shown])
        for half in shown:
            self.unet_rows_backward[half.row] += 1
        for reference in set(shown.values()):
            self._count_for({half.row for half, other in shown.items() if other == reference})

    def _count_for(self, users: Collection[int]) -> None:
        """Counts a pass of a source that is made for some rows alone."""
        for row in users:
            self.unet_rows[row] += 1
            self.unet_rows_spent[row] += 1 / len(users) / len(self.table.rows[row].targets)

    def _guidance(self, step: int, as_sources: Sequence[int] | None = None) -> tuple[list[float], list[int]]:
        """Guidance of each row, and the rows that take an unconditional pass; or of some rows as sources."""
        scales, wanted = [], []
        in_passes = self.model.spec.guided_by == "passes"
        for index in range(len(self.table.rows)) if as_sources is None else as_sources:
            row = self.table.rows[index]
            sample, role = self.table.samples[row.sample], row.role if as_sources is None else "source"
            scale = hooks.guidance_of(sample.replay, step, role, sample.guidance_at(step))
            scales.append(scale)
            needed = in_passes and sample.replay.needs_unconditional(step, role, scale)
            if needed and (as_sources is not None or not self._alike(index, step)):
                wanted.append(index)
        return scales, wanted

    def _readers(self, wanted: Sequence[int], step: int) -> dict[int, list[int]]:
        """By source that needs no unconditional pass, the rows that take one and read the source's."""
        readers: dict[int, list[int]] = {}
        for index in wanted:
            row = self.table.rows[index]
            reads = row.controller is not None and row.controller.unprompted(step) == "own"
            if reads and row.source not in wanted and not self._alike(row.source, step):
                readers.setdefault(row.source, []).append(index)
        return readers

    def _alike(self, index: int, step: int) -> bool:
        """Whether a row's passes with and without its prompt are the same, since it is told nothing."""
        row = self.table.rows[index]
        if row.told or self.model.spec.unprompted != "encoded":
            return False
        replay, text = self.table.samples[row.sample].replay, self._conditional[TEXT][index]
        return replay.unconditional(step, row.role) is None and replay.values(step, row.role, text) is None

    def _replay(self, index: int, role: Role | None = None) -> tuple[Replay, Role]:
        """The replay of a row, and its role unless that of another is played."""
        row = self.table.rows[index]
        return self.table.samples[row.sample].replay, role or row.role

    def _unconditional(self, index: int, step: int, role: Role | None = None) -> Conditioning:
        row = self.table.rows[index]
        replay = self.table.samples[row.sample].replay
        empty = self._empty if row.negative is None else self.model.encode([row.negative])
        return hooks.unconditional_of(replay, step, role or row.role, empty)

    def _plan(self, wanted: Sequence[int], step: int) -> StepPlan:
        """What the sites do at a step; steps at which the same is done to the same rows share one plan."""
        edits = (*self.table.edits(), *self.table.unprompted_edits(wanted, step))
        key = len(wanted), tuple((edit.row, edit.source, edit.controller.signature(step)) for edit in edits)
        if key not in self._plans:
            model, num_rows = self.model, len(self.table.rows) + len(wanted)
            self._plans[key] = build_step_plan(
                model.sites, num_rows, edits, step, self._recorded, model.device, model.dtype
            )
        return self._plans[key]


def _start(model: DiffusionModel, table: RowTable) -> RowState:
    """Every row of a sample starts in the state its replay names."""
    starts = [table.samples[row.sample].replay.start for row in table.rows]
    return tuple(
        torch.stack([part.to(device=model.device, dtype=model.state_dtype) for part in parts])
        for parts in zip(*starts, strict=True)
    )


def _step_noise(model: DiffusionModel, table: RowTable, step: int) -> Float[Tensor, "n c h w"]:
    drawn = []
    shape = (model.spec.latent_channels, *model.spec.latent_size)
    for sample in table.samples:
        noise = hooks.noise_of(sample.replay, step, shape)
        if noise is None:
            raise P2PError(
                f"sample {sample.id!r}: its inversion has no noise for a stochastic sampler; "
                "set sampler.eta=0, or sampler=ddim"
            )
        drawn.append(noise.to(device=model.device, dtype=model.state_dtype))
    return torch.stack([drawn[row.sample] for row in table.rows])


def _corrected(table: RowTable, state: RowState, step: int, prediction: Prediction) -> RowState:
    latents = []
    for sample in table.samples:
        at = sample.rows.start, sample.rows.stop
        own = state[0][slice(*at)]
        latents.append(hooks.corrected(sample.replay, step, sample.roles, own, prediction.rows(*at)))
    return (torch.cat(latents), *state[1:])


def _note_errors(
    model: DiffusionModel,
    table: RowTable,
    latents: Float[Tensor, "n c h w"],
    step: int,
    errors: list[NonFiniteLatentError | None],
) -> list[NonFiniteLatentError | None]:
    """Adds the rows that broke at this step; a broken source breaks its targets.

    Samples do not mix, so the others of the batch go on.
    """
    finite: Bool[Tensor, " n"] = latents.isfinite().flatten(1).all(1)
    if bool(finite.all()):
        return errors
    fine = finite.tolist()
    return [
        error
        or (
            None
            if fine[index] and fine[row.source]
            else NonFiniteLatentError(model.spec.name, table.samples[row.sample].id, step)
        )
        for index, (row, error) in enumerate(zip(table.rows, errors, strict=True))
    ]
