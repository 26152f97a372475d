"""Checkpoints of Stable Diffusion 3 and 3.5, in the `StableDiffusion3Pipeline` directory format."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from transformers import CLIPTextModelWithProjection, T5EncoderModel

from p2p_bench.attention.sites import transformer_sites
from p2p_bench.errors import ConfigError
from p2p_bench.fields import Above, AtLeast, Between, check_fields
from p2p_bench.guidance import EVERY_STEP, GuidanceInterval, parse_guidance_interval
from p2p_bench.models.autoencoder import set_way, way_checksum
from p2p_bench.models.calls import Calling
from p2p_bench.models.config_values import check_values
from p2p_bench.models.device import usable_device
from p2p_bench.models.files import check_complete, checkpoint_checksum, checkpoint_directory, read_layout
from p2p_bench.models.flow_parts import check_size, read_levels, read_t5
from p2p_bench.models.layouts import STABLE_DIFFUSION_3, Layout
from p2p_bench.models.lora import fuse, read_loras, with_loras
from p2p_bench.models.part_config import PartConfig
from p2p_bench.models.parts import check_headers, load_part
from p2p_bench.models.sd3 import ClipAndT5Reader, StableDiffusion3
from p2p_bench.models.sdxl import TwoClipReader
from p2p_bench.models.settings import DTYPES, SIDE, AttentionBackend, Autoencoding, Dtype, Offload, offloaded
from p2p_bench.models.spec import DIFFUSION, ModelSpec
from p2p_bench.models.t5 import (
    MOST_TOKENS,
    NoT5Reader,
    T5Reader,
    check_t5_tokenizer,
    keep_outputs_wide,
)
from p2p_bench.models.tokenizer import TokenizerReader, clip_columns, load_tokenizer
from p2p_bench.pinned import with_pinned_settings

_KINDS = {kind.__name__: kind for kind in (CLIPTextModelWithProjection, T5EncoderModel)}
_CLIP_TOKENS = 77


@dataclass(frozen=True)
class SD3Checkpoint:
    """A checkpoint of Stable Diffusion 3 or 3.5: medium, large or turbo; what else is there is not read.

    Cheap to make: nothing is read before `spec`, `reader` or `load` is called. No pickle is read and nothing
    is downloaded.

    Attributes:
        path: Directory with `model_index.json`, or `owner/name` in the local Hugging Face cache.
        name: Name in results.
        guidance: Default guidance scale; at least 0. Turbo models run at 1, without an unconditional pass.
        steps: Default number of denoising steps; at least 1.
        self_fraction: Pixel columns, and attention of the image to itself, are injected at maps of at most
            this fraction of the latent side, in (0, 1]; all maps have one half of it.
        record_fraction: Attention maps are recorded at this fraction of the latent side, in (0, 1].
        dtype: Number format the weights are loaded in, unless `load` is told another.
        variant: Infix of the weight files, such as "fp16" for `model.fp16.safetensors`.
        null_text_learning_rate: Where null-text inversion starts on this model, unless it is told another.
        revision: Branch, tag or commit of `owner/name`; None: its main branch, as it was when fetched.
        t5: Whether T5 is loaded where the checkpoint has it; without it its columns are zeros, as in the
            pipeline with `text_encoder_3=None`.
        t5_tokens: Text columns of T5; the pipeline's `max_sequence_length`.
        size: Side of a square image in pixels; None is that of the checkpoint.
        lora: A LoRA that is added to the weights, as `[path, scale]`, or a list of such; see `lora`.
        vae: How images go through the VAE, see `UNetCheckpoint`.
        compile: Whether the network is compiled (`torch.compile`), see `CompiledNetwork`.
        attention_backend: The only kernel of attention: "flash", "efficient", "cudnn" or "math", where device
            and number format have it; None: torch chooses.
        offload: Which weights rest in main memory until they are needed: "none"; "model", all but those of
            the network that computes; "sequential", all but those of the layer that does, without gradients.
        guidance_interval: Between which parts of the steps guidance acts, unless a run says otherwise.
    """

    path: Path | str
    name: str = "sd3"
    guidance: Annotated[float, AtLeast(0)] = 7.0
    steps: Annotated[int, AtLeast(1)] = 28
    self_fraction: Annotated[float, SIDE] = 0.5
    record_fraction: Annotated[float, SIDE] = 0.5
    dtype: Dtype = "float32"
    variant: str | None = None
    null_text_learning_rate: Annotated[float, Above(0)] = 1e-2
    revision: str | None = None
    t5: bool = True
    t5_tokens: Annotated[int, Between(1, MOST_TOKENS)] = 256
    size: Annotated[int | None, AtLeast(1)] = None
    lora: Path | str | list[Any] | None = None
    vae: Autoencoding = "whole"
    compile: bool = False
    attention_backend: AttentionBackend = None
    offload: Offload = "none"
    guidance_interval: GuidanceInterval = EVERY_STEP

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is out of range.
        """
        check_fields(self, "model.")
        interval = parse_guidance_interval(self.guidance_interval, "model.guidance_interval")
        object.__setattr__(self, "guidance_interval", interval)

    def spec(self) -> ModelSpec:
        """Reads configuration files and headers; a checkpoint that is absent, cut short or mixed shows here.

        Raises:
            MissingWeightsError: A file is missing, damaged, no safetensors, or of another model than others.
            ConfigError: The checkpoint is of another layout, or has no image of that size.
        """
        directory, layout = self._place()
        check_complete(directory, self.name, self.variant, self.t5)
        if layout.t5 is not None:
            check_t5_tokenizer(directory / layout.tokenizers[layout.t5], self.name)
        check_headers(directory, self.name, layout, self.variant)
        network, vae = (self._config(directory, part) for part in (layout.network, layout.vae))
        texts = {part: self._config(directory, part) for part in layout.encoders}
        check_values(SD3Transformer2DModel, network)
        check_values(AutoencoderKL, vae)
        for part, kind in layout.encoders.items():
            check_values(_KINDS[kind], texts[part])
        _check_together(layout, network, vae, texts)
        latent, image = self._sizes(network, vae)
        patch = network.integer("patch_size", 2)
        return ModelSpec(
            name=self.name,
            family="sd3",
            latent_channels=network.integer("in_channels", 16),
            latent_size=latent,
            image_size=image,
            max_tokens=self._clip_columns(directory, layout) + self.t5_tokens,
            prediction_type="flow",
            guidance=self.guidance,
            steps=self.steps,
            self_fraction=self.self_fraction,
            record_fraction=self.record_fraction,
            vae_scaling=vae.number("scaling_factor"),
            vae_shift=vae.offset("shift_factor"),
            checksum=self._checksum(directory, layout),
            timesteps=read_levels(directory, self.name, (latent[0] // patch) * (latent[1] // patch)),
            null_text_learning_rate=self.null_text_learning_rate,
            capabilities=offloaded(DIFFUSION | {"flow"}, self.offload),
            guidance_interval=parse_guidance_interval(self.guidance_interval),
        )

    def tokenizer(self) -> Any:
        """Loads the first tokenizer only.

        Raises:
            MissingWeightsError: Its files are missing or damaged, or are another model's.
        """
        return self._clip_tokenizer(*self._place(), 0)

    def reader(self) -> ClipAndT5Reader:
        """What reads prompts, without weights.

        Raises:
            MissingWeightsError: See `tokenizer`.
        """
        directory, layout = self._place()
        tokenizers = [self._clip_tokenizer(directory, layout, place) for place in (0, 1)]
        clips = [TokenizerReader(tokenizer, name="its CLIP") for tokenizer in tokenizers]
        t5: T5Reader | NoT5Reader = NoT5Reader(self.t5_tokens)
        if layout.t5 is not None:
            t5 = T5Reader(read_t5(directory, layout, self.name, self.t5_tokens), "its T5")
        return ClipAndT5Reader(TwoClipReader(*clips), t5)

    @with_pinned_settings
    def load(self, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> StableDiffusion3:
        """Loads the weights. Nothing around the call decides them, see `p2p_bench.pinned`.

        Args:
            device: Where to.
            dtype: Number format; None takes the checkpoint's own `dtype`.

        Raises:
            MissingWeightsError: A file is missing or cannot be read, or holds other tensors than the network
                needs, or damaged ones.
            ConfigError: The device is not there, or cannot do what the settings ask of it.
        """
        spec = self.spec()
        directory, layout = self._place()
        dtype = dtype or DTYPES[self.dtype]
        device = usable_device(device, dtype)
        calling = Calling(self.name, device, dtype, self.compile, self.attention_backend, self.offload)

        def part(kind: Any, folder: str) -> Any:
            return load_part(kind, directory / folder, self.name, calling.home, dtype, self.variant)

        reader = self.reader()
        encoders = tuple(part(_KINDS[kind], folder) for folder, kind in layout.encoders.items())
        transformer = part(SD3Transformer2DModel, layout.network)
        networks = {layout.network: transformer, **dict(zip(layout.encoders, encoders, strict=True))}
        for lora in read_loras(self.lora, self.name):
            fuse(lora, networks, self.name)
        if layout.t5 is not None and dtype == torch.float16:
            keep_outputs_wide(encoders[layout.t5])
        vae, sites = part(AutoencoderKL, layout.vae), transformer_sites(transformer)
        set_way(vae, self.vae)
        return StableDiffusion3(
            spec=spec,
            reader=reader,
            sites=sites,
            call=calling.of(transformer, sites, encoders, vae),
            transformer=transformer,
            vae=vae,
            encoders=encoders,
            device=device,
            dtype=dtype,
        )

    def _place(self) -> tuple[Path, Layout]:
        directory = checkpoint_directory(self.path, self.name, self.revision)
        layout = read_layout(directory, self.name)
        if layout.family != STABLE_DIFFUSION_3.family:
            raise ConfigError(
                f"model {self.name!r}: this is a checkpoint of {layout.title}, expected "
                f"{STABLE_DIFFUSION_3.title}; model=local takes either"
            )
        return directory, layout if self.t5 else layout.without_t5()

    def _checksum(self, directory: Path, layout: Layout) -> str:
        files = checkpoint_checksum(directory, layout, self.variant)
        return way_checksum(with_loras(files, self.lora, self.name), self.vae)

    def _config(self, directory: Path, part: str) -> PartConfig:
        return PartConfig.read(directory / part / "config.json", self.name)

    def _clip_tokenizer(self, directory: Path, layout: Layout, place: int) -> Any:
        folder, encoder = directory / layout.tokenizers[place], list(layout.encoders)[place]
        embeddings = self._config(directory, encoder).integer("vocab_size", 49408)
        return load_tokenizer(folder, self.name, self._clip_columns(directory, layout), embeddings, encoder)

    def _clip_columns(self, directory: Path, layout: Layout) -> int:
        """Text columns of the CLIPs, which are the first two encoders."""
        texts = [self._config(directory, part) for part in list(layout.encoders)[:2]]
        most = [one.integer("max_position_embeddings", _CLIP_TOKENS) for one in texts]
        return clip_columns([directory / folder for folder in layout.tokenizers[:2]], most, self.name)

    def _sizes(self, network: PartConfig, vae: PartConfig) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width of latents and of images."""
        patch = network.integer("patch_size", 2)
        factor = 2 ** (len(vae.integers("block_out_channels")) - 1)
        image = network.integer("sample_size", 128) * factor if self.size is None else self.size
        check_size(self.name, image, factor * patch)
        most = network.integer("pos_embed_max_size", 96) * factor * patch
        if image > most:
            raise ConfigError(
                f"model {self.name!r}: size: expected {most} pixels at most, its positions end there, "
                f"got {image}"
            )
        return (image // factor, image // factor), (image, image)


def _check_together(
    layout: Layout, network: PartConfig, vae: PartConfig, texts: Mapping[str, PartConfig]
) -> None:
    """Refuses configurations of networks that are not the family's, or do not fit one another."""
    network.check_class("SD3Transformer2DModel")
    vae.check_class("AutoencoderKL")
    for part, config in texts.items():
        config.check_class(layout.encoders[part])
    channels, patch = network.integer("in_channels", 16), network.integer("patch_size", 2)
    if network.integer("out_channels", 16) != channels:
        raise network.fault("out_channels", f"its in_channels ({channels})")
    if vae.integer("latent_channels", 4) != channels:
        raise vae.fault("latent_channels", f"the {channels} in_channels of the transformer")
    if patch & (patch - 1):
        raise network.fault("patch_size", "a power of two")
    first, second, *t5 = texts.values()
    width = network.integer("joint_attention_dim", 4096)
    pooled = network.integer("pooled_projection_dim", 2048)
    if t5 and t5[0].integer("d_model", 512) != width:
        raise t5[0].fault("d_model", f"the joint_attention_dim of the transformer ({width})")
    if first.integer("hidden_size", 512) + second.integer("hidden_size", 512) > width:
        raise second.fault("hidden_size", f"with the other's at most the joint_attention_dim ({width})")
    projected = [one.integer("projection_dim", 512) for one in (first, second)]
    if sum(projected) != pooled:
        raise second.fault("projection_dim", f"{pooled - projected[0]}, for pooled_projection_dim {pooled}")
