"""Checkpoints of text-conditioned latent U-Nets, in the `StableDiffusionPipeline` directory format."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from p2p_bench.attention.sites import unet_sites
from p2p_bench.errors import ConfigError, MissingWeightsError
from p2p_bench.fields import Above, AtLeast, Between, OneOf, check_fields
from p2p_bench.models.files import (
    check_complete,
    checkpoint_checksum,
    checkpoint_directory,
    has_tokenizer,
)
from p2p_bench.models.parts import PartConfig, check_headers, load_part, usable_device
from p2p_bench.models.schedule import NoiseSchedule, schedule_from_config
from p2p_bench.models.spec import ModelSpec
from p2p_bench.models.stable_diffusion import StableDiffusion
from p2p_bench.models.tokenizer import ClipReader, load_tokenizer
from p2p_bench.models.vocabulary import read_vocabulary
from p2p_bench.pinned import with_pinned_settings

Dtype = Annotated[str, OneOf(("float64", "float32", "bfloat16", "float16"))]
"""Number formats of weights."""

SIDE = Between(0, 1, "a fraction of the latent side", open_low=True)
"""What sizes of attention maps are given in."""

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class UNetCheckpoint:
    """A Stable Diffusion 1.x / 2.x checkpoint, or any other of the same layout.

    Cheap to make: nothing is read before `spec`, `tokenizer` or `load` is called. No pickle is read
    and nothing is downloaded.

    Attributes:
        path: Directory with `model_index.json`, or `owner/name` in the local Hugging Face cache.
        name: Name in results.
        guidance: Default guidance scale; at least 0.
        steps: Default number of denoising steps; at least 1.
        self_fraction: Self-attention is injected at maps of at most this fraction of the latent side, in
            (0, 1].
        record_fraction: Attention maps are recorded at this fraction of the latent side, in (0, 1].
        dtype: Number format the weights are loaded in, unless `load` is told another.
        variant: Infix of the weight files, such as "fp16" for `model.fp16.safetensors`.
        null_text_learning_rate: Where null-text inversion starts on this model, unless it is told another;
            the default is the published one.
    """

    path: Path | str
    name: str = "local"
    guidance: Annotated[float, AtLeast(0)] = 7.5
    steps: Annotated[int, AtLeast(1)] = 50
    self_fraction: Annotated[float, SIDE] = 0.5
    record_fraction: Annotated[float, SIDE] = 0.25
    dtype: Dtype = "float32"
    variant: str | None = None
    null_text_learning_rate: Annotated[float, Above(0)] = 1e-2

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
            ConfigError: The checkpoint is of another layout.
        """
        directory = checkpoint_directory(self.path, self.name)
        check_complete(directory, self.name, self.variant)
        check_headers(directory, self.name, self.variant)
        unet, vae, text = (self._config(directory, part) for part in ("unet", "vae", "text_encoder"))
        self._check_layout(PartConfig.read(directory / "model_index.json", self.name).values, unet.values)
        _check_together(unet, vae, text)
        schedule = self._schedule(directory)
        height, width = _pair(unet, "sample_size")
        factor = 2 ** (len(vae.integers("block_out_channels")) - 1)
        return ModelSpec(
            name=self.name,
            family="sd",
            latent_channels=unet.integer("in_channels"),
            latent_size=(height, width),
            image_size=(height * factor, width * factor),
            max_tokens=text.integer("max_position_embeddings", 77),
            prediction_type=schedule.prediction_type,
            guidance=self.guidance,
            steps=self.steps,
            self_fraction=self.self_fraction,
            record_fraction=self.record_fraction,
            vae_scaling=vae.number("scaling_factor", 0.18215),
            checksum=checkpoint_checksum(directory, self.variant),
            vocabulary=read_vocabulary(directory, self.name),
            timesteps=schedule.layout,
            null_text_learning_rate=self.null_text_learning_rate,
        )

    def tokenizer(self) -> CLIPTokenizer:
        """Loads the tokenizer only.

        Raises:
            MissingWeightsError: Its files are missing or damaged, or are another model's.
        """
        directory = checkpoint_directory(self.path, self.name)
        if not has_tokenizer(directory):
            raise MissingWeightsError(
                f"model {self.name!r}: {directory / 'tokenizer'} lacks tokenizer.json "
                "(or vocab.json with merges.txt)"
            )
        text = self._config(directory, "text_encoder")
        limits = text.integer("max_position_embeddings", 77), text.integer("vocab_size", 49408)
        return load_tokenizer(directory / "tokenizer", self.name, *limits)

    def reader(self) -> ClipReader:
        """What reads prompts, without weights.

        Raises:
            MissingWeightsError: See `tokenizer`.
        """
        directory = checkpoint_directory(self.path, self.name)
        return ClipReader(self.tokenizer(), read_vocabulary(directory, self.name))

    @with_pinned_settings
    def load(self, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> StableDiffusion:
        """Loads the weights. Nothing around the call decides them, see `p2p_bench.pinned`.

        Args:
            device: Where to.
            dtype: Number format; None takes the checkpoint's own `dtype`.

        Raises:
            MissingWeightsError: A file is missing or cannot be read, or holds other tensors than the network
                needs, or damaged ones.
            ConfigError: The device is not there, or does not compute in the number format.
        """
        spec = self.spec()
        directory = checkpoint_directory(self.path, self.name)
        dtype = dtype or DTYPES[self.dtype]
        device = usable_device(device, dtype)

        def part(kind: Any, folder: str) -> Any:
            return load_part(kind, directory / folder, self.name, device, dtype, self.variant)

        tokenizer = self.tokenizer()
        text_encoder, unet = part(CLIPTextModel, "text_encoder"), part(UNet2DConditionModel, "unet")
        return StableDiffusion(
            spec=spec,
            tokenizer=tokenizer,
            schedule=self._schedule(directory),
            sites=unet_sites(unet),
            unet=unet,
            vae=part(AutoencoderKL, "vae"),
            text_encoder=text_encoder,
            device=device,
            dtype=dtype,
        )

    def _config(self, directory: Path, part: str) -> PartConfig:
        return PartConfig.read(directory / part / "config.json", self.name)

    def _schedule(self, directory: Path) -> NoiseSchedule:
        config = PartConfig.read(directory / "scheduler" / "scheduler_config.json", self.name)
        try:
            return schedule_from_config(config.values)
        except ConfigError as error:
            raise MissingWeightsError(f"model {self.name!r} in {config.file.parent}: {error}") from error

    def _check_layout(self, index: Mapping[str, Any], unet: Mapping[str, Any]) -> None:
        kind = index.get("_class_name")
        if kind != "StableDiffusionPipeline":
            raise ConfigError(
                f"model {self.name!r}: model_index.json names a {kind}, expected a StableDiffusionPipeline "
                "(Stable Diffusion 1.x or 2.x, or the same layout)"
            )
        if unet.get("in_channels") != unet.get("out_channels"):
            raise ConfigError(
                f"model {self.name!r}: the U-Net takes {unet.get('in_channels')} channels and returns "
                f"{unet.get('out_channels')}; inpainting and depth checkpoints cannot be edited with"
            )
        for key in ("addition_embed_type", "class_embed_type", "time_cond_proj_dim"):
            if unet.get(key):
                raise ConfigError(
                    f"model {self.name!r}: the U-Net needs an input this project does not give: "
                    f"{key}={unet[key]}"
                )


def _check_together(unet: PartConfig, vae: PartConfig, text: PartConfig) -> None:
    """Refuses configurations of other networks than the three, or of networks that do not fit one another."""
    for config, kind in ((unet, "UNet2DConditionModel"), (vae, "AutoencoderKL"), (text, "CLIPTextModel")):
        config.check_class(kind)
    latent, encoded = unet.integer("in_channels"), vae.integer("latent_channels", 4)
    if latent != encoded:
        raise vae.fault("latent_channels", f"the {latent} in_channels of the U-Net")
    attended, written = set(unet.integers("cross_attention_dim")), text.integer("hidden_size")
    if attended != {written}:
        raise text.fault("hidden_size", f"the cross_attention_dim of the U-Net ({min(attended)})")


def _pair(config: PartConfig, key: str) -> tuple[int, int]:
    sides = config.integers(key)
    if len(sides) > 2:
        raise config.fault(key, "one or two integers")
    return sides[0], sides[-1]
