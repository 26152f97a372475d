"""Checkpoints of DeepFloyd IF, stage I, in the `IFPipeline` directory format."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from diffusers import UNet2DConditionModel
from transformers import T5EncoderModel

from p2p_bench.attention.sites import unet_sites
from p2p_bench.errors import ConfigError, MissingWeightsError
from p2p_bench.fields import Above, AtLeast, check_fields
from p2p_bench.hashing import digest, sha256_file
from p2p_bench.models.checkpoint import DTYPES, SIDE, Dtype
from p2p_bench.models.deepfloyd_if import DeepFloydIF
from p2p_bench.models.files import checkpoint_directory, weight_files
from p2p_bench.models.level import Thresholding
from p2p_bench.models.parts import PartConfig, check_headers, load_part, usable_device
from p2p_bench.models.schedule import NoiseSchedule, schedule_from_config
from p2p_bench.models.spec import ModelSpec
from p2p_bench.models.t5 import MAX_TOKENS, SharedT5Tokenizer, T5Reader, check_t5_tokenizer, load_t5_tokenizer
from p2p_bench.pinned import with_pinned_settings

_CONFIGS = ("unet/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json")
_WEIGHTS = {"unet": "diffusion_pytorch_model", "text_encoder": "model"}


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
        directory = self._directory()
        _check_complete(directory, self.name, self.variant)
        check_headers(directory, self.name, self.variant)
        unet, text = (self._config(directory, part) for part in ("unet", "text_encoder"))
        _check_network(unet, text)
        schedule, _ = self._schedule(directory)
        sides = unet.integers("sample_size")
        return ModelSpec(
            name=self.name,
            family="if",
            latent_channels=unet.integer("in_channels"),
            latent_size=(sides[0], sides[-1]),
            image_size=(sides[0], sides[-1]),
            max_tokens=MAX_TOKENS,
            prediction_type=schedule.prediction_type,
            guidance=self.guidance,
            steps=self.steps,
            self_fraction=self.self_fraction,
            record_fraction=self.record_fraction,
            vae_scaling=1.0,
            checksum=_checksum(directory, self.variant),
            timesteps=schedule.layout,
            null_text_learning_rate=self.null_text_learning_rate,
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
            ConfigError: The device is not there, or does not compute in the number format.
        """
        spec, directory = self.spec(), self._directory()
        dtype = dtype or DTYPES[self.dtype]
        device = usable_device(device, dtype)
        tokenizer = self.tokenizer()
        schedule, thresholding = self._schedule(directory)
        encoder, unet = (
            load_part(kind, directory / folder, self.name, device, dtype, self.variant)
            for kind, folder in ((T5EncoderModel, "text_encoder"), (UNet2DConditionModel, "unet"))
        )
        if dtype == torch.float16:
            _keep_outputs_wide(encoder)
        return DeepFloydIF(
            spec, tokenizer, schedule, thresholding, unet_sites(unet), unet, encoder, device, dtype
        )

    def _directory(self) -> Path:
        directory = checkpoint_directory(self.path, self.name)
        kind = PartConfig.read(directory / "model_index.json", self.name).values.get("_class_name")
        if kind == "IFSuperResolutionPipeline":
            raise ConfigError(
                f"model {self.name!r}: this is stage II or III of DeepFloyd IF, which enlarges an image; "
                "edits are made with stage I (an IFPipeline)"
            )
        if kind != "IFPipeline":
            raise ConfigError(f"model {self.name!r}: model_index.json names a {kind}, expected an IFPipeline")
        return directory

    def _config(self, directory: Path, part: str) -> PartConfig:
        return PartConfig.read(directory / part / "config.json", self.name)

    def _schedule(self, directory: Path) -> tuple[NoiseSchedule, Thresholding | None]:
        config = PartConfig.read(directory / "scheduler" / "scheduler_config.json", self.name)
        try:
            return pixel_schedule(config.values), thresholding_from_config(config.values)
        except ConfigError as error:
            raise MissingWeightsError(f"model {self.name!r} in {config.file.parent}: {error}") from error


