"""Checkpoints of latent U-Nets, in the directory formats of diffusers' pipelines."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from p2p_bench.attention.sites import unet_sites
from p2p_bench.errors import ConfigError, MissingWeightsError
from p2p_bench.fields import Above, AtLeast, OneOf, check_fields
from p2p_bench.hashing import digest
from p2p_bench.models.autoencoder import set_way
from p2p_bench.models.calls import Calling
from p2p_bench.models.config_values import check_values
from p2p_bench.models.device import usable_device
from p2p_bench.models.files import (
    check_complete,
    checkpoint_checksum,
    checkpoint_directory,
    has_tokenizer,
    read_layout,
)
from p2p_bench.models.instruct_pix2pix import InstructPix2Pix
from p2p_bench.models.latent_diffusion import LatentDiffusion
from p2p_bench.models.layouts import SCHEDULER_FILE, Family, Layout
from p2p_bench.models.lora import distilled_by, fuse, read_loras
from p2p_bench.models.model import DiffusionModel
from p2p_bench.models.part_config import PartConfig
from p2p_bench.models.parts import check_headers, load_part
from p2p_bench.models.schedule import NoiseSchedule, level_options, schedule_from_config
from p2p_bench.models.sdxl import StableDiffusionXL, TwoClipReader
from p2p_bench.models.settings import (
    DTYPES,
    SIDE,
    AttentionBackend,
    Autoencoding,
    Dtype,
    Offload,
    Size,
    offloaded,
    sizes,
)
from p2p_bench.models.spec import DIFFUSION, INSTRUCTED, MAPS, NOISE, ModelSpec, Unprompted
from p2p_bench.models.stable_diffusion import StableDiffusion
from p2p_bench.models.textual_inversion import LearntWord, add_embeddings, add_tokens, read_words
from p2p_bench.models.tokenizer import TokenizerReader, clip_columns, load_bert_tokenizer, load_tokenizer
from p2p_bench.models.unet import LatentUNet
from p2p_bench.models.unet_config import check_blocks, check_together, latent_size, unet_features
from p2p_bench.models.vocabulary import read_vocabulary
from p2p_bench.pinned import with_pinned_settings
from p2p_bench.prompts.words import PromptReader

FAMILIES: dict[Family, type[LatentUNet]] = {
    "sd": StableDiffusion,
    "sdxl": StableDiffusionXL,
    "ldm": LatentDiffusion,
    "ip2p": InstructPix2Pix,
}
_ENCODERS = {kind.__name__: kind for kind in (CLIPTextModel, CLIPTextModelWithProjection, LDMBertModel)}
_SMALL = 32
"""Side of the largest maps that the released code injects, at 512 pixels."""
_TOLD = "time_cond_proj_dim"
"""Width of the embedding by which the U-Net of a latent consistency model is told the guidance scale."""


@dataclass(frozen=True)
class UNetCheckpoint:
    """A checkpoint of Stable Diffusion 1.x, 2.x or XL, Latent Diffusion, InstructPix2Pix or another of such.

    Which of them it is, is read from `model_index.json`.

    Cheap to make: nothing is read before `spec`, `tokenizer` or `load` is called. No pickle is read
    and nothing is downloaded.

    Attributes:
        path: Directory with `model_index.json`, or `owner/name` in the local Hugging Face cache.
        name: Name in results.
        guidance: Default guidance scale; at least 0.
        steps: Default number of denoising steps; at least 1.
        self_fraction: Self-attention is injected at maps of at most this fraction of the latent side, in
            (0, 1]; None takes what is nearest to the 32 x 32 of the released code (at most one half).
        record_fraction: Attention maps are recorded at this fraction of the latent side, in (0, 1]; None is
            one half where the side is at most 32, as in Latent Diffusion, and one quarter elsewhere.
        dtype: Number format the weights are loaded in, unless `load` is told another.
        variant: Infix of the weight files, such as "fp16" for `model.fp16.safetensors`.
        null_text_learning_rate: Where null-text inversion starts on this model, unless it is told another;
            the default is the published one.
        revision: Branch, tag or commit of `owner/name`; None: its main branch, as it was when fetched.
        unprompted: What the unconditional pass is told: "encoded", the empty prompt; "zeros", zeros in place
            of text and pooled vector; None as the checkpoint says (`force_zeros_for_empty_prompt` of Stable
            Diffusion XL, on where it is not said), "encoded" in other families.
        size: Height and width of images in pixels, or one number for both; None is the checkpoint's own. What
            is far from that it was not trained on.
        consistency: Whether it was distilled for the sampler of latent consistency models; None: as its
            network says, which is told the guidance scale if it was, or a LoRA, by what it is called.
        lora: A LoRA that is added to the weights, as `[path, scale]`, or a list of such; see `lora`.
        embeddings: Files of words that were learnt by textual inversion; see `textual_inversion`.
        vae: How images go through the VAE: "whole", several at once; "sliced", one by one; "tiled", in tiles
            of the size it was trained on, whose seams are blended. Less memory in this order; tiles change
            images.
        channels_last: Weights and activations of convolutions lie channel by channel, which accelerators that
            compute in half precision prefer.
        compile: Whether the network is compiled (`torch.compile`), see `CompiledNetwork`.
        attention_backend: The only kernel of attention: "flash", "efficient", "cudnn" or "math", where device
            and number format have it; None: torch chooses.
        offload: Which weights rest in main memory until they are needed: "none"; "model", all but those of
            the network that computes; "sequential", all but those of the layer that does, without gradients.
    """

    path: Path | str
    name: str = "local"
    guidance: Annotated[float, AtLeast(0)] = 7.5
    steps: Annotated[int, AtLeast(1)] = 50
    self_fraction: Annotated[float | None, SIDE] = None
    record_fraction: Annotated[float | None, SIDE] = None
    dtype: Dtype = "float32"
    variant: str | None = None
    null_text_learning_rate: Annotated[float, Above(0)] = 1e-2
    revision: str | None = None
    unprompted: Annotated[str | None, OneOf(("encoded", "zeros"))] = None
    size: Size | None = None
    consistency: bool | None = None
    lora: Path | str | list[Any] | None = None
    embeddings: Path | str | list[Any] | None = None
    vae: Autoencoding = "whole"
    channels_last: bool = False
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
            ConfigError: The checkpoint is of another layout.
        """
        directory, layout = self._place()
        check_complete(directory, self.name, self.variant)
        check_headers(directory, self.name, layout, self.variant)
        unet, vae = (self._config(directory, part) for part in ("unet", layout.vae))
        encoders = {part: self._config(directory, part) for part in layout.encoders}
        check_values(UNet2DConditionModel, unet)
        check_values(AutoencoderKL, vae)
        for part, kind in layout.encoders.items():
            check_values(_ENCODERS[kind], encoders[part])
        check_blocks(layout, unet)
        check_together(layout, unet, vae, encoders)
        schedule = self._schedule(directory, layout)
        factor = 2 ** (len(vae.integers("block_out_channels")) - 1)
        latent, image = sizes(self.size, latent_size(unet, layout), factor, self.name)
        told = unet.values.get(_TOLD) is not None
        return ModelSpec(
            name=self.name,
            family=layout.family,
            latent_channels=unet.integer("out_channels"),
            latent_size=latent,
            image_size=image,
            max_tokens=self._columns(directory, layout),
            prediction_type=schedule.prediction_type,
            guidance=self.guidance,
            steps=self.steps,
            self_fraction=self.self_fraction or _self_fraction(min(latent)),
            record_fraction=self.record_fraction or (0.5 if min(latent) <= _SMALL else 0.25),
            vae_scaling=vae.number("scaling_factor", 0.18215),
            checksum=self._checksum(directory, layout),
            vocabulary=read_vocabulary(directory, self.name),
            timesteps=schedule.layout,
            null_text_learning_rate=self.null_text_learning_rate,
            unprompted=self._unprompted(directory, layout),
            capabilities=offloaded(
                INSTRUCTED
                if layout.reads_image
                else (DIFFUSION | NOISE | MAPS | unet_features(unet))
                - ({"unconditional"} if told else set()),
                self.offload,
            ),
            guided_by="input" if told else "passes",
            consistency=(told or distilled_by(self.lora, self.name))
            if self.consistency is None
            else self.consistency,
            text_width=min(unet.integers("cross_attention_dim")),
            level_options=level_options(PartConfig.read(directory / SCHEDULER_FILE, self.name).values),
        )

    def tokenizer(self) -> Any:
        """Loads the first tokenizer only, that of the columns.

        Raises:
            MissingWeightsError: Its files are missing or damaged, or are another model's.
        """
        return self._tokenizer(*self._place(), 0)

    def reader(self) -> PromptReader:
        """What reads prompts, without weights.

        Raises:
            MissingWeightsError: See `tokenizer`.
        """
        directory, layout = self._place()
        tokenizers = [self._tokenizer(directory, layout, place) for place in range(len(layout.tokenizers))]
        for tokenizer in tokenizers:
            add_tokens(tokenizer, self._words(directory, layout), self.name)
        first = TokenizerReader(tokenizers[0], read_vocabulary(directory, self.name))
        return first if len(tokenizers) == 1 else TwoClipReader(first, TokenizerReader(tokenizers[1]))

    @with_pinned_settings
    def load(self, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> DiffusionModel:
        """Loads the weights. Nothing around the call decides them, see `p2p_bench.pinned`.

        Args:
            device: Where to.
            dtype: Number format; None takes the checkpoint's own `dtype`. A VAE whose configuration says
                `force_upcast`, or nothing of it in Stable Diffusion XL, is in float32 where the rest is in
                float16, which overflows in it.

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

        def part(kind: Any, folder: str, number_format: torch.dtype = dtype) -> Any:
            return load_part(kind, directory / folder, self.name, calling.home, number_format, self.variant)

        vae_config = self._config(directory, layout.vae).values
        overflows = dtype == torch.float16 and vae_config.get("force_upcast", layout.family == "sdxl")
        reader = self.reader()
        encoders = tuple(part(_ENCODERS[kind], folder) for folder, kind in layout.encoders.items())
        unet = part(UNet2DConditionModel, "unet")
        for lora in read_loras(self.lora, self.name):
            fuse(lora, {"unet": unet, **dict(zip(layout.encoders, encoders, strict=True))}, self.name)
        words = self._words(directory, layout)
        for place, (encoder, tokenizer) in enumerate(zip(encoders, tokenizers_of(reader), strict=True)):
            add_embeddings(encoder, place, tokenizer, words)
        vae = part(AutoencoderKL, layout.vae, torch.float32 if overflows else dtype)
        set_way(vae, self.vae)
        for network in (unet, vae) if self.channels_last else ():
            network.to(memory_format=torch.channels_last)
        sites = unet_sites(unet)
        return FAMILIES[layout.family](
            spec=spec,
            reader=reader,
            schedule=self._schedule(directory, layout),
            sites=sites,
            call=calling.of(unet, sites, encoders, vae),
            unet=unet,
            vae=vae,
            encoders=encoders,
            device=device,
            dtype=dtype,
            guidance_width=unet.config.get(_TOLD),
        )

    def _place(self) -> tuple[Path, Layout]:
        directory = checkpoint_directory(self.path, self.name, self.revision)
        layout = read_layout(directory, self.name)
        if layout.family not in FAMILIES:
            raise ConfigError(
                f"model {self.name!r}: this is a checkpoint of {layout.title}, expected a latent U-Net; "
                "model=local takes either"
            )
        return directory, layout

    def _words(self, directory: Path, layout: Layout) -> tuple[LearntWord, ...]:
        if self.embeddings is None:
            return ()
        width = "d_model" if layout.family == "ldm" else "hidden_size"
        widths = [self._config(directory, part).integer(width) for part in layout.encoders]
        return read_words(self.embeddings, self.name, widths)

    def _checksum(self, directory: Path, layout: Layout) -> str:
        """Of the files, and of what is added to them."""
        files = checkpoint_checksum(directory, layout, self.variant)
        added = {
            "lora": [lora.identity for lora in read_loras(self.lora, self.name)],
            "embeddings": [word.identity for word in self._words(directory, layout)],
            "vae": ["tiled"] if self.vae == "tiled" else [],
        }
        return digest({"checkpoint": files, **added}) if any(added.values()) else files

    def _tokenizer(self, directory: Path, layout: Layout, place: int) -> Any:
        folder = directory / layout.tokenizers[place]
        if not has_tokenizer(folder, layout):
            raise MissingWeightsError(
                f"model {self.name!r}: {folder} lacks tokenizer.json "
                f"(or {' with '.join(layout.tokenizer_files)})"
            )
        encoder = list(layout.encoders)[place]
        text, most = self._config(directory, encoder), self._columns(directory, layout)
        load = load_bert_tokenizer if layout.family == "ldm" else load_tokenizer
        return load(folder, self.name, most, text.integer("vocab_size", 49408), encoder)

    def _columns(self, directory: Path, layout: Layout) -> int:
        """Text columns W, as the pipelines count them."""
        most = [
            self._config(directory, one).integer("max_position_embeddings", 77) for one in layout.encoders
        ]
        if layout.family == "ldm":  # whose pipeline asks no tokenizer
            return min(*most, 77)
        folders = [directory / folder for folder in layout.tokenizers]
        return clip_columns(folders, most, self.name)

    def _unprompted(self, directory: Path, layout: Layout) -> Unprompted:
        index = PartConfig.read(directory / "model_index.json", self.name)
        # The pipeline of Stable Diffusion XL takes zeros where its file does not say it; others never do.
        zeros = layout.family == "sdxl" and index.values.get("force_zeros_for_empty_prompt", True)
        own: Unprompted = "zeros" if zeros else "encoded"
        return self.unprompted or own  # type: ignore[return-value]  # checked against the literals

    def _config(self, directory: Path, part: str) -> PartConfig:
        return PartConfig.read(directory / part / "config.json", self.name)

    def _schedule(self, directory: Path, layout: Layout) -> NoiseSchedule:
        return schedule_of(directory, layout, self.name)


def schedule_of(directory: Path, layout: Layout, name: str) -> NoiseSchedule:
    """The noise levels of a checkpoint and what its network predicts, by its files.

    Args:
        directory: The checkpoint.
        layout: Its family.
        name: Name of the model, for messages.

    Raises:
        MissingWeightsError: They are missing, or of a kind that is not known here.
    """
    config = PartConfig.read(directory / SCHEDULER_FILE, name)
    # Pipelines make the scheduler that the index names, whichever wrote the file.
    named = PartConfig.read(directory / "model_index.json", name).values.get("scheduler")
    kind = {"_class_name": named[-1]} if isinstance(named, list) and named and named[-1] else {}
    try:
        return schedule_from_config({**config.values, **kind}, layout.steps_offset)
    except ConfigError as error:
        raise MissingWeightsError(f"model {name!r} in {config.file.parent}: {error}") from error


def tokenizers_of(reader: PromptReader) -> list[Any]:
    """The tokenizer of each text encoder."""
    readers = (reader.first, reader.second) if isinstance(reader, TwoClipReader) else (reader,)
    return [one.tokenizer for one in readers if isinstance(one, TokenizerReader)]


def _self_fraction(side: int) -> float:
    fraction = 0.5
    while side * fraction > _SMALL:
        fraction /= 2
    return fraction
