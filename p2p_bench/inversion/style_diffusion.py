"""StyleDiffusion (Li et al., arXiv 2303.15649): a network per image learns what values are made of.

Notation:
    z*_k     the pivot: latents from the image (k = 0) to the noise (k = T)
    A*_k     cross-attention maps of the pass at z*_k on the way to the noise; A*_T is A*_(T-1)
    M        the mapping network, see `mapping`; from the image's tokens to a factor and a summand of the text
    x_t      the latents that guided sampling has reached
    loss     mean squared distance of the guided step from the pivot, and of the maps from the pivot's
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, exp
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from p2p_bench.attention.kernels import attention_by
from p2p_bench.attention.maps import AtSites, KeptMaps, MapDistances, MapReader
from p2p_bench.attention.plan import StepPlan
from p2p_bench.attention.terms import Role
from p2p_bench.errors import ConfigError, P2PError
from p2p_bench.fields import Above, AtLeast, Between, check_fields
from p2p_bench.inversion.base import Inversion, Sources, StepProgress, every, no_tick
from p2p_bench.inversion.ddim import StartReplay
from p2p_bench.inversion.descent import Descent, RowLosses
from p2p_bench.inversion.mapping import MappingNetwork
from p2p_bench.metrics.clip_backbone import ClipNetwork, locate_clip, shared_clip
from p2p_bench.metrics.clip_tokens import image_tokens, token_width
from p2p_bench.models.conditioning import TEXT, VALUES, Conditioning, repeated, select
from p2p_bench.models.level import Denoised
from p2p_bench.models.model import DiffusionModel
from p2p_bench.models.spec import Capability, ModelSpec
from p2p_bench.sampling.ddim import ddim_inverse_step, ddim_step
from p2p_bench.sampling.replay import Replay, classifier_free

log = logging.getLogger(__name__)

_PUBLISHED_STEPS = 50
"""Step numbers in the published rates, thresholds and counts of updates are those of a run of this length."""

_HELD: dict[str, ClipNetwork] = {}
"""The image encoder of the last call, or each batch of images would load it anew."""


@dataclass(frozen=True, eq=False)
class StyleDiffusionReplay(StartReplay):
    """Sampling in which cross-attention's values are made of a text that was mapped, its keys of the text.

    Attributes:
        latents: Start latents.
        factors: What the text is multiplied with at each step.
        summands: What is then added to it.
        target_steps: First steps in which targets' values are mapped too; the source's are at every step.
        losses: Loss before each update, NaN where none was taken: the curve of every step.
        distance: Mean squared distance of the latents that the optimisation reached from the image's.
        rows: UNet rows spent.
        rows_backward: Rows that went backward.
    """

    factors: Float[Tensor, "steps l d"]
    summands: Float[Tensor, "steps l d"]
    target_steps: int
    losses: Float[Tensor, "steps inner"]
    distance: float
    rows_backward: int

    @property
    def unet_rows_backward(self) -> int:
        """One per update."""
        return self.rows_backward

    def values(self, step: int, role: Role, text: Float[Tensor, "l d"]) -> Float[Tensor, "l d"] | None:
        """The row's own text, mapped."""
        if role == "target" and step >= self.target_steps:
            return None
        return text * self.factors[step].to(text.device) + self.summands[step].to(text.device)


