"""Proximal guidance (ProxEdit, Han et al., arXiv 2306.05414) on top of negative-prompt inversion.

Notation:
    difference   conditional minus unconditional prediction of a row, the paper's guidance term
    threshold    lambda of the proximal step: entries up to it are taken for noise
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import max_pool2d

from p2p_bench.attention.terms import Role
from p2p_bench.fields import AtLeast, Between, check_fields
from p2p_bench.inversion.base import Inversion, Sources, StepProgress, no_tick
from p2p_bench.inversion.ddim import ddim_trajectory, passes
from p2p_bench.models.conditioning import Conditioning, row_of
from p2p_bench.models.level import Denoised, Prediction
from p2p_bench.models.model import DiffusionModel
from p2p_bench.models.spec import Capability
from p2p_bench.sampling.replay import Replay


@dataclass(frozen=True)
class ProximalInversion(Inversion):
    """Negative-prompt inversion that guides only where the target's prediction differs clearly.

    Deviations from the released code, which `as_released` undoes: its "l0" shrinks what it keeps (the
    proximal step of l1) and its "l1" shrinks twice. Its quantile runs over the whole batch; here it is
    always taken per target, over the differences of that target and of its source (0 in this method), so
    neither batch size nor other targets change a result, and one target alone gives the released threshold.

    Attributes:
        norm: "l0" keeps differences above the threshold as they are, "l1" moves them toward 0 by it.
        quantile: The threshold is this quantile of the absolute differences of a pair, in [0, 1]. The paper's
            value is 0.7, that of the PIE-Bench table 0.75.
        threshold: A fixed threshold instead of the quantile.
        inversion_guidance: Draw latents toward the pivot, where the difference is below the threshold.
        recon_t: Inversion guidance acts at timesteps below this (0..train timesteps).
        recon_lr: Part of the way to the pivot that it goes in a step, in [0, 1].
        dilate: Pixels by which the region that it spares is widened.
        guidance: Guidance scale of the backward pass; 1 needs no unconditional pass.
        as_released: Threshold as the released code does.
    """

    needs: ClassVar[frozenset[Capability]] = frozenset({"ladder", "unconditional"})
    norm: Literal["l0", "l1"] = "l0"
    quantile: Annotated[float, Between(0, 1)] = 0.7
    threshold: Annotated[float | None, AtLeast(0)] = None
    inversion_guidance: bool = False
    recon_t: Annotated[int, AtLeast(0)] = 400
    recon_lr: Annotated[float, Between(0, 1)] = 0.1
    dilate: Annotated[int, AtLeast(0)] = 1
    guidance: Annotated[float, AtLeast(0)] = 1.0
    as_released: bool = False

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is out of range.
        """
        check_fields(self, "inversion.")

    def invert(
        self, model: DiffusionModel, sources: Sources, steps: int, tick: StepProgress = no_tick
    ) -> Sequence[Replay]:
        """See `Inversion.invert`."""
        trajectory = ddim_trajectory(model, sources, steps, self.guidance, tick)
        # Inversion guidance needs the whole pivot, plain sampling its end alone.
        pivot = torch.stack(trajectory if self.inversion_guidance else trajectory[-1:], 1)
        pulled_from = sum(level.timestep >= self.recon_t for level in model.ladder(steps)[:-1])
        rows = steps * passes(model, self.guidance)
        return [
            ProximalReplay(self, one, row_of(sources.conditioning, place), pulled_from, rows)
            for place, one in enumerate(pivot)
        ]


@dataclass(frozen=True, eq=False)
class ProximalReplay(Replay):
    """Sampling away from the source prompt, with a proximal step on the targets' guidance.

    Attributes:
        method: Settings of the method.
        pivot: From the image to the start latents; without inversion guidance the start latents alone.
        conditioning: Of the source prompt, a single row.
        pulled_from: First step at which inversion guidance acts.
        rows: UNet rows spent on the pivot.
    """

    method: ProximalInversion
    pivot: Float[Tensor, "p c h w"]
    conditioning: Conditioning
    pulled_from: int
    rows: int

    @property
    def start(self) -> tuple[Float[Tensor, "c h w"], ...]:
        """The end of the pivot."""
        return (self.pivot[-1],)

    @property
    def unet_rows(self) -> int:
        """UNet rows spent on the pivot."""
        return self.rows

    def unconditional(self, step: int, role: Role) -> Conditioning:
        """The source prompt's, for all rows."""
        return self.conditioning

    def needs_unconditional(self, step: int, role: Role, guidance: float) -> bool:
        """Not the source: its predictions are the same. A target's difference is needed at any guidance."""
        return role == "target"

    def combine(
        self,
        step: int,
        roles: tuple[Role, ...],
        unconditional: Denoised,
        conditional: Denoised,
        guidance: Float[Tensor, "n 1 1 1"],
    ) -> Denoised:
        """Guidance with the difference after the proximal step."""
        difference = conditional.output - unconditional.output
        shrunk = self._shrunk(difference, self._thresholds(difference, roles))
        return conditional.with_output(unconditional.output + guidance * shrunk)

    def correct(
        self, step: int, roles: tuple[Role, ...], latents: Float[Tensor, "n c h w"], prediction: Prediction
    ) -> Float[Tensor, "n c h w"]:
        """Inversion guidance: toward the pivot where nothing is edited, source and targets alike."""
        method = self.method
        if not method.inversion_guidance or step < self.pulled_from:
            return latents
        difference = prediction.difference
        edited = self._edited(difference, self._thresholds(difference, roles)).to(latents)
        if method.dilate:
            edited = max_pool2d(edited, 2 * method.dilate + 1, stride=1, padding=method.dilate)
        pivot = self.pivot[len(self.pivot) - 2 - step].to(latents)
        return latents - method.recon_lr * (1 - edited) * (latents - pivot)

    def _thresholds(
        self, difference: Float[Tensor, "n c h w"], roles: tuple[Role, ...]
    ) -> Float[Tensor, "n 1 1 1"]:
        """Threshold of each row; that of the source is of no effect, for its difference is 0."""
        if self.method.threshold is not None:
            return difference.new_full((len(difference), 1, 1, 1), self.method.threshold)
        source = difference[roles.index("source")]
        pairs = torch.stack([torch.cat([source, row]).abs().flatten() for row in difference])
        return pairs.quantile(self.method.quantile, dim=1)[:, None, None, None]

    def _shrunk(
        self, difference: Float[Tensor, "n c h w"], threshold: Float[Tensor, "n 1 1 1"]
    ) -> Float[Tensor, "n c h w"]:
        """The proximal step."""
        soft = difference - difference.clamp(-threshold, threshold)
        if self.method.as_released:
            return soft if self.method.norm == "l0" else soft - threshold * soft.sign()
        return soft if self.method.norm == "l1" else difference.where(difference.abs() > threshold, 0)

    def _edited(
        self, difference: Float[Tensor, "n c h w"], threshold: Float[Tensor, "n 1 1 1"]
    ) -> Bool[Tensor, "n c h w"]:
        """Where a row is edited."""
        compared = self._shrunk(difference, threshold) if self.method.as_released else difference
        return compared.abs() > threshold
