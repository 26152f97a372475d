"""Very small checkpoints of other families with random weights, each in its real directory format."""

import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    LDMTextToImagePipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from transformers import (
    BertTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from p2p_bench.models import DiffusionModel, UNetCheckpoint
from tests.models.tiny import WIDTH, WORDS, tiny_tokenizer

_FOLDER = tempfile.TemporaryDirectory(prefix="small-checkpoints-")
PADDING = "!"
"""What the second tokenizer of Stable Diffusion XL pads with."""


@functools.cache
def small_checkpoint(family: str) -> UNetCheckpoint:
    """A checkpoint of one of `SMALL`, made once per session. Maps are recorded at half of the side."""
    path = Path(_FOLDER.name) / family
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = SMALL[family](path)
    sharpen(pipeline.unet)
    pipeline.save_pretrained(path, safe_serialization=True)
    return UNetCheckpoint(path, name=family, steps=4, record_fraction=0.5)


@functools.cache
def small_model(family: str, dtype: torch.dtype = torch.float64) -> DiffusionModel:
    """That checkpoint, loaded once per session; nothing may change it."""
    return small_checkpoint(family).load(dtype=dtype)


def _sdxl(path: Path) -> StableDiffusionXLPipeline:
    first = with_mark(path / "made")
    tokenizers = [first, padded_with_mark(path / "made", path / "made_2")]
    kinds, sizes = (CLIPTextModel, CLIPTextModelWithProjection), (16, 24)
    encoders = [
        kind(clip_config(len(tokenizer), size, tokenizer)).eval()
        for kind, size, tokenizer in zip(kinds, sizes, tokenizers, strict=True)
    ]
    unet = small_unet(
        16,
        cross_attention_dim=sum(sizes), addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16 + 6 * 8, use_linear_projection=True,
        transformer_layers_per_block=(1, 2),
    )  # fmt: skip
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
        timestep_spacing="leading",
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=small_vae(0.13025, force_upcast=True), text_encoder=encoders[0], text_encoder_2=encoders[1],
        tokenizer=tokenizers[0], tokenizer_2=tokenizers[1], unet=unet, scheduler=scheduler,
        force_zeros_for_empty_prompt=True, add_watermarker=False,
    )  # fmt: skip


def _sd2(path: Path) -> StableDiffusionPipeline:
    first = with_mark(path / "made")
    tokenizer = padded_with_mark(path / "made", path / "made_2")
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1,
        set_alpha_to_one=False, prediction_type="v_prediction",
    )  # fmt: skip
    unet = small_unet(
        8,
        cross_attention_dim=24,
        attention_head_dim=[2, 4],
        use_linear_projection=True,
        upcast_attention=True,
    )
    return StableDiffusionPipeline(
        vae=small_vae(0.18215), text_encoder=CLIPTextModel(clip_config(len(first), 24, tokenizer)).eval(),
        tokenizer=tokenizer, unet=unet, scheduler=scheduler, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


def _ldm(path: Path) -> LDMTextToImagePipeline:
    made = path / "made"
    made.mkdir(parents=True)
    letters = "abcdefghijklmnopqrstuvwxyz,.-'!0123456789"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{one}" for one in letters)]
    (made / "vocab.txt").write_text("\n".join(dict.fromkeys([*pieces, *WORDS])) + "\n")
    tokenizer = BertTokenizer(str(made / "vocab.txt"), model_max_length=WIDTH)
    bert = LDMBertModel(
        LDMBertConfig(
            vocab_size=len(tokenizer), max_position_embeddings=77, encoder_layers=2, encoder_ffn_dim=32,
            encoder_attention_heads=2, head_dim=8, d_model=16,
        )
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
    )  # fmt: skip
    unet = small_unet(8, cross_attention_dim=16)
    return LDMTextToImagePipeline(small_vae(0.18215), bert.eval(), tokenizer, unet, scheduler)


def clip_config(vocabulary: int, size: int, tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=size, intermediate_size=32, num_hidden_layers=3, projection_dim=16,
        num_attention_heads=2, max_position_embeddings=WIDTH, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip


def with_mark(folder: Path) -> CLIPTokenizer:
    """The tiny tokenizer with exclamation marks, the single one at id 0 as in CLIP's vocabulary."""
    tokens = tiny_tokenizer(folder).get_vocab()
    known = [PADDING, f"{PADDING}</w>", f"{PADDING}{PADDING}</w>", *sorted(tokens, key=tokens.__getitem__)]
    vocabulary = {token: index for index, token in enumerate(known)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    with (folder / "merges.txt").open("a") as file:
        file.write(f"{PADDING} {PADDING}</w>\n")
    return CLIPTokenizer.from_pretrained(folder)


def padded_with_mark(made: Path, folder: Path) -> CLIPTokenizer:
    """The same with `PADDING` as a special token."""
    shutil.copytree(made, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "pad_token": PADDING}))
    return CLIPTokenizer.from_pretrained(folder)


def small_vae(scaling: float, **options: Any) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, latent_channels=4,
        sample_size=16, scaling_factor=scaling, **options,
    )  # fmt: skip


def small_unet(side: int, **options: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=side, block_out_channels=(16, 32), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
        norm_num_groups=4, **{"attention_head_dim": 2, **options},
    )  # fmt: skip


def sharpen(unet: UNet2DConditionModel) -> None:
    """See `tests/models/tiny.py`."""
    unet.conv_out.weight.data *= 0.2
    for name, weight in unet.named_parameters():
        if name.endswith(("to_q.weight", "to_k.weight")):
            weight.data *= 6


SMALL: dict[str, Callable[[Path], DiffusionPipeline]] = {"sd2": _sd2, "sdxl": _sdxl, "ldm": _ldm}
"""Families with a small checkpoint here; Stable Diffusion 1.x: see `tests/models/tiny.py`."""
