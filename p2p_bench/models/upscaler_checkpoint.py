"""Checkpoints of stage II of DeepFloyd IF, in the `IFSuperResolutionPipeline` directory format."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from diffusers import UNet2DConditionModel

from p2p_bench.attention.sites import unet_sites
from p2p_bench.errors import ConfigError, MissingWeightsError
from p2p_bench.fields import Between
from p2p_bench.models.calls import Calling
from p2p_bench.models.config_values import check_values
from p2p_bench.models.files import checkpoint_checksum, upscaler_directory
from p2p_bench.models.layouts import DEEPFLOYD_UPSCALER, NOISING_FILE, SCHEDULER_FILE
from p2p_bench.models.part_config import PartConfig
from p2p_bench.models.parts import check_headers, load_part
from p2p_bench.models.pixels import pixel_schedule, thresholding_from_config
from p2p_bench.models.schedule import NoiseSchedule, variance_from_config
from p2p_bench.models.spec import Upscaling
from p2p_bench.models.unet_config import check_pooled_heads
from p2p_bench.models.upscaler import Upscaler

NoiseLevel = Annotated[int, Between(0, 999)]
"""A timestep of the noise in what an upscaler is shown."""


@dataclass(frozen=True)
class UpscalerCheckpoint:
    """Stage II of DeepFloyd IF: its U-Net and schedulers; prompts are encoded by stage I, with the same T5.

    Cheap to make: nothing is read before a method is called. No pickle is read and nothing is downloaded.

    Attributes:
        path: Directory with `model_index.json`, or `owner/name` in the local Hugging Face cache.
        name: Name of the model that it belongs to, for messages.
        steps: Number of denoising steps.
        guidance: Guidance scale, at least 1.
        noise_level: Timestep whose noise is added to the image that it is shown.
        variant: Infix of the weight files.
        revision: Branch, tag or commit of `owner/name`; None: its main branch.
    """

    path: Path | str
    name: str
    steps: int
    guidance: float
    noise_level: int
    variant: str | None = None
    revision: str | None = None

    def spec(self, small: tuple[int, int], text_width: int) -> Upscaling:
        """Reads configuration files and headers; what is absent, cut short or of another model shows here.

        Args:
            small: Height and width of what it is to enlarge.
            text_width: Of the encoded prompts.

        Raises:
            MissingWeightsError: A file is missing, damaged, no safetensors, or of another model than others.
            ConfigError: It is no upscaler, does not fit stage I, or serves no run of so many steps.
        """
        directory = self._directory()
        check_headers(directory, self.name, DEEPFLOYD_UPSCALER, self.variant)
        unet = self._unet(directory)
        check_values(UNet2DConditionModel, unet)
        _check_network(unet, text_width)
        schedule, noising, _ = self._schedules(directory)
        if not self.noise_level < len(noising.alphas_cumprod):
            raise ConfigError(
                f"model.upscaler_noise_level: the upscaler knows timesteps 0 to "
                f"{len(noising.alphas_cumprod) - 1}, got {self.noise_level}"
            )
        try:
            schedule.layout.check(self.steps)
        except ConfigError as error:
            raise ConfigError(
                f"model.upscaler_steps: {self.steps} steps do not begin at the noisy end of the upscaler's "
                f"{schedule.layout.train} timesteps; take a number that divides them, such as 50"
            ) from error
        height, width = _size(unet)
        factor = height // small[0]
        if (height, width) != (factor * small[0], factor * small[1]) or factor < 2:
            raise ConfigError(
                f"model {self.name!r}: model.upscaler makes images of {width} x {height} pixels, which are "
                f"no multiple of the {small[1]} x {small[0]} of stage I"
            )
        return Upscaling(self.steps, self.guidance, self.noise_level, factor)

    def checksum(self) -> str:
        """SHA-256 over its configuration and weight files."""
        return checkpoint_checksum(self._directory(), DEEPFLOYD_UPSCALER, self.variant)

    def load(self, settings: Upscaling, calling: Calling) -> Upscaler:
        """Loads the weights.

        Args:
            settings: What `spec` gave.
            calling: How networks of the model are called, and where; it is not compiled.

        Raises:
            MissingWeightsError: A file cannot be read, or holds other tensors than the network needs.
            ConfigError: A kernel of attention does not serve its heads.
        """
        directory = self._directory()
        schedule, noising, config = self._schedules(directory)
        unet = load_part(
            UNet2DConditionModel, directory / "unet", self.name, calling.home, calling.dtype, self.variant
        )
        return Upscaler(
            settings=settings,
            schedule=schedule,
            noising=noising,
            variance=variance_from_config(config.values),
            thresholding=thresholding_from_config(config.values),
            unet=unet,
            size=_size(self._unet(directory)),
            device=calling.device,
            dtype=calling.dtype,
            call=calling.of_other(unet, unet_sites(unet)),
        )

    def _directory(self) -> Path:
        return upscaler_directory(self.path, self.name, self.variant, self.revision)

    def _unet(self, directory: Path) -> PartConfig:
        return PartConfig.read(directory / "unet" / "config.json", self.name)

    def _schedules(self, directory: Path) -> tuple[NoiseSchedule, NoiseSchedule, PartConfig]:
        """The levels of its steps, those of what it is shown, and what the file of the first holds."""
        own, noising = (
            PartConfig.read(directory / file, self.name) for file in (SCHEDULER_FILE, NOISING_FILE)
        )
        try:
            variance_from_config(own.values)
            thresholding_from_config(own.values)
            # DDPM ends at the clean image, whatever a file of it says.
            ends = {"set_alpha_to_one": True}
            return pixel_schedule({**own.values, **ends}), pixel_schedule(noising.values), own
        except ConfigError as error:
            raise MissingWeightsError(f"model {self.name!r} in {directory}: {error}") from error


def _size(unet: PartConfig) -> tuple[int, int]:
    sides = unet.integers("sample_size")
    return sides[0], sides[-1]


def _check_network(unet: PartConfig, text_width: int) -> None:
    """Refuses a network of another kind, or one that does not read the prompts of stage I."""
    unet.check_class("UNet2DConditionModel")
    for key, known in (
        ("addition_embed_type", (None, "text")),
        ("encoder_hid_dim_type", (None, "text_proj")),
        ("class_embed_type", ("timestep",)),
        ("time_cond_proj_dim", (None,)),
    ):
        if unet.values.get(key) not in known:
            raise ConfigError(
                f"model {unet.model!r}: the U-Net of model.upscaler has other inputs than stage II of "
                f"DeepFloyd IF: {key}={unet.values.get(key)}"
            )
    for key in ("in_channels", "out_channels"):
        if unet.integer(key) != 6:
            raise ConfigError(
                f"model {unet.model!r}: the U-Net of model.upscaler has {key}={unet.values[key]}, "
                "expected 6: two images in, a noise and its variance out"
            )
    if unet.integer("encoder_hid_dim") != text_width:
        raise unet.fault("encoder_hid_dim", f"the d_model of stage I's text encoder ({text_width})")
    check_pooled_heads(unet)
