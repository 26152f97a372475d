"""What checkpoints of the families look like on disk, by the pipeline that their `model_index.json` names."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from p2p_bench.errors import ConfigError, nearest

Family = Literal["sd", "sdxl", "ldm", "ip2p", "if", "sd3", "flux"]
CLIP_FILES = ("vocab.json", "merges.txt")
BERT_FILES = ("vocab.txt",)
T5_FILES = ("spiece.model",)
NETWORK_STEM = "diffusion_pytorch_model"
"""How diffusers calls weight files."""
TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""What a tokenizer's folder may hold besides; padding, case and words added to it decide tokens too."""


@dataclass(frozen=True)
class Layout:
    """The folders of a checkpoint.

    Attributes:
        family: The family, in short.
        title: The family, for people.
        pipelines: Classes in `model_index.json`; the first is today's name.
        encoders: Folder of each text encoder -> its class.
        vae: Folder of the autoencoder; "" for a model of pixels, which has none.
        tokenizers: Folder of each tokenizer, in the order of the encoders.
        tokenizer_files: What a tokenizer folder holds where it has no `tokenizer.json`.
        steps_offset: What the family's pipeline forces; None: the scheduler's file says, 0 where it does not.
        steps: Denoising steps where nobody names a number.
        network: Folder of the network.
        flow: Whether its noise levels are those of a rectified flow.
        t5: Number of its T5 encoder beside CLIPs; None: there is none beside any.
        t5_optional: Whether the model can do without it.
        reads_image: Whether the network is given an image's latents beside those that it denoises.
        other_files: Configuration files besides those of networks and the scheduler.
    """

    family: Family
    title: str
    pipelines: tuple[str, ...]
    encoders: Mapping[str, str]
    vae: str = "vae"
    tokenizers: tuple[str, ...] = ("tokenizer",)
    tokenizer_files: tuple[str, ...] = CLIP_FILES
    steps_offset: int | None = None
    steps: int = 50
    network: str = "unet"
    flow: bool = False
    t5: int | None = None
    t5_optional: bool = False
    reads_image: bool = False
    other_files: tuple[str, ...] = ()
    weights: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        """Notes which folders have weights, each with the stem of its file."""
        stems = dict.fromkeys(self._networks, NETWORK_STEM)
        object.__setattr__(self, "weights", {**stems, **dict.fromkeys(self.encoders, "model")})

    @property
    def _networks(self) -> tuple[str, ...]:
        return (self.network, self.vae) if self.vae else (self.network,)

    @property
    def config_files(self) -> tuple[str, ...]:
        """The configuration files, relative to the checkpoint."""
        parts = (*self._networks, *self.encoders)
        return (
            "model_index.json",
            *(f"{part}/config.json" for part in parts),
            SCHEDULER_FILE,
            *self.other_files,
        )

    def files_of(self, tokenizer: str) -> tuple[str, ...]:
        """What the folder of a tokenizer holds where it has no `tokenizer.json`."""
        is_t5 = self.t5 is not None and tokenizer == self.tokenizers[self.t5]
        return T5_FILES if is_t5 else self.tokenizer_files

    def without_t5(self) -> "Layout":
        """The same without a T5 encoder that the model can do without."""
        if self.t5 is None or not self.t5_optional:
            return self
        left, tokenizers = dict(self.encoders), list(self.tokenizers)
        del left[list(left)[self.t5]], tokenizers[self.t5]
        return replace(self, encoders=left, tokenizers=tuple(tokenizers), t5=None)


SCHEDULER_FILE = "scheduler/scheduler_config.json"
NOISING_FILE = "image_noising_scheduler/scheduler_config.json"
"""What noise is added to the image that an upscaler is shown."""

STABLE_DIFFUSION = Layout(
    "sd", "Stable Diffusion 1.x / 2.x", ("StableDiffusionPipeline", "LatentConsistencyModelPipeline"),
    {"text_encoder": "CLIPTextModel"},
    steps_offset=1,
)  # fmt: skip
SDXL = Layout(
    "sdxl", "Stable Diffusion XL", ("StableDiffusionXLPipeline",),
    {"text_encoder": "CLIPTextModel", "text_encoder_2": "CLIPTextModelWithProjection"},
    tokenizers=("tokenizer", "tokenizer_2"),
)  # fmt: skip
LATENT_DIFFUSION = Layout(
    "ldm", "Latent Diffusion", ("LDMTextToImagePipeline", "LatentDiffusionPipeline"),
    {"bert": "LDMBertModel"}, vae="vqvae", tokenizer_files=BERT_FILES,
)  # fmt: skip
INSTRUCT_PIX2PIX = Layout(
    "ip2p", "InstructPix2Pix", ("StableDiffusionInstructPix2PixPipeline",),
    {"text_encoder": "CLIPTextModel"}, reads_image=True,
)  # fmt: skip