@dataclass(frozen=True)
class StyleDiffusionInversion(Inversion):
    """StyleDiffusion, several images at once.

    Along the pivot of DDIM inversion a mapping network is trained at every step, from where the step before
    it ended: with Adam at `learning_rate * (1 - i / 100)` in step i of 50, for up to
    `inner_steps * exp(-i / 10)` updates, until the loss is below `tolerance + i * 2e-5`, as released; in a
    run of another length i is scaled to 50. The loss compares the guided step with the pivot, and the maps of
    cross-attention at `ModelSpec.record_fraction` of the latent side, in encoder and decoder, with the
    pivot's: the mean over heads, pixels and columns of each site, and the sum of these. Values alone read the
    mapped text, and those of passes with the prompt alone.

    The released image encoder is OpenAI's CLIP ViT-B/16, whose tokens are as wide as the text of Stable
    Diffusion 1 (`encoder="ViT-B-16-quickgelu"`, `encoder_weights="openai"`); another has to be as wide as the
    model's text. By default it is the embedded world's CLIP, a small ResNet with five tokens, see
    `image_tokens`. It reads float32 here and half precision there. The weights that M starts from cannot be
    those of the released script, whose draws come after those of other networks.

    Attributes:
        guidance: Guidance that M is trained for; None: that of the request.
        inner_steps: Most updates of the first step.
        learning_rate: Adam's, at the first step.
        tolerance: Loss at which the first step stops.
        attention_weight: Weight of the maps in the loss; 1 as released, 0 leaves them out (ablation).
        tau_v: Share of the steps in which the targets' values are mapped.
        encoder: Architecture of open_clip; None with a folder, or for the embedded one. See `locate_clip`.
        encoder_weights: Folder, safetensors file or tag of open_clip, likewise.
        network_seed: Seed of M, the same for all images; None: that of the sample. The script has 1234.
        batch_size: Images that are optimised at once.
        gate: A warning names every image whose `StyleDiffusionReplay.distance` is not below this.
    """

    needs: ClassVar[frozenset[Capability]] = frozenset({"ladder", "unconditional", "gradient", "maps"})

    guidance: Annotated[float | None, AtLeast(0)] = None
    inner_steps: Annotated[int, AtLeast(1)] = 100
    learning_rate: Annotated[float, Above(0)] = 1e-2
    tolerance: Annotated[float, AtLeast(0)] = 1e-5
    attention_weight: Annotated[float, AtLeast(0)] = 1.0
    tau_v: Annotated[float, Between(0, 1)] = 0.5
    encoder: str | None = None
    encoder_weights: str | None = None
    network_seed: Annotated[int | None, AtLeast(0)] = None
    batch_size: Annotated[int, AtLeast(1)] = 4
    gate: Annotated[float, AtLeast(0)] = 5e-3

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is out of range.
        """
        check_fields(self, "inversion.")

    @property
    def draws_noise(self) -> bool:
        """M is drawn."""
        return self.network_seed is None

    @property
    def scales_every_step(self) -> bool:
        """M is trained for one guidance scale, at every step."""
        return True

    def for_guidance(self, guidance: float) -> "StyleDiffusionInversion":
        """M is trained for one guidance scale."""
        return self if self.guidance is not None else replace(self, guidance=guidance)

    def files(self) -> tuple[Path, ...]:
        """The image encoder's."""
        return locate_clip(self.encoder, self.encoder_weights).files

    def refusal(self, spec: ModelSpec, steps: int) -> str:
        """An image encoder whose tokens are not as wide as the text; one that is absent `files` names."""
        try:
            width = token_width(locate_clip(self.encoder, self.encoder_weights))
        except P2PError:
            return ""
        if width is not None and spec.text_width in (None, width):
            return ""
        wide = "of a kind whose tokens are not read" if width is None else f"{width} wide"
        return (
            f"style_diffusion maps an image encoder's tokens to the text columns of model {spec.name!r}, "
            f"which are {spec.text_width} wide, and those of the encoder are {wide}; set inversion.encoder "
            "and inversion.encoder_weights to one of that width: ViT-B-16-quickgelu and openai for 768"
        )

    def invert(
        self, model: DiffusionModel, sources: Sources, steps: int, tick: StepProgress = no_tick
    ) -> Sequence[Replay]:
        """See `Inversion.invert`. Works within `torch.inference_mode` and `torch.no_grad` too.

        Raises:
            P2PError: The model's weights were loaded within `torch.inference_mode`.
            ConfigError: The image encoder's tokens are not as wide as the text; or the model has no maps of
                the size that is compared.
            MissingWeightsError: The image encoder is not there.
        """
        model.check_differentiable("inversion: StyleDiffusion")
        tick = every(-(-len(sources) // self.batch_size), tick)
        replays: list[StyleDiffusionReplay] = []
        kernel = None if model.call is None else model.call.kernel
        # Tensors made in inference mode cannot be differentiated through; everything here is made outside.
        with torch.inference_mode(False), torch.no_grad(), attention_by(kernel), model.controlled():
            for first in range(0, len(sources), self.batch_size):
                part = sources.part(range(first, min(first + self.batch_size, len(sources))))
                replays += _Optimisation(self, model, part, steps).replays(tick)
        for prompt, replay in zip(sources.prompts, replays, strict=True):
            if replay.distance >= self.gate:
                log.warning(
                    "style_diffusion did not converge on the image of %r: its latents are %.2g from the "
                    "image's (mean square; gate %.2g); raise inversion.inner_steps, or let the prompt say "
                    "better what is there",
                    prompt.text, replay.distance, self.gate,
                )  # fmt: skip
        return replays

    def tokens(self, images: Float[Tensor, "n 3 h w"], device: torch.device) -> Float[Tensor, "n k d"]:
        """What the image encoder says of images in [0, 1], in float32."""
        network = _HELD["last"] = shared_clip(self.encoder, self.encoder_weights, device)
        return image_tokens(network, images)

    def start(self, network: MappingNetwork, seeds: Sequence[int]) -> Float[Tensor, "n p"]:
        """M before training, for samples of some seeds."""
        own = seeds if self.network_seed is None else [self.network_seed] * len(seeds)
        return network.start([torch.Generator().manual_seed(seed) for seed in own])


class _Optimisation:
    """One batch of images on its way to the noise and back.

    Args:
        method: Settings.
        model: The model, within `controlled`.
        sources: The images.
        steps: Number of steps.
    """

    def __init__(
        self, method: StyleDiffusionInversion, model: DiffusionModel, sources: Sources, steps: int
    ) -> None:
        self.method, self.model, self.steps = method, model, steps
        self.guidance = model.spec.guidance if method.guidance is None else method.guidance
        self.ladder, self.text = model.ladder(steps), sources.conditioning
        self.sites = compared_sites(model)
        if method.attention_weight and not self.sites:
            raise ConfigError(
                f"inversion: model {model.spec.name!r} has no cross-attention maps at "
                f"{model.spec.record_fraction:g} of the latent side; set model.record_fraction, or "
                "inversion.attention_weight=0"
            )
        tokens = method.tokens(sources.images, model.device)
        width = self.text[TEXT].shape[-1]
        if tokens.shape[-1] != width:
            raise ConfigError(
                f"inversion: the image encoder's tokens are {tokens.shape[-1]} wide and the text of model "
                f"{model.spec.name!r} {width}; set inversion.encoder and inversion.encoder_weights"
            )
        self.tokens = tokens.to(model.device, model.state_dtype)
        self.network = MappingNetwork(tokens.shape[1], self.text[TEXT].shape[1])
        self.theta = method.start(self.network, sources.seeds).to(self.tokens)
        self.unprompted = repeated(model.unconditional(), len(sources))
        self.pivot, self.maps = self._pivot(sources.latents)
        self.losses = self.theta.new_full((len(sources), steps, method.inner_steps), torch.nan)
        self.updates = torch.zeros(len(sources), dtype=torch.int64, device=model.device)

    def replays(self, tick: StepProgress) -> list[StyleDiffusionReplay]:
        """Trains, and samples along to see where it leads."""
        x_t, mapped = self.pivot[-1], []
        for step in range(self.steps):
            unconditional = None
            if self.guidance != 1:
                unconditional = self.model.predict(x_t, self.ladder[step], self.unprompted)
            self.theta = self._descended(x_t, unconditional, step)
            factors, summands = self.network(self.theta, self.tokens)
            mapped.append((factors, summands))
            told = self._told(torch.arange(len(x_t), device=x_t.device), self.theta)
            conditional = self.model.predict(x_t, self.ladder[step], told)
            x_t = self._guided_step(unconditional, conditional, step)
            tick()
        distances = (x_t - self.pivot[0]).square().flatten(1).mean(1).tolist()
        factors, summands = (torch.stack(part, 1) for part in zip(*mapped, strict=True))
        per_step = 2 + (self.guidance != 1)  # on the way there; back without the prompt, and with it
        target_steps = ceil(self.method.tau_v * self.steps - 1e-9)
        return [
            StyleDiffusionReplay(
                start, per_step * self.steps + int(updates), factors[row], summands[row],
                target_steps, self.losses[row], distances[row], int(updates),
            )
            for row, (start, updates) in enumerate(zip(self.pivot[-1], self.updates, strict=True))
        ]  # fmt: skip

    def _pivot(
        self, latents: Float[Tensor, "n c h w"]
    ) -> tuple[list[Float[Tensor, "n c h w"]], list[dict[str, Tensor]]]:
        """z*_k, and A*_k for each of them; the noise has the maps of the latents before it, as released."""
        pivot, maps = [latents], []
        for there, here in pairwise(reversed(self.ladder)):
            kept = KeptMaps()
            predicted = self.model.predict(pivot[-1], here, self.text, self._reading(kept, len(latents)))
            pivot.append(ddim_inverse_step(pivot[-1], predicted, here, there))
            maps.append(kept.maps)
        return pivot, [*maps, maps[-1]]

    def _descended(
        self, x_t: Float[Tensor, "n c h w"], unconditional: Denoised | None, step: int
    ) -> Float[Tensor, "n p"]:
        """M after the updates of a step; images whose loss is small enough leave early."""
        descent, rows = Descent.start(self.theta), torch.arange(len(x_t), device=x_t.device)
        losses, place = self._loss(x_t, unconditional, step), step * _PUBLISHED_STEPS / self.steps
        rate = self.method.learning_rate * (1 - place / 100)
        for inner in range(ceil(self.method.inner_steps * exp(-0.1 * place))):
            descent, loss = descent.updated(rows, losses, rate)
            self.losses[rows, step, inner] = loss.to(self.losses.dtype)
            self.updates[rows] += 1
            rows = rows[loss >= self.method.tolerance + place * 2e-5]
            if not len(rows):
                break
        return descent.theta

    def _loss(self, x_t: Float[Tensor, "n c h w"], unconditional: Denoised | None, step: int) -> RowLosses:
        """Distance of the guided step and of the maps from the pivot's, per image."""
        wanted, maps = self.pivot[self.steps - 1 - step], self.maps[self.steps - step]

        def losses(theta: Float[Tensor, "k p"], rows: Int64[Tensor, " k"]) -> Float[Tensor, " k"]:
            seen, inputs = MapDistances(maps, rows), x_t.index_select(0, rows)
            plan = self._reading(seen, len(rows))
            conditional = self.model.predict(inputs, self.ladder[step], self._told(rows, theta), plan)
            without = None if unconditional is None else unconditional.select(rows)
            x_prev = self._guided_step(without, conditional, step)
            loss = (x_prev - wanted.index_select(0, rows)).square().flatten(1).mean(1)
            if not self.method.attention_weight:
                return loss
            pixels, columns = maps[next(iter(maps))].shape[2:]
            return loss + self.method.attention_weight / (pixels * columns) * seen.total()

        return losses

    def _told(self, rows: Int64[Tensor, " k"], theta: Float[Tensor, "k p"]) -> Conditioning:
        """What the network is told of some images: values by their mapped text, the rest by the text."""
        told = select(self.text, rows)
        factors, summands = self.network(theta, self.tokens.index_select(0, rows))
        return {**told, VALUES: told[TEXT] * factors + summands}

    def _reading(self, reader: MapReader, count: int) -> StepPlan:
        return StepPlan(count, {}, maps=AtSites(self.sites, reader) if self.method.attention_weight else None)

    def _guided_step(
        self, unconditional: Denoised | None, conditional: Denoised, step: int
    ) -> Float[Tensor, "n c h w"]:
        predicted = conditional
        if unconditional is not None:
            predicted = classifier_free(unconditional, conditional, self.guidance)
        return ddim_step(predicted, self.ladder[step], self.ladder[step + 1])


def compared_sites(model: DiffusionModel) -> frozenset[str]:
    """Names of the sites whose maps are compared: 16 x 16 of 64 x 64, none of the middle, as released."""
    return frozenset(
        site.name
        for site in model.sites
        if site.kind == "cross"
        and site.place in ("down", "up")
        and site.fraction == model.spec.record_fraction
    )