def pixel_schedule(config: Mapping[str, Any]) -> NoiseSchedule:
    """The levels of a `scheduler_config.json` as `DDIMScheduler.from_config` reads it, which forces nothing.

    Raises:
        ConfigError: The schedule is of a kind this project does not know.
    """
    plain = {key: value for key, value in config.items() if key not in ("thresholding", "clip_sample")}
    schedule = schedule_from_config({"set_alpha_to_one": True, **plain})
    offset = config.get("steps_offset", 0)
    if not isinstance(offset, int) or isinstance(offset, bool) or not 0 <= offset < schedule.layout.train:
        raise ConfigError(f"scheduler_config.json: steps_offset is {offset!r}, expected an integer from 0 up")
    return replace(schedule, steps_offset=offset)


def thresholding_from_config(config: Mapping[str, Any]) -> Thresholding | None:
    """What a `scheduler_config.json` does to predicted images; plain clipping is thresholding at 1.

    Raises:
        ConfigError: A value is out of range.
    """
    if not config.get("thresholding"):
        clipped = config.get("clip_sample", True)
        if clipped and config.get("clip_sample_range", 1.0) != 1.0:
            raise ConfigError("scheduler_config.json: clip_sample_range: expected 1, the range of pixels")
        return Thresholding(1.0, 1.0) if clipped else None
    ratio, most = config.get("dynamic_thresholding_ratio", 0.995), config.get("sample_max_value", 1.0)
    for key, value, low, high in (
        ("dynamic_thresholding_ratio", ratio, 0, 1),
        ("sample_max_value", most, 1, 1e6),
    ):
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigError(
                f"scheduler_config.json: {key} is {value!r}, expected a number from {low} to {high:g}"
            )
    return Thresholding(float(ratio), float(most))


def _keep_outputs_wide(encoder: torch.nn.Module) -> None:
    """T5's feed-forward layers leave the range of half precision, so their last matrix stays in float32."""
    for name, module in encoder.named_modules():
        if name.endswith(".wo"):
            module.float()


def _check_complete(directory: Path, name: str, variant: str | None) -> None:
    missing = [file for file in _CONFIGS if not (directory / file).is_file()]
    unsafe: list[str] = []
    for part, stem in _WEIGHTS.items():
        if weight_files(directory, part, variant):
            continue
        infix = f".{variant}" if variant else ""
        pickled = any((directory / part).glob("*.bin"))
        (unsafe if pickled else missing).append(f"{part}/{stem}{infix}.{'bin' if pickled else 'safetensors'}")
    if unsafe:
        raise MissingWeightsError(
            f"model {name!r} in {directory}: {', '.join(unsafe)} would be read through pickle, which can run "
            "code, so it is refused; convert it once, where you trust it, with "
            "IFPipeline.from_pretrained(DIR).save_pretrained(NEW_DIR, safe_serialization=True)"
        )
    if missing:
        raise MissingWeightsError(
            f"model {name!r}: {directory} is not a whole IFPipeline checkpoint; missing: {', '.join(missing)}"
        )
    check_t5_tokenizer(directory / "tokenizer", name)


def _check_network(unet: PartConfig, text: PartConfig) -> None:
    """Refuses networks of another kind, or that do not fit one another."""
    unet.check_class("UNet2DConditionModel")
    text.check_class("T5EncoderModel")
    for key, known in (
        ("addition_embed_type", (None, "text")),
        ("encoder_hid_dim_type", (None, "text_proj")),
        ("class_embed_type", (None,)),
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


def _checksum(directory: Path, variant: str | None) -> str:
    """SHA-256 over the configuration, tokenizer and weight files, by their names within the checkpoint."""
    names = ("model_index.json", *_CONFIGS, "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json")
    files = [directory / file for file in names if (directory / file).is_file()]
    files += [file for part in _WEIGHTS for file in weight_files(directory, part, variant)]
    return digest({str(file.relative_to(directory)): sha256_file(file) for file in files})
