"""Null-text inversion (Mokady et al., arXiv 2211.09794): the unconditional embedding learns to lead back.

Notation:
    pivot    latents from the image (first) to the noise (last), one per noise level
    x_t      the latents that guided sampling has reached
    null     the unconditional embedding of a step
    loss     mean squared distance of the guided step from the pivot, and the embedding's decay
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from p2p_bench.attention.kernels import attention_by
from p2p_bench.attention.terms import Role
from p2p_bench.fields import AtLeast, check_fields
from p2p_bench.inversion.base import Sources, StepProgress, every, no_tick
from p2p_bench.inversion.ddim import StartReplay, ddim_trajectory
from p2p_bench.inversion.descent import Descent
from p2p_bench.inversion.direct import noise_trajectory
from p2p_bench.inversion.memory import checkpointed
from p2p_bench.inversion.told import ToldInversion
from p2p_bench.models.conditioning import TEXT, Conditioning, repeated
from p2p_bench.models.level import Denoised, Prediction
from p2p_bench.models.model import DiffusionModel
from p2p_bench.models.spec import Capability, ModelSpec
from p2p_bench.sampling.ddim import ddim_step
from p2p_bench.sampling.replay import Replay, classifier_free

log = logging.getLogger(__name__)

Serves = Literal["all", "source", "latent"]
Pivot = Literal["ddim", "noise"]

_PUBLISHED_STEPS = 50
"""Step numbers in the published learning rate and threshold are those of a run of this length."""


@dataclass(frozen=True, eq=False)
class NullTextReplay(StartReplay):
    """Sampling with an unconditional embedding of its own at every step.

    Attributes:
        latents: Start latents.
        embeddings: Unconditional embedding of each step; None: the empty prompt serves all rows.
        offsets: Added to every row's latents after each step; None adds nothing.
        source_only: The embeddings serve the source row alone.
        losses: Loss before each update, NaN where none was taken: the curve of every step.
        distance: Mean squared distance of the latents that the optimisation reached from the image's.
        converged: Whether that is below the method's `gate`.
        rows: UNet rows spent.
        rows_backward: Rows that went backward.
    """

    embeddings: Float[Tensor, "steps l d"] | None
    offsets: Float[Tensor, "steps c h w"] | None
    source_only: bool
    losses: Float[Tensor, "steps inner"]
    distance: float
    converged: bool
    rows_backward: int

    @property
    def unet_rows_backward(self) -> int:
        """One per update."""
        return self.rows_backward

    def unconditional(self, step: int, role: Role) -> Conditioning | None:
        """The embedding of the step."""
        if self.embeddings is None or (self.source_only and role == "target"):
            return None
        return {TEXT: self.embeddings[step : step + 1]}

    def correct(
        self, step: int, roles: tuple[Role, ...], latents: Float[Tensor, "n c h w"], prediction: Prediction
    ) -> Float[Tensor, "n c h w"]:
        """Adds the offset of the step, if there is one."""
        return latents if self.offsets is None else latents + self.offsets[step].to(latents)


@dataclass(frozen=True)
class NullTextInversion(ToldInversion):
    """Null-text inversion, several images at once.

    Step i of 50 takes up to `inner_steps` updates with Adam at `learning_rate * (1 - i / 100)`, from where
    the step before it ended, and stops once the loss is below `tolerance + i * 2e-5`, as published; in a run
    of another length i is scaled to 50. An image that has stopped leaves the batch, and no image's result
    depends on the others. Weights take no gradient, and the conditional prediction is made once a step.

    The embedding ends where it predicts about what the source prompt does. Targets that share it are then
    pushed by their difference from the source alone, as in negative-prompt inversion, times the guidance:
    at a scale far above the model's own, colours run to the complement of what was replaced and words that
    both prompts hold lose their pull. `decay` and `serves="source"` are the remedies. On the embedded model
    (92 edits, 25 steps, guidance 7.5, learning rate 0.1) a decay of 0.001 takes the background error of the
    edit from 13.7e-3 to 8.7e-3 and the source from 44.3 to 43.0 dB; `serves="source"` and direct inversion
    have 9.5e-3 (experiments/inversion).

    Where the empty prompt is zeros (`ModelSpec.unprompted`, Stable Diffusion XL) all its columns have one
    key, one value and one gradient, so that they stay equal and one column's freedom is left, which is rarely
    enough: `model.unprompted=encoded` is the remedy, and the warning of what did not converge names it.

    Attributes:
        guidance: Guidance the embeddings are made for; None: that of the request. 1 leaves nothing to do.
        inversion_guidance: Guidance of the backward pass that makes the pivot.
        inner_steps: Most updates per step.
        learning_rate: Adam's, at the first step; None: the model's own, which is the published 0.01 where its
            configuration does not say otherwise. Small models want more: the embedded one has 0.1.
        tolerance: Loss at which the first step stops.
        serves: "all" rows take the embeddings; or the "source" alone (single-branch ablation); or "latent"
            (null-latent ablation): every row keeps the empty prompt, and what the embedding does to the
            source's step is added to its latents. The published code works this offset out for the target's
            prompt too, which no inversion knows; here the source's serves all rows.
        pivot: "ddim", or "noise": the image under one random noise at every level (ablation).
        per_step: An embedding per step; False: one for all steps (ablation), which takes `inner_steps`
            passes over the pivot at the same cost.
        decay: Weight of the embedding's mean squared distance from the empty prompt's, added to the loss and
            so to what decides when a step stops; 0 as published. An embedding that is free to go far leads
            the source back and the targets astray, see above.
        batch_size: Images that are optimised at once.
        autocast: The passes that are differentiated run in bfloat16; embeddings stay in float32.
        checkpointing: Recompute activations in the backward pass: less memory, a third more time.
        gate: A warning names every image whose `NullTextReplay.distance` is not below this.
    """

    needs: ClassVar[frozenset[Capability]] = frozenset({"ladder", "unconditional", "gradient"})

    guidance: Annotated[float | None, AtLeast(0)] = None
    inversion_guidance: Annotated[float, AtLeast(0)] = 1.0
    inner_steps: Annotated[int, AtLeast(0)] = 10
    learning_rate: Annotated[float | None, AtLeast(0)] = None
    tolerance: Annotated[float, AtLeast(0)] = 1e-5
    serves: Serves = "all"
    pivot: Pivot = "ddim"
    per_step: bool = True
    decay: Annotated[float, AtLeast(0)] = 0.0
    batch_size: Annotated[int, AtLeast(1)] = 8
    autocast: bool = False
    checkpointing: bool = False
    gate: Annotated[float, AtLeast(0)] = 5e-3

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is out of range.
        """
        check_fields(self, "inversion.")

    @property
    def draws_noise(self) -> bool:
        """Only a pivot of noise is drawn."""
        return self.pivot == "noise"

    @property
    def scales_every_step(self) -> bool:
        """Embeddings are made for one guidance scale, at every step."""
        return True

    def for_guidance(self, guidance: float) -> "NullTextInversion":
        """Embeddings are made for one guidance scale."""
        return self if self.guidance is not None else replace(self, guidance=guidance)

    def for_model(self, spec: ModelSpec) -> "NullTextInversion":
        """The learning rate belongs to the model, unless it is stated."""
        own = spec.null_text_learning_rate
        return self if self.learning_rate is not None else replace(self, learning_rate=own)

    def invert(
        self, model: DiffusionModel, sources: Sources, steps: int, tick: StepProgress = no_tick
    ) -> Sequence[Replay]:
        """See `Inversion.invert`. Works within `torch.inference_mode` and `torch.no_grad` too.

        Raises:
            P2PError: The model's weights were loaded within `torch.inference_mode`.
        """
        model.check_differentiable("inversion: null-text")
        method = self.for_model(model.spec)
        tick = every(-(-len(sources) // self.batch_size), tick)
        replays: list[Replay] = []
        # Tensors made in inference mode cannot be differentiated through; everything here is made outside.
        # Activations that are computed again have to come from the same kernel.
        kernel = None if model.call is None else model.call.kernel
        with torch.inference_mode(False), torch.no_grad(), attention_by(kernel):
            for first in range(0, len(sources), self.batch_size):
                part = sources.part(range(first, min(first + self.batch_size, len(sources))))
                pivot = self._pivot(model, part, steps)
                run = _Optimisation(method, model, pivot, part.conditioning, steps, self._scale(model))
                replays += run.replays(tick)
        # Where every column is zero each has the same key and value, and so the same gradient, for ever.
        remedy = "set model.unprompted=encoded: columns that start at zero can only move together; or " * (
            model.spec.unprompted == "zeros"
        )
        for prompt, replay in zip(sources.prompts, replays, strict=True):
            if isinstance(replay, NullTextReplay) and not replay.converged:
                log.warning(
                    "null-text did not converge on the image of %r: its latents are %.2g from the image's "
                    "(mean square; gate %.2g); %sraise inversion.learning_rate or inversion.inner_steps, or "
                    "let the prompt say better what is there",
                    prompt.text, replay.distance, self.gate, remedy,
                )  # fmt: skip
        return replays

    def _scale(self, model: DiffusionModel) -> float:
        return model.spec.guidance if self.guidance is None else self.guidance

    def _pivot(self, model: DiffusionModel, sources: Sources, steps: int) -> list[Float[Tensor, "n c h w"]]:
        if self.pivot == "ddim":
            return ddim_trajectory(model, sources, steps, self.inversion_guidance)
        return noise_trajectory(model, sources, steps)


class _Optimisation:
    """One batch of images on its way from the noise to the image.

    Args:
        method: Settings.
        model: The model.
        pivot: What to follow.
        text: Conditioning of the prompts.
        steps: Number of steps.
        scale: Guidance scale.
    """

    def __init__(
        self,
        method: NullTextInversion,
        model: DiffusionModel,
        pivot: list[Float[Tensor, "n c h w"]],
        text: Conditioning,
        steps: int,
        scale: float,
    ) -> None:
        self.method, self.model, self.pivot, self.text, self.steps = method, model, pivot, text, steps
        assert method.learning_rate is not None, "`for_model` has settled it"
        self.rate = method.learning_rate
        self.ladder = model.ladder(steps)
        self.guidance = scale
        self.inner_steps = 0 if scale == 1 else method.inner_steps
        count = len(pivot[0])
        self.unprompted = repeated(model.unconditional(), count)
        self.empty = self.unprompted[TEXT].to(model.state_dtype)
        self.losses = pivot[0].new_full((count, steps, self.inner_steps), torch.nan)
        self.updates = torch.zeros(count, dtype=torch.int64, device=pivot[0].device)

    def replays(self, tick: StepProgress) -> list[NullTextReplay]:
        """Optimises, then samples along to see where it leads."""
        shared = None if self.method.per_step else self._shared_embedding()
        null, x_t = self.empty, self.pivot[-1]
        nulls, offsets = [], []
        for step in range(self.steps):
            conditional = self._predict(x_t, step, self.text)
            null = self._descended(null, conditional, step) if shared is None else shared
            x_prev = self._guided_step(self._without(x_t, step, null), conditional, step)
            if self.method.serves == "latent":
                plain = self._guided_step(self._without(x_t, step, self.empty), conditional, step)
                offsets.append(x_prev - plain)
            nulls.append(null)
            x_t = x_prev
            tick()
        distances = (x_t - self.pivot[0]).square().flatten(1).mean(1).tolist()
        return [self._replay(index, distance, nulls, offsets) for index, distance in enumerate(distances)]

    def _replay(
        self, index: int, distance: float, nulls: Sequence[Tensor], offsets: Sequence[Tensor]
    ) -> NullTextReplay:
        method = self.method
        backward = int(self.updates[index])
        pivot_rows = self.steps * (1 if method.inversion_guidance == 1 else 2) * (method.pivot == "ddim")
        # A step takes a conditional pass and one with the embedding it goes on with; null-latent one more,
        # and a shared embedding was fitted to conditional predictions of the pivot.
        per_step = 2 + (method.serves == "latent") + (not method.per_step)
        return NullTextReplay(
            latents=self.pivot[-1][index],
            embeddings=None if offsets else torch.stack([null[index] for null in nulls]),
            offsets=torch.stack([offset[index] for offset in offsets]) if offsets else None,
            source_only=method.serves == "source",
            losses=self.losses[index],
            distance=distance,
            converged=distance < method.gate,
            rows=pivot_rows + per_step * self.steps + backward,
            rows_backward=backward,
        )

    def _descended(
        self,
        null: Float[Tensor, "n l d"],
        conditional: Denoised,
        step: int,
    ) -> Float[Tensor, "n l d"]:
        """The embeddings after the updates of a step; images whose loss is small enough leave early."""
        descent, rows = Descent.start(null), torch.arange(len(null), device=null.device)
        losses = self._loss(conditional, step)
        for inner in range(self.inner_steps):
            descent, loss = descent.updated(rows, losses, self._learning_rate(step))
            self._note(rows, step, inner, loss)
            rows = rows[loss >= self._threshold(step)]
            if not len(rows):
                break
        return descent.theta

    def _shared_embedding(self) -> Float[Tensor, "n l d"]:
        """One embedding for all steps: passes over the steps, each from its place on the pivot."""
        x_ts = [self.pivot[self.steps - step] for step in range(self.steps)]
        conditionals = [self._predict(x_t, step, self.text) for step, x_t in enumerate(x_ts)]
        descent, rows = Descent.start(self.empty), torch.arange(len(self.empty), device=self.empty.device)
        for sweep in range(self.inner_steps):
            unmet = torch.zeros(len(self.empty), dtype=torch.bool, device=rows.device)
            for step in range(self.steps):
                losses = self._loss(conditionals[step], step)
                descent, loss = descent.updated(rows, losses, self.rate)
                self._note(rows, step, sweep, loss)
                unmet[rows] |= loss >= self._threshold(step)
            rows = rows[unmet[rows]]
            if not len(rows):
                break
        return descent.theta

    def _loss(self, conditional: Denoised, step: int) -> Callable[[Tensor, Tensor], Tensor]:
        """Distance of the guided step from the pivot, per image, and what the embedding's own costs."""
        wanted = self.pivot[self.steps - 1 - step]

        def losses(null: Float[Tensor, "k l d"], rows: Int64[Tensor, " k"]) -> Float[Tensor, " k"]:
            prompted = conditional.select(rows)
            with checkpointed(self.model.network, self.method.checkpointing), self._precision():
                unconditional = self._without(prompted.x_t, step, null)
            x_prev = self._guided_step(unconditional, prompted, step)
            loss = (x_prev - wanted.index_select(0, rows)).square().flatten(1).mean(1)
            if self.method.decay == 0:
                return loss
            return loss + self.method.decay * (null - self.empty[: len(null)]).square().flatten(1).mean(1)

        return losses

    def _note(self, rows: Int64[Tensor, " k"], step: int, inner: int, loss: Float[Tensor, " k"]) -> None:
        self.losses[rows, step, inner] = loss.to(self.losses.dtype)
        self.updates[rows] += 1

    def _precision(self) -> AbstractContextManager[object]:
        if not self.method.autocast:
            return nullcontext()
        return torch.autocast(self.model.device.type, torch.bfloat16)

    def _predict(self, x_t: Float[Tensor, "n c h w"], step: int, conditioning: Conditioning) -> Denoised:
        return self.model.predict(x_t, self.ladder[step], conditioning)

    def _without(self, x_t: Float[Tensor, "n c h w"], step: int, null: Float[Tensor, "n l d"]) -> Denoised:
        """Predicted without the prompt, with embeddings in the place of the empty prompt's."""
        others = {name: tensor[: len(x_t)] for name, tensor in self.unprompted.items()}
        return self._predict(x_t, step, {**others, TEXT: null})

    def _guided_step(
        self, unconditional: Denoised, conditional: Denoised, step: int
    ) -> Float[Tensor, "n c h w"]:
        predicted = classifier_free(unconditional, conditional, self.guidance)
        return ddim_step(predicted, self.ladder[step], self.ladder[step + 1])

    def _learning_rate(self, step: int) -> float:
        return self.rate * (1 - self._published(step) / 100)

    def _threshold(self, step: int) -> float:
        return self.method.tolerance + self._published(step) * 2e-5

    def _published(self, step: int) -> float:
        """The step's number in a run of the published length."""
        return step * _PUBLISHED_STEPS / self.steps
