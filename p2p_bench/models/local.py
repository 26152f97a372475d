"""A checkpoint of any family: which one it is, is read from its `model_index.json`."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import torch

from p2p_bench.errors import ConfigError
from p2p_bench.fields import Above, AtLeast, Between, OneOf, check_fields
from p2p_bench.models.checkpoint import UNetCheckpoint
from p2p_bench.models.deepfloyd_checkpoint import DeepFloydCheckpoint
from p2p_bench.models.files import checkpoint_directory, read_layout
from p2p_bench.models.flux_checkpoint import FluxCheckpoint
from p2p_bench.models.layouts import Family
from p2p_bench.models.model import DiffusionModel
from p2p_bench.models.sd3_checkpoint import SD3Checkpoint
from p2p_bench.models.settings import SIDE, AttentionBackend, Autoencoding, Dtype, Offload, Size
from p2p_bench.models.spec import ModelSpec
from p2p_bench.models.t5 import MOST_TOKENS
from p2p_bench.prompts.words import PromptReader

FamilyCheckpoint = UNetCheckpoint | DeepFloydCheckpoint | SD3Checkpoint | FluxCheckpoint

KINDS: dict[Family, type[FamilyCheckpoint]] = {
    "sd": UNetCheckpoint,
    "sdxl": UNetCheckpoint,
    "ldm": UNetCheckpoint,
    "ip2p": UNetCheckpoint,
    "if": DeepFloydCheckpoint,
    "sd3": SD3Checkpoint,
    "flux": FluxCheckpoint,
}
"""The checkpoint of each family."""


@dataclass(frozen=True)
class LocalCheckpoint:
    """A checkpoint of a family that its files name; settings that are None are that family's own.

    Cheap to make: nothing is read before `spec`, `tokenizer`, `reader` or `load` is called.

    Attributes:
        path: Directory with `model_index.json`, or `owner/name` in the local Hugging Face cache.
        name: Name in results.
        guidance: Default guidance scale; at least 0.
        steps: Default number of denoising steps; at least 1.
        self_fraction: Self-attention is injected at maps of at most this fraction of the latent side.
        record_fraction: Attention maps are recorded at this fraction of the latent side.
        dtype: Number format the weights are loaded in, unless `load` is told another.
        variant: Infix of the weight files, such as "fp16" for `model.fp16.safetensors`.
        null_text_learning_rate: Where null-text inversion starts on this model, unless it is told another.
        revision: Branch, tag or commit of `owner/name`; None: its main branch, as it was when fetched.
        unprompted: What the unconditional pass is told, in families that leave a choice.
        t5: Whether T5 is loaded, in families that can do without.
        t5_tokens: Text columns of T5, in families that leave a choice.
        size: Height and width of images in pixels, or one number for both, in families that leave a choice.
        consistency: Whether it was distilled for the sampler of latent consistency models.
        lora: A LoRA, as `[path, scale]`, or a list of such, in families that take it.
        embeddings: Words that were learnt by textual inversion, in families that take them.
        vae: How images go through the VAE, in families that have one.
        channels_last: How tensors lie in memory, in families that leave a choice.
        compile: Whether the network is compiled (`torch.compile`), see `CompiledNetwork`.
        attention_backend: The only kernel of attention: "flash", "efficient", "cudnn" or "math", where device
            and number format have it; None: torch chooses.
        offload: Which weights rest in main memory until they are needed: "none"; "model", all but those of
            the network that computes; "sequential", all but those of the layer that does, without gradients.
        upscaler: The stage that enlarges images, in a family of cascades.
        upscaler_steps: Number of its denoising steps.
        upscaler_guidance: Its guidance scale; at least 1.
        upscaler_noise_level: Timestep whose noise is added to the image that it is shown.
        upscaler_revision: Branch, tag or commit of its `owner/name`.
        true_cfg: Whether guidance takes a pass without the prompt, in families distilled to do without.
    """

    path: Path | str
    name: str = "local"
    guidance: Annotated[float | None, AtLeast(0)] = None
    steps: Annotated[int | None, AtLeast(1)] = None
    self_fraction: Annotated[float | None, SIDE] = None
    record_fraction: Annotated[float | None, SIDE] = None
    dtype: Dtype = "float32"
    variant: str | None = None
    null_text_learning_rate: Annotated[float | None, Above(0)] = None
    revision: str | None = None
    unprompted: Annotated[str | None, OneOf(("encoded", "zeros"))] = None
    t5: bool | None = None
    t5_tokens: Annotated[int | None, Between(1, MOST_TOKENS)] = None
    size: Size | None = None
    consistency: bool | None = None
    lora: Path | str | list[Any] | None = None
    embeddings: Path | str | list[Any] | None = None
    vae: Autoencoding | None = None
    channels_last: bool | None = None
    true_cfg: bool | None = None
    compile: bool = False
    attention_backend: AttentionBackend = None
    offload: Offload = "none"
    upscaler: Path | str | None = None
    upscaler_steps: Annotated[int | None, AtLeast(1)] = None
    upscaler_guidance: Annotated[float | None, AtLeast(1)] = None
    upscaler_noise_level: Annotated[int | None, Between(0, 999)] = None
    upscaler_revision: str | None = None

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is out of range.
        """
        check_fields(self, "model.")

    def spec(self) -> ModelSpec:
        """See `Checkpoint`."""
        return self.of_family().spec()

    def tokenizer(self) -> Any:
        """The first tokenizer alone."""
        return self.of_family().tokenizer()

    def reader(self) -> PromptReader:
        """See `Checkpoint`."""
        return self.of_family().reader()

    def load(self, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> DiffusionModel:
        """The model with its weights; `dtype` None takes the checkpoint's own."""
        return self.of_family().load(device, dtype)

    def of_family(self) -> FamilyCheckpoint:
        """The checkpoint as one of its family.

        Raises:
            MissingWeightsError: It is not there.
            ConfigError: It is of a family that is not known here, or that lacks a setting which is given.
        """
        layout = read_layout(checkpoint_directory(self.path, self.name, self.revision), self.name)
        kind = KINDS[layout.family]
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        given = {name: value for name, value in given.items() if value is not None}
        unknown = sorted(given.keys() - {field.name for field in fields(kind)})
        if unknown:
            raise ConfigError(
                f"model {self.name!r}: {layout.title} leaves no choice of {', '.join(unknown)}; leave it out"
            )
        made: FamilyCheckpoint = kind(**given)
        return made
