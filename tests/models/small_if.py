"""A very small DeepFloyd IF checkpoint, stage I, with random weights in the real directory format."""

import functools
import tempfile
from pathlib import Path

import torch
import transformers
from diffusers import DDPMScheduler, IFPipeline, UNet2DConditionModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import T5Config, T5EncoderModel, T5Tokenizer, T5TokenizerFast

from p2p_bench.models import DeepFloydCheckpoint
from p2p_bench.models.deepfloyd_if import DeepFloydIF
from tests.models.tiny import WORDS

SIDE = 16
_FOLDER = tempfile.TemporaryDirectory(prefix="small-if-")


@functools.cache
def small_if() -> DeepFloydCheckpoint:
    """A checkpoint that is made once per session. Maps are recorded at half of the side (8 x 8)."""
    path = Path(_FOLDER.name) / "if"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _pipeline().save_pretrained(path, safe_serialization=True)
    return DeepFloydCheckpoint(path, name="small_if", steps=4, record_fraction=0.5)


@functools.cache
def small_if_model(dtype: torch.dtype = torch.float64) -> DeepFloydIF:
    """A model that is loaded once per session; nothing may change it."""
    return small_if().load(dtype=dtype)


def small_t5_tokenizer() -> T5Tokenizer:
    """A Unigram tokenizer with every one of `WORDS` a token; any other word takes several."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -9.0)]
    pieces += [(f"▁{word}", -3.0) for word in WORDS]
    pieces += [(letter, -9.0) for letter in "abcdefghijklmnopqrstuvwxyz,.-'!0123456789"]
    if int(transformers.__version__.split(".")[0]) >= 5:
        return T5Tokenizer(vocab=pieces, extra_ids=2)
    # Before, the class with a vocabulary of its own needed sentencepiece.
    whole = Tokenizer(models.Unigram(pieces, unk_id=2))
    whole.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    whole.decoder = decoders.Metaspace(prepend_scheme="always")
    whole.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return T5TokenizerFast(tokenizer_object=whole, extra_ids=2)


def _pipeline() -> IFPipeline:
    tokenizer = small_t5_tokenizer()
    encoder = T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
            feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False,
        )
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=SIDE, in_channels=3, out_channels=6, block_out_channels=(16, 32, 32),
        down_block_types=("ResnetDownsampleBlock2D", *("SimpleCrossAttnDownBlock2D",) * 2),
        up_block_types=(*("SimpleCrossAttnUpBlock2D",) * 2, "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", layers_per_block=1, cross_attention_dim=32,
        encoder_hid_dim=16, attention_head_dim=8, norm_num_groups=4, cross_attention_norm="group_norm",
        addition_embed_type="text", addition_embed_type_num_heads=4, resnet_time_scale_shift="scale_shift",
        resnet_skip_time_act=True, time_embedding_act_fn="gelu", act_fn="gelu",
    )  # fmt: skip
    # Attention of fresh weights is close to uniform: sharper maps make an edit's effect visible. Their output
    # is no noise: made smaller, it keeps images within bounds.
    unet.conv_out.weight.data *= 0.05
    for name, weight in unet.named_parameters():
        if name.endswith(("to_q.weight", "to_k.weight", "add_k_proj.weight")):
            weight.data *= 3
        if name.endswith(("add_v_proj.weight", "to_out.0.weight")):
            weight.data *= 2
    scheduler = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", variance_type="learned_range", thresholding=True,
        dynamic_thresholding_ratio=0.95, sample_max_value=1.5, prediction_type="epsilon",
    )  # fmt: skip
    return IFPipeline(tokenizer, encoder, unet, scheduler, None, None, None, requires_safety_checker=False)
