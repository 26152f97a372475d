"""Very small FLUX checkpoints with random weights, in the real directory format."""

import functools
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from p2p_bench.models import FluxCheckpoint
from p2p_bench.models.flux import Flux
from tests.models.small_if import small_t5_tokenizer
from tests.models.tiny import WIDTH, tiny_tokenizer

LATENT, IMAGE = 8, 16
T5_WIDTH = 20
_FOLDER = tempfile.TemporaryDirectory(prefix="small-flux-")
KINDS = ("dev", "schnell")
"""With guidance as an input and a shift that grows with the image; with neither."""


@functools.cache
def small_flux(kind: str = "dev", true_cfg: bool = False) -> FluxCheckpoint:
    """A checkpoint of one of `KINDS`, made once per session."""
    path = Path(_FOLDER.name) / kind
    if not path.exists():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            _pipeline(path, kind).save_pretrained(path, safe_serialization=True)
        shutil.rmtree(path / "made")
    return FluxCheckpoint(
        path, name=kind, steps=4, t5_tokens=T5_WIDTH, size=IMAGE, true_cfg=true_cfg,
    )  # fmt: skip


@functools.cache
def small_flux_model(kind: str = "dev", dtype: torch.dtype = torch.float64, true_cfg: bool = False) -> Flux:
    """That checkpoint, loaded once per session; nothing may change it."""
    return small_flux(kind, true_cfg).load(dtype=dtype)


def small_flux_transformer(guidance: bool, seed: int = 0) -> FluxTransformer2DModel:
    """Two blocks of two streams and two of one, with maps that are not flat."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = FluxTransformer2DModel(
            in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=8, num_attention_heads=4,
            joint_attention_dim=32, pooled_projection_dim=16, guidance_embeds=guidance,
            axes_dims_rope=(4, 2, 2),
        )  # fmt: skip
    # See `tests/models/small_sd3.py`.
    made.proj_out.weight.data *= 0.3
    for name, weight in made.named_parameters():
        if "norm_" in name and name.endswith(("q.weight", "k.weight")):
            weight.data *= 2.5
        if name.endswith(("norm1.linear.bias", "norm1_context.linear.bias", "norm.linear.bias")):
            weight.data += 0.5
        if name.endswith(("context_embedder.weight", "add_v_proj.weight", "to_v.weight")):
            weight.data *= 3
    return made.eval()


def _pipeline(path: Path, kind: str) -> FluxPipeline:
    tokenizer, t5_tokenizer = tiny_tokenizer(path / "made"), small_t5_tokenizer()
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=WIDTH, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()  # fmt: skip
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=len(t5_tokenizer), d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
            feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False,
        )
    ).eval()  # fmt: skip
    shift = {"use_dynamic_shifting": True} if kind == "dev" else {"shift": 1.0}
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, latent_channels=4,
        sample_size=IMAGE, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False,
        use_post_quant_conv=False,
    )  # fmt: skip
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**shift), vae=vae, text_encoder=clip, tokenizer=tokenizer,
        text_encoder_2=t5, tokenizer_2=t5_tokenizer, transformer=small_flux_transformer(kind == "dev"),
    )  # fmt: skip
