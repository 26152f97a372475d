"""What is known of a model before its weights are loaded."""

from dataclasses import dataclass, field, replace
from typing import Literal

from p2p_bench.errors import ConfigError
from p2p_bench.guidance import EVERY_STEP, Interval
from p2p_bench.models.flow_levels import FlowLayout
from p2p_bench.models.timesteps import LevelKind, Spacing, TimestepLayout

Capability = Literal[
    "unconditional", "ladder", "cross", "gradient", "flow", "features", "maps", "noise", "instruction",
]  # fmt: skip
"""What a method may need of a model: a pass without the prompt ("unconditional"); noise levels that a
deterministic step can be taken along and back ("ladder"); attention sites with a column per token ("cross");
differentiable passes ("gradient"); velocities of a rectified flow, at any level ("flow"); a residual block in
the decoder whose features can be put into other rows ("features"); cross-attention to the text alone, whose
maps can be compared ("maps"); a prediction of the noise, which diffusions give and flows do not ("noise"); an
image beside the latents, of which the prompt says what is to be changed ("instruction")."""

DIFFUSION: frozenset[Capability] = frozenset({"unconditional", "ladder", "cross", "gradient"})
"""What a latent diffusion model with guidance can do."""

NOISE: frozenset[Capability] = frozenset({"noise"})
"""What a diffusion can do besides, and a flow cannot."""

MAPS: frozenset[Capability] = frozenset({"maps"})
"""What a network can do besides that attends to the text apart from the pixels."""

INSTRUCTED: frozenset[Capability] = frozenset({"instruction"})
"""What a model can do that edits an image by an instruction: without an image it was hardly trained, so that
nothing that samples or inverts by a prompt alone serves it."""

Unprompted = Literal["encoded", "zeros"]
"""What a pass without a prompt is told: the encoded empty prompt, or zeros for text and pooled vector."""

GuidedBy = Literal["passes", "input", "nothing"]
"""How a guidance scale acts: on the difference of a pass with and one without the prompt ("passes"); as an
input of the network, which was distilled to it ("input"); not at all, in one distilled without
("nothing")."""


@dataclass(frozen=True)
class Upscaling:
    """What the stage of a model does that enlarges the images of the stage before it.

    Attributes:
        steps: Number of its denoising steps.
        guidance: Its guidance scale; 1 takes no pass without the prompt.
        noise_level: Timestep whose noise is added to the enlarged image that its network is shown.
        factor: Times that it makes the sides longer.
    """

    steps: int
    guidance: float
    noise_level: int
    factor: int

    @property
    def passes(self) -> int:
        """Rows through its network for one image at one step."""
        return 2 if self.guidance > 1 else 1

    @property
    def rows(self) -> int:
        """Rows through its network for one image."""
        return self.steps * self.passes


@dataclass(frozen=True)
class ModelSpec:
    """Facts about a model that data, controllers and plans need.

    Attributes:
        name: Name in results, such as "world".
        family: Kind of network, for people; what a method asks is `capabilities`.
        latent_channels: Channels of a latent.
        latent_size: Height and width of a latent.
        image_size: Height and width of an image, in pixels; after the upscaler, where there is one.
        max_tokens: Text columns W: tokens of a prompt with begin, end and padding.
        prediction_type: What the network returns.
        guidance: Default guidance scale.
        steps: Default number of denoising steps.
        self_fraction: Self-attention is injected at maps of at most this fraction of the latent side.
        record_fraction: Attention maps are recorded at this fraction of the latent side.
        vae_scaling: Latents are the VAE's mean, less `vae_shift`, times this.
        checksum: SHA-256 over the configuration and weight files: equal means the same model.
        vocabulary: Words of the captions that it was trained on, in lower case; None: not known.
        timesteps: Which timesteps a run of so many steps takes.
        null_text_learning_rate: Where null-text inversion starts, unless it is told another.
        capabilities: What methods may ask of it, see `Capability`.
        unprompted: What its unconditional pass is told.
        consistency: Whether it was distilled for the sampler of latent consistency models; None: a LoRA may
            have done that, which does not say so.
        vae_shift: What is taken from the VAE's mean first.
        guided_by: How a guidance scale acts, see `GuidedBy`.
        upscaler: The stage that enlarges its images; None: there is none.
        guidance_interval: Between which parts of the steps guidance acts, unless a run says otherwise.
        text_width: Width of a text column, where cross-attention reads one text; None: not known.
        level_options: Settings of its scheduler's file by which a sampler of that kind takes other levels.
    """

    name: str
    family: str
    latent_channels: int
    latent_size: tuple[int, int]
    image_size: tuple[int, int]
    max_tokens: int
    prediction_type: str
    guidance: float
    steps: int
    self_fraction: float
    record_fraction: float
    vae_scaling: float
    checksum: str
    vocabulary: frozenset[str] | None = None
    timesteps: TimestepLayout | FlowLayout = field(default_factory=TimestepLayout)
    null_text_learning_rate: float = 1e-2
    capabilities: frozenset[Capability] = DIFFUSION
    unprompted: Unprompted = "encoded"
    consistency: bool | None = False
    vae_shift: float = 0.0
    guided_by: GuidedBy = "passes"
    upscaler: Upscaling | None = None
    guidance_interval: Interval = EVERY_STEP
    text_width: int | None = None
    level_options: tuple[str, ...] = ()

    def laid_out(self, kind: LevelKind, spacing: Spacing | None = None) -> "ModelSpec":
        """The same with the noise levels of another sampler, see `LevelKind`.

        Args:
            kind: Whose levels.
            spacing: Layout of the timesteps; None keeps the model's own.

        Raises:
            ConfigError: The model has no such levels, or was not made for them.
        """
        timesteps = self.timesteps.laid_out(kind, spacing)
        # A rectified flow has levels of its own, along which Euler's step is DDIM's.
        if self.prediction_type == "flow" and kind not in ("ddim", "euler", "flow"):
            raise ConfigError(
                f"sampler: model {self.name!r} is a rectified flow, whose levels this sampler does not have; "
                "take sampler=ddim, euler, heun or midpoint"
            )
        if self.prediction_type != "flow" and kind == "flow":
            raise ConfigError(
                f"sampler: model {self.name!r} is no rectified flow, along which alone this sampler steps; "
                "take sampler=dpmpp_2m for second order"
            )
        if kind == "consistency" and self.consistency is False:
            raise ConfigError(
                f"sampler: model {self.name!r} was not distilled for latent consistency; give it an LCM-LoRA "
                "(model.lora=[PATH, 1.0]), say that it was (model.consistency=true), or take another sampler"
            )
        return replace(self, timesteps=timesteps)
