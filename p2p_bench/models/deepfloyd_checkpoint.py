"""Checkpoints of DeepFloyd IF, stage I, in the `IFPipeline` directory format; stage II may go with them."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import torch
from diffusers import UNet2DConditionModel
from transformers import T5EncoderModel

from p2p_bench.attention.sites import unet_sites
from p2p_bench.errors import ConfigError, MissingWeightsError
from p2p_bench.fields import Above, AtLeast, Between, check_fields
from p2p_bench.hashing import digest
from p2p_bench.models.calls import Calling
from p2p_bench.models.config_values import check_values
from p2p_bench.models.deepfloyd_if import DeepFloydIF
from p2p_bench.models.device import usable_device
from p2p_bench.models.files import check_complete, checkpoint_checksum, checkpoint_directory, read_layout
from p2p_bench.models.layouts import DEEPFLOYD, SCHEDULER_FILE
from p2p_bench.models.level import Thresholding
from p2p_bench.models.part_config import PartConfig
from p2p_bench.models.parts import check_headers, load_part
from p2p_bench.models.pixels import pixel_schedule, thresholding_from_config
from p2p_bench.models.schedule import NoiseSchedule
from p2p_bench.models.settings import DTYPES, SIDE, AttentionBackend, Dtype, Offload, offloaded
from p2p_bench.models.spec import DIFFUSION, NOISE, ModelSpec
from p2p_bench.models.t5 import (
    MAX_TOKENS,
    SharedT5Tokenizer,
    T5Reader,
    check_t5_tokenizer,
    keep_outputs_wide,
    load_t5_tokenizer,
)
from p2p_bench.models.unet_config import check_pooled_heads, unet_features
from p2p_bench.models.upscaler_checkpoint import UpscalerCheckpoint
from p2p_bench.pinned import with_pinned_settings


@dataclass(frozen=True)
class DeepFloydCheckpoint:
    """A checkpoint of DeepFloyd IF, stage I: T5 encoder, U-Net, scheduler; what else is there is not read.

    Cheap to make: nothing is read before `spec`, `reader` or `load` is called. No pickle is read and nothing
    is downloaded.

    Attributes:
        path: Directory with `model_index.json`, or `owner/name` in the local Hugging Face cache.
        name: Name in results.
        guidance: Default guidance scale; at least 0.
        steps: Default number of denoising steps; at least 1.
        self_fraction: Pixel columns are injected at maps of at most this fraction of the side, in (0, 1].
        record_fraction: Attention maps are recorded at this fraction of the side, in (0, 1].
        dtype: Number format the weights are loaded in, unless `load` is told another.
        variant: Infix of the weight files, such as "fp16" for `model.fp16.safetensors`.
        null_text_learning_rate: Where null-text inversion starts on this model, unless it is told another.
        revision: Branch, tag or commit of `owner/name`; None: its main branch, as it was when fetched.
        compile: Whether the network is compiled (`torch.compile`), see `CompiledNetwork`.
        attention_backend: The only kernel of attention: "flash", "efficient", "cudnn" or "math", where device
            and number format have it; None: torch chooses.
        offload: Which weights rest in main memory until they are needed: "none"; "model", all but those of
            the network that computes; "sequential", all but those of the layer that does, without gradients.
        upscaler: Stage II, which enlarges source and edits alike after they are made: a directory of an
            `IFSuperResolutionPipeline`, or `owner/name` in the cache; None: images are those of stage I.
        upscaler_steps: Number of its denoising steps.
        upscaler_guidance: Its guidance scale; 1 takes no pass without the prompt.
        upscaler_noise_level: Timestep whose noise is added to the image that it is shown.
        upscaler_revision: Branch, tag or commit of its `owner/name`.
    """

    path: Path | str
    name: str = "if"
    guidance: Annotated[float, AtLeast(0)] = 7.0
    steps: Annotated[int, AtLeast(1)] = 100
    self_fraction: Annotated[float, SIDE] = 0.5
    record_fraction: Annotated[float, SIDE] = 0.25
    dtype: Dtype = "float32"
    variant: str | None = None
    null_text_learning_rate: Annotated[float, Above(0)] = 1e-2
    revision: str | None = None
    compile: bool = False
    attention_backend: AttentionBackend = None
    offload: Offload = "none"
    upscaler: Path | str | None = None
    upscaler_steps: Annotated[int, AtLeast(1)] = 50
    upscaler_guidance: Annotated[float, AtLeast(1)] = 4.0
    upscaler_noise_level: Annotated[int, Between(0, 999)] = 250
    upscaler_revision: str | None = None

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is out of range, or is about an upscaler where there is none.
        """
        check_fields(self, "model.")
        about = [field for field in fields(self) if field.name.startswith("upscaler_")]
        idle = [field.name for field in about if getattr(self, field.name) != field.default]
        if self.upscaler is None and idle:
            raise ConfigError(
                f"model.{idle[0]}: there is no upscaler that it could be about; set model.upscaler=DIR too, "
                "or leave it out"
            )

    def spec(self) -> ModelSpec:
        """Reads configuration files and headers; a checkpoint that is absent, cut short or mixed shows here.

        Raises:
            MissingWeightsError: A file is missing, damaged, no safetensors, or of another model than others.
            ConfigError: The checkpoint is of another layout.
        """
        directory = self._directory()
        check_complete(directory, self.name, self.variant)
        check_t5_tokenizer(directory / "tokenizer", self.name)
        check_headers(directory, self.name, DEEPFLOYD, self.variant)
        unet, text = (self._config(directory, part) for part in ("unet", "text_encoder"))
        check_values(UNet2DConditionModel, unet)
        check_values(T5EncoderModel, text)
        _check_network(unet, text)
        schedule, _ = self._schedule(directory)
        sides = unet.integers("sample_size")
        small, checksum = (sides[0], sides[-1]), checkpoint_checksum(directory, DEEPFLOYD, self.variant)
        upscaler, upscaling = self._upscaler(), None
        if upscaler is not None:
            upscaling = upscaler.spec(small, unet.integer("encoder_hid_dim"))
            checksum = digest({"checkpoint": checksum, "upscaler": upscaler.checksum()})
        factor = 1 if upscaling is None else upscaling.factor
        return ModelSpec(
            name=self.name,
            family="if",
            latent_channels=unet.integer("in_channels"),
            latent_size=small,
            image_size=(factor * small[0], factor * small[1]),
            max_tokens=MAX_TOKENS,
            prediction_type=schedule.prediction_type,
            guidance=self.guidance,
            steps=self.steps,
            self_fraction=self.self_fraction,
            record_fraction=self.record_fraction,
            vae_scaling=1.0,
            checksum=checksum,
            timesteps=schedule.layout,
            null_text_learning_rate=self.null_text_learning_rate,
            capabilities=offloaded(DIFFUSION | NOISE | unet_features(unet), self.offload),
            upscaler=upscaling,
        )

    def tokenizer(self) -> SharedT5Tokenizer:
        """Loads the tokenizer only.

        Raises:
            MissingWeightsError: Its files are missing or damaged, or are another model's.
        """
        directory = self._directory()
        embeddings = self._config(directory, "text_encoder").integer("vocab_size", 32128)
        return load_t5_tokenizer(directory / "tokenizer", self.name, embeddings)

    def reader(self) -> T5Reader:
        """What reads prompts, without weights.

        Raises:
            MissingWeightsError: See `tokenizer`.
        """
        return T5Reader(self.tokenizer())

    @with_pinned_settings
    def load(self, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> DeepFloydIF:
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
        tokenizer = self.tokenizer()
        schedule, thresholding = self._schedule(directory)
        encoder, unet = (
            load_part(kind, directory / folder, self.name, calling.home, dtype, self.variant)
            for kind, folder in ((T5EncoderModel, "text_encoder"), (UNet2DConditionModel, "unet"))
        )
        if dtype == torch.float16:
            keep_outputs_wide(encoder)
        sites, upscaler = unet_sites(unet), self._upscaler()
        second = None
        if upscaler is not None and spec.upscaler is not None:
            second = upscaler.load(spec.upscaler, calling)
        others = (encoder,) if second is None else (encoder, second.unet)
        return DeepFloydIF(
            spec=spec,
            tokenizer=tokenizer,
            schedule=schedule,
            thresholding=thresholding,
            sites=sites,
            call=calling.of(unet, sites, others),
            unet=unet,
            text_encoder=encoder,
            device=device,
            dtype=dtype,
            upscaler=second,
        )

    def _upscaler(self) -> UpscalerCheckpoint | None:
        if self.upscaler is None:
            return None
        return UpscalerCheckpoint(
            self.upscaler, self.name, self.upscaler_steps, self.upscaler_guidance, self.upscaler_noise_level,
            self.variant, self.upscaler_revision,
        )  # fmt: skip

    def _directory(self) -> Path:
        directory = checkpoint_directory(self.path, self.name, self.revision)
        layout = read_layout(directory, self.name)
        if layout != DEEPFLOYD:
            raise ConfigError(
                f"model {self.name!r}: this is a checkpoint of {layout.title}, expected DeepFloyd IF; "
                "model=local takes either"
            )
        return directory

    def _config(self, directory: Path, part: str) -> PartConfig:
        return PartConfig.read(directory / part / "config.json", self.name)

    def _schedule(self, directory: Path) -> tuple[NoiseSchedule, Thresholding | None]:
        config = PartConfig.read(directory / SCHEDULER_FILE, self.name)
        try:
            return pixel_schedule(config.values), thresholding_from_config(config.values)
        except ConfigError as error:
            raise MissingWeightsError(f"model {self.name!r} in {config.file.parent}: {error}") from error


def _check_network(unet: PartConfig, text: PartConfig) -> None:
    """Refuses networks of another kind, or that do not fit one another."""
    unet.check_class("UNet2DConditionModel")
    text.check_class("T5EncoderModel")
    for key, known in (
        ("addition_embed_type", (None, "text")),
        ("encoder_hid_dim_type", (None, "text_proj")),
        ("class_embed_type", (None,)),
        ("num_class_embeds", (None,)),
        ("time_cond_proj_dim", (None,)),
    ):
        if unet.values.get(key) not in known:
            raise ConfigError(
                f"model {unet.model!r}: the U-Net needs an input this project does not give: "
                f"{key}={unet.values[key]}"
            )
    channels, returned = unet.integer("in_channels"), unet.integer("out_channels")
    if channels != 3:
        raise ConfigError(
            f"model {unet.model!r}: the U-Net takes {channels} channels, expected the 3 of pixels"
        )
    if returned not in (channels, 2 * channels):
        raise unet.fault("out_channels", "3, or 6 with a learned variance")
    width = unet.integer("encoder_hid_dim")
    if text.integer("d_model", 512) != width:
        raise text.fault("d_model", f"the encoder_hid_dim of the U-Net ({width})")
    check_pooled_heads(unet)
