"""A very small Stable Diffusion checkpoint with random weights, in the real directory format."""

import functools
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from p2p_bench.models import DiffusionModel, UNetCheckpoint

WIDTH = 16
"""Text columns W."""

WORDS = (
    *("a", "the", "and", "on", "in", "photo", "of", "red", "green", "blue", "yellow", "circle"),
    *("square", "star", "cat", "dog", "grass", "sand", "water", "fog", "soft", "small"),
)
"""Each is one token; any other word takes several."""


_FOLDER = tempfile.TemporaryDirectory(prefix="tiny-checkpoint-")
"""Checkpoints of this session; removed when it ends."""


def tiny_checkpoint(prediction_type: str = "epsilon") -> UNetCheckpoint:
    """A checkpoint that is made once per session. Maps are recorded at half of the latent side (4 x 4)."""
    path = Path(_FOLDER.name) / prediction_type
    if not path.exists():
        make_tiny_checkpoint(path, prediction_type)
    return UNetCheckpoint(path, name="tiny", steps=4, record_fraction=0.5)


def tiny_model(dtype: torch.dtype = torch.float64, prediction_type: str = "epsilon") -> DiffusionModel:
    """A model that is loaded once per session; nothing may change it."""
    return _load(dtype, prediction_type)


@functools.cache
def _load(dtype: torch.dtype, prediction_type: str) -> DiffusionModel:
    return tiny_checkpoint(prediction_type).load(dtype=dtype)


def make_tiny_checkpoint(path: Path, prediction_type: str = "epsilon", latent_size: int = 8) -> Path:
    """Writes a checkpoint of random but fixed weights: 2 x 16 CLIP text model, U-Net (16, 32), VAE factor 2.

    Args:
        path: Directory to make.
        prediction_type: "epsilon" or "v_prediction".
        latent_size: Side of a latent; images are twice as large.

    Returns:
        `path`.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = tiny_tokenizer(path / "tokenizer")
        pipeline = StableDiffusionPipeline(
            vae=AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
                block_out_channels=(8, 16),
                layers_per_block=1,
                norm_num_groups=4,
                latent_channels=4,
                sample_size=2 * latent_size,
                scaling_factor=0.5,
            ),
            text_encoder=CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=len(tokenizer),
                    hidden_size=16,
                    intermediate_size=32,
                    num_hidden_layers=2,
                    num_attention_heads=2,
                    max_position_embeddings=WIDTH,
                    bos_token_id=tokenizer.bos_token_id,
                    eos_token_id=tokenizer.eos_token_id,
                    pad_token_id=tokenizer.pad_token_id,
                )
            ),
            tokenizer=tokenizer,
            unet=UNet2DConditionModel(
                sample_size=latent_size,
                block_out_channels=(16, 32),
                layers_per_block=1,
                down_block_types=("CrossAttnDownBlock2D",) * 2,
                up_block_types=("CrossAttnUpBlock2D",) * 2,
                cross_attention_dim=16,
                attention_head_dim=2,
                norm_num_groups=4,
            ),
            scheduler=DDIMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                clip_sample=False,
                set_alpha_to_one=False,
                steps_offset=1,
                prediction_type=prediction_type,
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    # Attention of fresh weights is close to uniform: sharper maps make an edit's effect visible. Their output
    # is no noise: made smaller, it keeps latents near 1 under guidance 7.5.
    pipeline.unet.conv_out.weight.data *= 0.2
    for name, weight in pipeline.unet.named_parameters():
        if name.endswith(
            ("attn2.to_q.weight", "attn2.to_k.weight", "attn1.to_q.weight", "attn1.to_k.weight")
        ):
            weight.data *= 6
    pipeline.save_pretrained(path, safe_serialization=True)
    return path


def tiny_tokenizer(path: Path) -> CLIPTokenizer:
    """A BPE tokenizer in CLIP's file format, with every one of `WORDS` a token."""
    characters = "abcdefghijklmnopqrstuvwxyz,.-'0123456789"
    merges = learn_merges(WORDS)
    tokens = [*characters, *(f"{letter}</w>" for letter in characters), *map("".join, merges)]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    path.mkdir(parents=True)
    (path / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (path / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges), ""]))
    special = dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    special |= {"bos_token": "<|startoftext|>", "tokenizer_class": "CLIPTokenizer"}
    (path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": WIDTH, **special}))
    return CLIPTokenizer.from_pretrained(path)


def learn_merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Byte-pair merges until every word is one token: the commonest pair first, ties by the alphabet."""
    pieces = [[*word[:-1], f"{word[-1]}</w>"] for word in words]
    merges = []
    while any(len(word) > 1 for word in pieces):
        pairs = Counter(pair for word in pieces for pair in pairwise(word))
        merge = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(merge)
        for word in pieces:
            at = 0
            while at < len(word) - 1:
                if (word[at], word[at + 1]) == merge:
                    word[at : at + 2] = ["".join(merge)]
                at += 1
    return merges