DEEPFLOYD = Layout(
    "if", "DeepFloyd IF", ("IFPipeline",), {"text_encoder": "T5EncoderModel"}, vae="",
    tokenizer_files=T5_FILES, steps=100,
)  # fmt: skip
DEEPFLOYD_UPSCALER = Layout(
    "if", "DeepFloyd IF, stage II", ("IFSuperResolutionPipeline",), {}, vae="", tokenizers=(),
    other_files=(NOISING_FILE,),
)  # fmt: skip
"""No family: it enlarges what stage I makes, and reads a prompt as that encodes it."""

STABLE_DIFFUSION_3 = Layout(
    "sd3", "Stable Diffusion 3.x", ("StableDiffusion3Pipeline",),
    {
        "text_encoder": "CLIPTextModelWithProjection", "text_encoder_2": "CLIPTextModelWithProjection",
        "text_encoder_3": "T5EncoderModel",
    },
    tokenizers=("tokenizer", "tokenizer_2", "tokenizer_3"), steps=28, network="transformer", flow=True, t5=2,
    t5_optional=True,
)  # fmt: skip
FLUX = Layout(
    "flux", "FLUX.1", ("FluxPipeline",),
    {"text_encoder": "CLIPTextModel", "text_encoder_2": "T5EncoderModel"},
    tokenizers=("tokenizer", "tokenizer_2"), steps=28, network="transformer", flow=True, t5=1,
)  # fmt: skip

LAYOUTS = (
    STABLE_DIFFUSION, SDXL, LATENT_DIFFUSION, INSTRUCT_PIX2PIX, DEEPFLOYD, STABLE_DIFFUSION_3, FLUX,
)  # fmt: skip


def layout_of(index: Mapping[str, Any], name: str) -> Layout:
    """The layout of a checkpoint.

    Args:
        index: Its `model_index.json`.
        name: Name of the model, for the message.

    Raises:
        ConfigError: It is of a pipeline that no family here has.
    """
    kind = str(index.get("_class_name"))
    for layout in LAYOUTS:
        if kind in layout.pipelines:
            return layout.without_t5() if _lacks_t5(layout, index) else layout
    if kind in DEEPFLOYD_UPSCALER.pipelines:
        raise ConfigError(
            f"model {name!r}: this is stage II or III of DeepFloyd IF, which enlarges an image; edits are "
            "made with stage I (an IFPipeline), to which stage II goes as model.upscaler=DIR"
        )
    known = [layout.pipelines[0] for layout in LAYOUTS]
    raise ConfigError(
        f"model {name!r}: model_index.json names a {kind}, expected one of {', '.join(known)}."
        + nearest(kind, known)
    )


def check_upscaler_layout(index: Mapping[str, Any], name: str) -> None:
    """Refuses a checkpoint that is no upscaler of DeepFloyd IF.

    Args:
        index: Its `model_index.json`.
        name: Name of the model, for the message.

    Raises:
        ConfigError: It is of another pipeline.
    """
    kind = str(index.get("_class_name"))
    if kind not in DEEPFLOYD_UPSCALER.pipelines:
        raise ConfigError(
            f"model {name!r}: model.upscaler: model_index.json names a {kind}, expected an "
            f"{DEEPFLOYD_UPSCALER.pipelines[0]}, such as DeepFloyd/IF-II-L-v1.0"
        )


def _lacks_t5(layout: Layout, index: Mapping[str, Any]) -> bool:
    """Whether a checkpoint was saved without a T5 encoder, which its index names as `[null, null]`."""
    if layout.t5 is None or not layout.t5_optional:
        return False
    named = index.get(list(layout.encoders)[layout.t5])
    return named is None or (isinstance(named, list) and named[:2] == [None, None])
