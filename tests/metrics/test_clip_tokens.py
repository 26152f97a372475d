"""Tokens of CLIP's image encoder, written out as OpenAI's code has them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import CenterCrop, Compose, InterpolationMode, Normalize, Resize

from p2p_bench.errors import ConfigError
from p2p_bench.metrics.clip_backbone import ClipFiles, locate_clip, shared_clip
from p2p_bench.metrics.clip_tokens import image_tokens, token_width
from tests.models.tiny_clip import tiny_clip

CPU = torch.device("cpu")
NOWHERE = Path("nowhere.safetensors")


def images(height: int, width: int) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def prepared(pictures: Tensor, side: int, mean: Any, std: Any) -> Tensor:
    """What the released code does to a tensor in [-1, 1], in the version of torchvision that it had."""
    steps = [
        Normalize([-1.0] * 3, [2.0] * 3),
        Resize(side, InterpolationMode.BICUBIC, antialias=False),
        CenterCrop(side),
        Normalize(mean, std),
    ]
    made: Tensor = Compose(steps)(2 * pictures - 1)
    return made


def written_out(visual: Any, x: Tensor) -> Tensor:
    """`VisionTransformer.forward` of the released `clip_util`."""
    x = visual.conv1(x).flatten(2).permute(0, 2, 1)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], 1) + visual.positional_embedding
    x = visual.ln_pre(x)
    for block in visual.transformer.resblocks:
        y = block.ln_1(x)
        x = x + block.attn(y, y, y, need_weights=False)[0]
        x = x + block.mlp(block.ln_2(x))
    made: Tensor = visual.ln_post(x)
    return made


@pytest.mark.parametrize("size", [(16, 16), (8, 8), (20, 28), (31, 16)], ids=str)
def test_of_a_vision_transformer_all_last_states_are_read(size: tuple[int, int]) -> None:
    network = shared_clip(None, tiny_clip(), CPU)
    visual = network.model.visual
    pictures = images(*size)
    tokens = image_tokens(network, pictures)
    inputs = prepared(pictures, 8, [0.5, 0.4, 0.3], [0.2, 0.25, 0.3])
    with torch.no_grad():
        expected = written_out(visual, inputs)
        pooled = F.normalize(expected[:, 0] @ visual.proj, dim=-1)
        torch.testing.assert_close(tokens, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(network.model.encode_image(inputs, normalize=True), pooled)
    assert tokens.shape == (2, 5, 16)
    assert token_width(locate_clip(None, tiny_clip())) == 16


def test_of_a_resnet_the_first_is_its_feature_and_the_others_are_of_their_places() -> None:
    network = shared_clip(None, None, CPU)
    tokens = image_tokens(network, images(64, 64))
    inputs = prepared(images(64, 64), 64, [0.5] * 3, [0.5] * 3)
    with torch.no_grad():
        torch.testing.assert_close(tokens[:, 0], network.model.encode_image(inputs), rtol=1e-4, atol=1e-4)
    assert tokens.shape == (2, 5, 128)
    assert token_width(locate_clip(None, None)) == 128
    # Whoever looks at one corner finds another thing there once it has changed.
    other = images(64, 64)
    other[:, :, 40:, 40:] = 0
    moved = (image_tokens(network, other) - tokens).abs().mean((0, 2))
    assert int(moved[1:].argmax()) == 3
    # Attention to one place alone is that place's token.
    visual, kept = network.model.visual, []
    handle = visual.layer4.register_forward_hook(lambda module, given, made: kept.append(made))
    with torch.no_grad():
        visual(inputs)
        handle.remove()
        pool = visual.attnpool
        x = kept[0].flatten(2).permute(2, 0, 1)
        x = torch.cat([x.mean(0, keepdim=True), x]) + pool.positional_embedding[:, None]
        mask = torch.full((5, 5), -torch.inf)
        mask.fill_diagonal_(0)
        made, _ = F.multi_head_attention_forward(
            x, x, x, 640, pool.num_heads, None,
            torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]), None, None, False, 0.0,
            pool.c_proj.weight, pool.c_proj.bias, training=False, need_weights=False, attn_mask=mask,
            use_separate_proj_weight=True, q_proj_weight=pool.q_proj.weight,
            k_proj_weight=pool.k_proj.weight, v_proj_weight=pool.v_proj.weight,
        )  # fmt: skip
    torch.testing.assert_close(tokens[:, 1:], made[1:].transpose(0, 1), rtol=1e-4, atol=1e-4)


def test_widths_are_known_without_weights_and_others_are_refused() -> None:
    assert token_width(ClipFiles("ViT-B-16-quickgelu", NOWHERE, {})) == 768
    assert token_width(ClipFiles("ViT-L-14-quickgelu", NOWHERE, {})) == 1024
    assert token_width(ClipFiles("RN50-quickgelu", NOWHERE, {})) == 1024
    assert token_width(ClipFiles("ViT-B-16-SigLIP", NOWHERE, {})) is None
    network = shared_clip(None, tiny_clip(24), CPU)
    network.model.visual.final_ln_after_pool = True
    try:
        with pytest.raises(ConfigError, match="take ViT-B-16-quickgelu"):
            image_tokens(network, images(8, 8))
    finally:
        network.model.visual.final_ln_after_pool = False
