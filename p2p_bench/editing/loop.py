"""The sampling loop: the rows of a table, from their starts to the final latents."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from p2p_bench.attention.plan import PlanCache, StepPlan
from p2p_bench.attention.recorder import Recorder
from p2p_bench.editing.blend import Blender
from p2p_bench.editing.rows import RowTable
from p2p_bench.errors import NonFiniteLatentError, P2PError
from p2p_bench.models import DiffusionModel
from p2p_bench.sampling import RowState, StepContext, Stepper


@dataclass(frozen=True, eq=False)
class Sampled:
    """What the loop leaves.

    Attributes:
        latents: Final latents of each row; NaN in rows with an error.
        unet_rows: Passes of the network each row took.
        errors: What went wrong with each row, or None.
    """

    latents: Float[Tensor, "n c h w"]
    unet_rows: tuple[int, ...]
    errors: tuple[NonFiniteLatentError | None, ...]


@torch.no_grad()
def sample_rows(
    model: DiffusionModel,
    table: RowTable,
    steps: int,
    stepper: Stepper,
    recorders: Sequence[Recorder] = (),
    progress: Callable[[], None] | None = None,
    first_step: int = 0,
) -> Sampled:
    """Samples every row of a table.

    Args:
        model: The model.
        table: The rows.
        steps: Number of steps.
        stepper: The step function of all rows.
        recorders: Receive the attention maps of conditional rows, besides what blends need.
        progress: Called after each step.
        first_step: The step at which all rows start; the steps before it are not taken.

    Raises:
        P2PError: The stepper wants noise that a replay does not have.
    """
    schedule = model.schedule
    blender = Blender(model.spec, table)
    network = _Network(model, table, (*recorders, *blender.recorders))
    state = _start(model, table)
    errors: list[NonFiniteLatentError | None] = [None] * len(table.rows)
    with model.controlled():
        for step, timestep in list(enumerate(schedule.timesteps(steps)))[first_step:]:
            context = StepContext(
                step=step,
                steps=steps,
                timestep=timestep,
                previous=schedule.previous(timestep, steps),
                schedule=schedule,
                epsilon=partial(network.epsilon, step=step, timestep=timestep),
                noise=_step_noise(model, table, step) if stepper.stochastic else None,
            )
            state = _corrected(table, stepper.step(state, context), step, network)
            state = (blender.blended(step, state[0]), *state[1:])
            errors = _note_errors(model, table, state[0], step, errors)
            if progress is not None:
                progress()
    broken = torch.tensor([error is not None for error in errors], device=model.device)
    latents = state[0].masked_fill(broken[:, None, None, None], torch.nan)
    return Sampled(latents, tuple(network.unet_rows), tuple(errors))


@dataclass
class _Network:
    """Guided and edited predictions for the rows of a table; counts what goes through the network.

    `difference` is the guidance difference of the last pass.
    """

    model: DiffusionModel
    table: RowTable
    recorders: Sequence[Recorder]
    unet_rows: list[int] = field(init=False)
    difference: Float[Tensor, "n c h w"] = field(init=False)
    _plans: dict[int, PlanCache] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.unet_rows = [0] * len(self.table.rows)
        self._conditional = self.model.encode_tokens([row.prompt for row in self.table.rows])
        self._empty = self.model.encode_prompts([""])[0]

    def epsilon(self, x_t: Float[Tensor, "n c h w"], step: int, timestep: int) -> Float[Tensor, "n c h w"]:
        """Noise predicted in the latents of all rows."""
        guidance, wanted = self._guidance(step)
        for recorder in self.recorders:
            recorder.begin(step)
        # The conditional half comes first, so that a row keeps its place whatever else is computed.
        owners = [*range(len(self.table.rows)), *wanted]
        inputs = x_t.index_select(0, torch.tensor(owners, device=x_t.device))
        embeddings = torch.cat([self._conditional, *(self._unconditional(row, step)[None] for row in wanted)])
        prediction = self.model.predict(inputs, timestep, embeddings, self._plan(len(owners), step))
        for owner in owners:
            self.unet_rows[owner] += 1
        predicted = self.model.schedule.to_epsilon(prediction, inputs, timestep)
        conditional = predicted[: len(x_t)]
        unconditional = conditional.clone()
        unconditional[wanted] = predicted[len(x_t) :]
        self.difference = conditional - unconditional
        scale = torch.tensor(guidance, dtype=x_t.dtype, device=x_t.device)[:, None, None, None]
        parts = []
        for sample in self.table.samples:
            at = slice(sample.rows.start, sample.rows.stop)
            roles = self.table.roles(sample)
            parts.append(sample.replay.combine(step, roles, unconditional[at], conditional[at], scale[at]))
        return torch.cat(parts)

    def _guidance(self, step: int) -> tuple[list[float], list[int]]:
        """Guidance of each row, and the rows that take an unconditional pass."""
        scales, wanted = [], []
        for index, row in enumerate(self.table.rows):
            sample = self.table.samples[row.sample]
            scale = sample.replay.guidance(step, row.role, sample.guidance)
            scales.append(scale)
            if sample.replay.needs_unconditional(step, row.role, scale):
                wanted.append(index)
        return scales, wanted

    def _unconditional(self, index: int, step: int) -> Float[Tensor, "l d"]:
        row = self.table.rows[index]
        embedding = self.table.samples[row.sample].replay.unconditional(step, row.role)
        return self._empty if embedding is None else embedding.to(self._empty)

    def _plan(self, num_rows: int, step: int) -> StepPlan:
        if num_rows not in self._plans:
            self._plans[num_rows] = PlanCache(
                self.model.sites,
                num_rows,
                self.table.edits(),
                self.recorders,
                self.model.device,
                self.model.dtype,
            )
        return self._plans[num_rows].at(step)


def _start(model: DiffusionModel, table: RowTable) -> RowState:
    """Every row of a sample starts in the state its replay names."""
    starts = [table.samples[row.sample].replay.start for row in table.rows]
    return tuple(
        torch.stack([part.to(device=model.device, dtype=model.state_dtype) for part in parts])
        for parts in zip(*starts, strict=True)
    )


def _step_noise(model: DiffusionModel, table: RowTable, step: int) -> Float[Tensor, "n c h w"]:
    drawn = []
    for sample in table.samples:
        noise = sample.replay.noise(step)
        if noise is None:
            raise P2PError(
                f"sample {sample.id!r}: its inversion has no noise for a stochastic sampler; "
                "set sampler.eta=0"
            )
        drawn.append(noise.to(device=model.device, dtype=model.state_dtype))
    return torch.stack([drawn[row.sample] for row in table.rows])


def _corrected(table: RowTable, state: RowState, step: int, network: _Network) -> RowState:
    latents = []
    for sample in table.samples:
        at = slice(sample.rows.start, sample.rows.stop)
        difference = network.difference[at]
        latents.append(sample.replay.correct_with(step, table.roles(sample), state[0][at], difference))
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
