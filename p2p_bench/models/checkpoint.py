"""Checkpoints of text-conditioned latent U-Nets, in the `StableDiffusionPipeline` directory format."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging

from p2p_bench.attention.sites import unet_sites
from p2p_bench.errors import ConfigError, MissingWeightsError, nearest
from p2p_bench.models.files import (
    check_complete,
    checkpoint_checksum,
    checkpoint_directory,
    has_tokenizer,
    read_json,
)
from p2p_bench.models.model import DiffusionModel
from p2p_bench.models.schedule import NoiseSchedule, schedule_from_config
from p2p_bench.models.spec import ModelSpec
from p2p_bench.models.vocabulary import read_vocabulary

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_READ_ERRORS = (OSError, SafetensorError, RuntimeError, ValueError, KeyError)


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
    """

    path: Path | str
    name: str = "local"
    guidance: float = 7.5
    steps: int = 50
    self_fraction: float = 0.5
    record_fraction: float = 0.25
    dtype: str = "float32"
    variant: str | None = None

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is out of range.
        """
        if self.dtype not in DTYPES:
            raise ConfigError(
                f"model.dtype: expected one of {', '.join(DTYPES)}, got {self.dtype!r}."
                + nearest(self.dtype, DTYPES)
            )
        if self.steps < 1:
            raise ConfigError(f"model.steps: expected at least 1, got {self.steps}")
        if not 0 <= self.guidance < float("inf"):
            raise ConfigError(f"model.guidance: expected a finite number of at least 0, got {self.guidance}")
        for key in ("self_fraction", "record_fraction"):
            if not 0 < getattr(self, key) <= 1:
                raise ConfigError(
                    f"model.{key}: expected a fraction of the latent side in (0, 1], got {getattr(self, key)}"
                )

    def spec(self) -> ModelSpec:
        """Reads the configuration files only; an absent or incomplete checkpoint shows here.

        Raises:
            MissingWeightsError: A file is missing, or the weights are not safetensors.
            ConfigError: The checkpoint is of another layout.
        """
        directory = checkpoint_directory(self.path, self.name)
        check_complete(directory, self.name, self.variant)
        unet = read_json(directory / "unet" / "config.json", self.name)
        vae = read_json(directory / "vae" / "config.json", self.name)
        self._check_layout(read_json(directory / "model_index.json", self.name), unet)
        schedule = self._schedule(directory)
        height, width = _pair(unet.get("sample_size"), self.name)
        factor = 2 ** (len(vae["block_out_channels"]) - 1)
        return ModelSpec(
            name=self.name,
            family="sd",
            latent_channels=int(unet["in_channels"]),
            latent_size=(height, width),
            image_size=(height * factor, width * factor),
            max_tokens=self._max_tokens(directory),
            prediction_type=schedule.prediction_type,
            guidance=self.guidance,
            steps=self.steps,
            self_fraction=self.self_fraction,
            record_fraction=self.record_fraction,
            vae_scaling=float(vae.get("scaling_factor", 0.18215)),
            checksum=checkpoint_checksum(directory, self.variant),
            vocabulary=read_vocabulary(directory, self.name),
        )

    def tokenizer(self) -> CLIPTokenizer:
        """Loads the tokenizer only.

        Raises:
            MissingWeightsError: Its files are missing.
        """
        directory = checkpoint_directory(self.path, self.name)
        if not has_tokenizer(directory):
            raise MissingWeightsError(
                f"model {self.name!r}: {directory / 'tokenizer'} lacks tokenizer.json "
                "(or vocab.json with merges.txt)"
            )
        tokenizer = CLIPTokenizer.from_pretrained(directory / "tokenizer", local_files_only=True)
        # Some published tokenizers state no limit, or one that the text encoder does not keep.
        tokenizer.model_max_length = self._max_tokens(directory)
        return tokenizer

    def load(self, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> DiffusionModel:
        """Loads the weights.

        Args:
            device: Where to.
            dtype: Number format; None takes the checkpoint's own `dtype`.

        Raises:
            MissingWeightsError: A file is missing or cannot be read.
        """
        spec = self.spec()
        directory = checkpoint_directory(self.path, self.name)
        device, dtype = torch.device(device), dtype or DTYPES[self.dtype]
        unet = self._module(UNet2DConditionModel, directory / "unet", dtype)
        return DiffusionModel(
            spec=spec,
            tokenizer=self.tokenizer(),
            schedule=self._schedule(directory),
            sites=unet_sites(unet),
            unet=unet.to(device),
            vae=self._module(AutoencoderKL, directory / "vae", dtype).to(device),
            text_encoder=self._module(CLIPTextModel, directory / "text_encoder", dtype).to(device),
            device=device,
            dtype=dtype,
        )

    def _module(self, kind: Any, folder: Path, dtype: torch.dtype) -> Any:
        """One component with its weights, frozen."""
        options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "variant": self.variant}
        if kind is not CLIPTextModel:
            options |= {"low_cpu_mem_usage": False, "torch_dtype": dtype}
        try:
            with _quiet():
                module = kind.from_pretrained(folder, **options)
        except _READ_ERRORS as error:
            raise MissingWeightsError(
                f"model {self.name!r}: the weights in {folder} cannot be read ({error}); "
                "get the checkpoint again"
            ) from error
        # The keyword for the number format differs between the releases of transformers.
        return (module.to(dtype) if kind is CLIPTextModel else module).eval().requires_grad_(False)

    def _schedule(self, directory: Path) -> NoiseSchedule:
        return schedule_from_config(read_json(directory / "scheduler" / "scheduler_config.json", self.name))

    def _max_tokens(self, directory: Path) -> int:
        config = read_json(directory / "text_encoder" / "config.json", self.name)
        return int(config.get("max_position_embeddings", 77))

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


def _pair(value: Any, name: str) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    if isinstance(value, list) and len(value) == 2:
        return int(value[0]), int(value[1])
    raise ConfigError(
        f"model {name!r}: unet/config.json has sample_size {value!r}, expected one or two integers"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of transformers: loading takes seconds, and whoever loads says so."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
