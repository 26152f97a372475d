"""Checkpoints of FLUX.1, in the `FluxPipeline` directory format."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from transformers import CLIPTextModel, T5EncoderModel

from p2p_bench.attention.sites import transformer_sites
from p2p_bench.errors import ConfigError
from p2p_bench.fields import Above, AtLeast, Between, check_fields
from p2p_bench.models.autoencoder import set_way, way_checksum
from p2p_bench.models.calls import Calling
from p2p_bench.models.config_values import check_values
from p2p_bench.models.device import usable_device
from p2p_bench.models.files import check_complete, checkpoint_checksum, checkpoint_directory, read_layout
from p2p_bench.models.flow_parts import check_size, read_levels, read_t5
from p2p_bench.models.flux import Flux, T5AndClipReader
from p2p_bench.models.layouts import FLUX, Layout
from p2p_bench.models.lora import fuse, read_loras, with_loras
from p2p_bench.models.part_config import PartConfig
from p2p_bench.models.parts import check_headers, load_part
from p2p_bench.models.settings import DTYPES, SIDE, AttentionBackend, Autoencoding, Dtype, Offload, offloaded
from p2p_bench.models.spec import Capability, GuidedBy, ModelSpec
from p2p_bench.models.t5 import MOST_TOKENS, T5Reader, check_t5_tokenizer, keep_outputs_wide
from p2p_bench.models.tokenizer import TokenizerReader, clip_columns, load_tokenizer
from p2p_bench.pinned import with_pinned_settings

_CAPABILITIES: frozenset[Capability] = frozenset({"ladder", "cross", "gradient", "flow"})
_PACKED = 4
"""Latents in a token."""


@dataclass(frozen=True)
class FluxCheckpoint:
    """A checkpoint of FLUX.1 [dev] or [schnell]; what else is there is not read.

    Guidance is an input of [dev], which was distilled to it, and [schnell] has none. Neither takes a pass
    without the prompt, so methods that need one are refused, unless `true_cfg` asks for such passes.

    Cheap to make: nothing is read before `spec`, `reader` or `load` is called. No pickle is read and nothing
    is downloaded.

    Attributes:
        path: Directory with `model_index.json`, or `owner/name` in the local Hugging Face cache.
        name: Name in results.
        guidance: Default guidance scale; None is 3.5 where the network is told it, else 1.
        steps: Default number of denoising steps; at least 1.
        self_fraction: Pixel columns are injected at maps of at most this fraction of the latent side, in
            (0, 1]; all maps have one half of it.
        record_fraction: Attention maps are recorded at this fraction of the latent side, in (0, 1].
        dtype: Number format the weights are loaded in, unless `load` is told another.
        variant: Infix of the weight files.
        null_text_learning_rate: Where null-text inversion starts on this model, unless it is told another.
        revision: Branch, tag or commit of `owner/name`; None: its main branch, as it was when fetched.
        t5_tokens: Text columns; the pipeline's `max_sequence_length`. [schnell] was trained with 256.
        size: Side of a square image in pixels; the files name none.
        true_cfg: Whether guidance acts on the difference to a pass without the prompt, as the pipeline's
            `true_cfg_scale` with an empty negative prompt; [dev] is told `embedded` then.
        embedded: Guidance that [dev] is told where `true_cfg` is on.
        lora: A LoRA that is added to the weights, as `[path, scale]`, or a list of such; see `lora`.
        vae: How images go through the VAE, see `UNetCheckpoint`.
        compile: Whether the network is compiled (`torch.compile`), see `CompiledNetwork`.
        attention_backend: The only kernel of attention: "flash", "efficient", "cudnn" or "math", where device
            and number format have it; None: torch chooses.
        offload: Which weights rest in main memory until they are needed: "none"; "model", all but those of
            the network that computes; "sequential", all but those of the layer that does, without gradients.
    """

    path: Path | str
    name: str = "flux"
    guidance: Annotated[float | None, AtLeast(0)] = None
    steps: Annotated[int, AtLeast(1)] = 28
    self_fraction: Annotated[float, SIDE] = 0.5
    record_fraction: Annotated[float, SIDE] = 0.5
    dtype: Dtype = "float32"
    variant: str | None = None
    null_text_learning_rate: Annotated[float, Above(0)] = 1e-2
    revision: str | None = None
    t5_tokens: Annotated[int, Between(1, MOST_TOKENS)] = 512
    size: Annotated[int, AtLeast(1)] = 1024
    true_cfg: bool = False
    embedded: Annotated[float, AtLeast(0)] = 3.5
    lora: Path | str | list[Any] | None = None
    vae: Autoencoding = "whole"
    compile: bool = False
    attention_backend: AttentionBackend = None
    offload: Offload = "none"

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is out of range.
        """
        check_fields(self, "model.")

    def spec(self) -> ModelSpec:
        """Reads configuration files and headers; a checkpoint that is absent, cut short or mixed shows here.

        Raises:
            MissingWeightsError: A file is missing, damaged, no safetensors, or of another model than others.
            ConfigError: The checkpoint is of another layout, or has no image of that size.
        """
        directory = self._directory()
        check_complete(directory, self.name, self.variant)
        check_t5_tokenizer(directory / "tokenizer_2", self.name)
        check_headers(directory, self.name, FLUX, self.variant)
        network, vae = (self._config(directory, part) for part in (FLUX.network, FLUX.vae))
        texts = {part: self._config(directory, part) for part in FLUX.encoders}
        check_values(FluxTransformer2DModel, network)
        check_values(AutoencoderKL, vae)
        check_values(CLIPTextModel, texts["text_encoder"])
        check_values(T5EncoderModel, texts["text_encoder_2"])
        _check_together(FLUX, network, vae, texts)
        factor = 2 ** (len(vae.integers("block_out_channels")) - 1)
        check_size(self.name, self.size, 2 * factor)
        side, guided_by = self.size // factor, self._guided_by(network)
        usual = self.embedded if guided_by == "input" else 1.0
        return ModelSpec(
            name=self.name,
            family="flux",
            latent_channels=network.integer("in_channels", 64) // _PACKED,
            latent_size=(side, side),
            image_size=(self.size, self.size),
            max_tokens=self.t5_tokens,
            prediction_type="flow",
            guidance=usual if self.guidance is None else self.guidance,
            steps=self.steps,
            self_fraction=self.self_fraction,
            record_fraction=self.record_fraction,
            vae_scaling=vae.number("scaling_factor"),
            vae_shift=vae.offset("shift_factor"),
            checksum=self._checksum(directory),
            timesteps=read_levels(directory, self.name, side * side // _PACKED, from_one=True),
            null_text_learning_rate=self.null_text_learning_rate,
            capabilities=offloaded(
                _CAPABILITIES | ({"unconditional"} if self.true_cfg else set()), self.offload
            ),
            guided_by=guided_by,
        )

    def tokenizer(self) -> Any:
        """Loads the tokenizer of the text columns only.

        Raises:
            MissingWeightsError: Its files are missing or damaged, or are another model's.
        """
        return read_t5(self._directory(), FLUX, self.name, self.t5_tokens)

    def reader(self) -> T5AndClipReader:
        """What reads prompts, without weights.

        Raises:
            MissingWeightsError: See `tokenizer`.
        """
        directory = self._directory()
        text = self._config(directory, "text_encoder")
        most, embeddings = text.integer("max_position_embeddings", 77), text.integer("vocab_size", 49408)
        folder = directory / "tokenizer"
        clip = load_tokenizer(folder, self.name, clip_columns([folder], [most], self.name), embeddings)
        return T5AndClipReader(T5Reader(self.tokenizer(), "its T5"), TokenizerReader(clip, name="its CLIP"))

    @with_pinned_settings
    def load(self, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Flux:
        """Loads the weights. Nothing around the call decides them, see `p2p_bench.pinned`.

        Args:
            device: Where to.
            dtype: Number format; None takes the checkpoint's own `dtype`.

        Raises:
            MissingWeightsError: A file is missing or cannot be read, or holds other tensors than the network
                needs, or damaged ones.
            ConfigError: The device is not there, or cannot do what the settings ask of it.
        """
        spec, directory = self.spec(), self._directory()
        dtype = dtype or DTYPES[self.dtype]
        device = usable_device(device, dtype)
        calling = Calling(self.name, device, dtype, self.compile, self.attention_backend, self.offload)

        def part(kind: Any, folder: str) -> Any:
            return load_part(kind, directory / folder, self.name, calling.home, dtype, self.variant)

        reader = self.reader()
        clip, t5 = part(CLIPTextModel, "text_encoder"), part(T5EncoderModel, "text_encoder_2")
        transformer = part(FluxTransformer2DModel, FLUX.network)
        networks = {FLUX.network: transformer, **dict(zip(FLUX.encoders, (clip, t5), strict=True))}
        for lora in read_loras(self.lora, self.name):
            fuse(lora, networks, self.name)
        if dtype == torch.float16:
            keep_outputs_wide(t5)
        vae, sites = part(AutoencoderKL, FLUX.vae), transformer_sites(transformer)
        set_way(vae, self.vae)
        told = self.embedded if self.true_cfg else spec.guidance
        return Flux(
            spec=spec,
            reader=reader,
            sites=sites,
            call=calling.of(transformer, sites, (clip, t5), vae),
            transformer=transformer,
            vae=vae,
            encoders=(clip, t5),
            device=device,
            dtype=dtype,
            embedded=told if transformer.config.guidance_embeds else None,
        )

    def _directory(self) -> Path:
        directory = checkpoint_directory(self.path, self.name, self.revision)
        layout = read_layout(directory, self.name)
        if layout != FLUX:
            raise ConfigError(
                f"model {self.name!r}: this is a checkpoint of {layout.title}, expected {FLUX.title}; "
                "model=local takes either"
            )
        return directory

    def _checksum(self, directory: Path) -> str:
        files = checkpoint_checksum(directory, FLUX, self.variant)
        return way_checksum(with_loras(files, self.lora, self.name), self.vae)

    def _config(self, directory: Path, part: str) -> PartConfig:
        return PartConfig.read(directory / part / "config.json", self.name)

    def _guided_by(self, network: PartConfig) -> GuidedBy:
        if self.true_cfg:
            return "passes"
        return "input" if network.values.get("guidance_embeds") else "nothing"


def _check_together(
    layout: Layout, network: PartConfig, vae: PartConfig, texts: Mapping[str, PartConfig]
) -> None:
    """Refuses configurations of networks that are not the family's, or do not fit one another."""
    network.check_class("FluxTransformer2DModel")
    vae.check_class("AutoencoderKL")
    for part, config in texts.items():
        config.check_class(layout.encoders[part])
    channels = network.integer("in_channels", 64)
    returned = network.values.get("out_channels") or channels
    if returned != channels or channels % _PACKED:
        raise ConfigError(
            f"model {network.model!r}: the transformer takes {channels} channels and returns {returned}, "
            "expected as many as it takes, in fours; fill, depth and canny checkpoints cannot be edited with"
        )
    axes, head = (
        network.values.get("axes_dims_rope", [16, 56, 56]),
        network.integer("attention_head_dim", 128),
    )
    if len(axes) != 3 or sum(axes) != head or any(one % 2 for one in axes):
        raise network.fault("axes_dims_rope", f"three even numbers that make its attention_head_dim ({head})")
    if network.integer("patch_size", 1) != 1:
        raise network.fault("patch_size", "1: latents are packed before they reach the transformer")
    if vae.integer("latent_channels", 4) * _PACKED != channels:
        raise vae.fault("latent_channels", f"a quarter of the transformer's {channels} in_channels")
    clip, t5 = texts.values()
    width, pooled = (
        network.integer("joint_attention_dim", 4096),
        network.integer("pooled_projection_dim", 768),
    )
    if t5.integer("d_model", 512) != width:
        raise t5.fault("d_model", f"the joint_attention_dim of the transformer ({width})")
    if clip.integer("hidden_size", 512) != pooled:
        raise clip.fault("hidden_size", f"the pooled_projection_dim of the transformer ({pooled})")
