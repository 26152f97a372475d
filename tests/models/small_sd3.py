"""Very small Stable Diffusion 3 checkpoints with random weights, in the real directory format."""

import functools
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer, T5Config, T5EncoderModel

from p2p_bench.models import SD3Checkpoint
from p2p_bench.models.sd3 import StableDiffusion3
from tests.models.small import padded_with_mark, with_mark
from tests.models.small_if import small_t5_tokenizer
from tests.models.tiny import WIDTH

LATENT, IMAGE = 8, 16
T5_WIDTH = 20
_FOLDER = tempfile.TemporaryDirectory(prefix="small-sd3-")


@functools.cache
def small_sd3(kind: str = "sd35_medium") -> SD3Checkpoint:
    """A checkpoint of one of `KINDS`, made once per session."""
    path = Path(_FOLDER.name) / kind
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _pipeline(path, kind).save_pretrained(path, safe_serialization=True)
    shutil.rmtree(path / "made")
    shutil.rmtree(path / "made_2")
    return SD3Checkpoint(path, name=kind, steps=4, t5_tokens=T5_WIDTH)


@functools.cache
def small_sd3_model(kind: str = "sd35_medium", dtype: torch.dtype = torch.float64) -> StableDiffusion3:
    """That checkpoint, loaded once per session; nothing may change it."""
    return small_sd3(kind).load(dtype=dtype)


KINDS = ("sd3_medium", "sd35_medium", "sd35_large", "without_t5")
"""No norm of queries and keys; norms and attention of the image to itself; norms alone; no T5."""


def _pipeline(path: Path, kind: str) -> StableDiffusion3Pipeline:
    first = with_mark(path / "made")
    tokenizers = [first, padded_with_mark(path / "made", path / "made_2")]
    encoders = [_clip(size, tokenizer) for size, tokenizer in zip((16, 24), tokenizers, strict=True)]
    t5_tokenizer = small_t5_tokenizer()
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=len(t5_tokenizer), d_model=48, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
            feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False,
        )
    ).eval()  # fmt: skip
    with_t5 = kind != "without_t5"
    return StableDiffusion3Pipeline(
        transformer=_transformer(kind), scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=_vae(),
        text_encoder=encoders[0], tokenizer=tokenizers[0], text_encoder_2=encoders[1],
        tokenizer_2=tokenizers[1], text_encoder_3=t5 if with_t5 else None,
        tokenizer_3=t5_tokenizer if with_t5 else None,
    )  # fmt: skip


def _transformer(kind: str) -> SD3Transformer2DModel:
    made = SD3Transformer2DModel(
        sample_size=LATENT, patch_size=2, in_channels=4, out_channels=4, num_layers=3, attention_head_dim=8,
        num_attention_heads=4, joint_attention_dim=48, caption_projection_dim=32, pooled_projection_dim=32,
        pos_embed_max_size=12, qk_norm=None if kind in ("sd3_medium", "without_t5") else "rms_norm",
        dual_attention_layers=(0, 1) if kind == "sd35_medium" else (),
    )  # fmt: skip
    # Attention of fresh weights is close to uniform, and what it finds is hardly let in. Their output is no
    # velocity: made smaller, it keeps latents near 1 under guidance.
    made.proj_out.weight.data *= 0.2
    for name, weight in made.named_parameters():
        if name.endswith(("to_q.weight", "to_k.weight", "add_q_proj.weight", "add_k_proj.weight")):
            weight.data *= 4
        if "norm_" in name and name.endswith(("q.weight", "k.weight")):
            weight.data *= 3
        if "norm1" in name and name.endswith("linear.bias"):
            weight.data += 0.5
        if name.endswith(("context_embedder.weight", "add_v_proj.weight", "to_v.weight")):
            weight.data *= 3
    return made.eval()


def _clip(size: int, tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=size, intermediate_size=32, num_hidden_layers=3,
            projection_dim=16, num_attention_heads=2, max_position_embeddings=WIDTH,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()  # fmt: skip


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, latent_channels=4,
        sample_size=IMAGE, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False,
        use_post_quant_conv=False,
    )  # fmt: skip
