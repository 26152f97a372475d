"""All tokens of CLIP's image encoder, where metrics read the one feature of the whole image."""

import json
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from p2p_bench.errors import ConfigError
from p2p_bench.metrics.clip_backbone import ClipFiles, ClipNetwork


def token_width(files: ClipFiles) -> int | None:
    """Width of the tokens that `image_tokens` gives, read without weights; None: such an encoder is not read.

    Args:
        files: What `locate_clip` found.
    """
    config = _config(files)
    vision = config["vision_cfg"]
    if vision.get("timm_model_name"):
        return None
    width: int = config["embed_dim"] if isinstance(vision.get("layers"), list) else vision["width"]
    return width


@torch.no_grad()
def image_tokens(network: ClipNetwork, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k d"]:
    """The tokens of images, float32.

    Of a vision transformer its last hidden states after the last layer norm, the class token first, as
    StyleDiffusion's released code reads them (197 x 768 of ViT-B/16). Of a ResNet, which has no class token,
    the pooled feature, and then that of every position by itself, as MaskCLIP (arXiv 2112.01071) reads them.

    As in that code, images are resized as tensors: cubic, without antialiasing, the shorter side to the
    encoder's, and the middle is cut out.

    Args:
        network: The network.
        images: In [0, 1].

    Raises:
        ConfigError: The encoder is of a kind whose tokens are not read.
    """
    visual = network.model.visual
    small = _middle(images.float(), _size(visual)).to(network.device)
    mean, std = (
        torch.tensor(visual.preprocess_cfg[name], device=network.device)[:, None, None]
        for name in ("mean", "std")
    )
    return _tokens(visual, (small - mean) / std).float()


def _tokens(visual: Any, inputs: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n k d"]:
    if hasattr(visual, "attnpool"):
        return _unpooled(visual.attnpool, _seen(visual, visual.layer4, inputs))
    if getattr(visual, "attn_pool", 1) is not None or visual.final_ln_after_pool:
        raise ConfigError(f"the tokens of a {type(visual).__name__} are not read; take ViT-B-16-quickgelu")
    return _seen(visual, visual.ln_post, inputs)


def _seen(visual: nn.Module, part: nn.Module, inputs: Tensor) -> Tensor:
    """What a part of the encoder gives out when it encodes images."""
    kept: list[Tensor] = []
    handle = part.register_forward_hook(lambda module, given, made: kept.append(made))
    try:
        visual(inputs)
    finally:
        handle.remove()
    return kept[-1]


def _unpooled(pool: Any, features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k d"]:
    """The pooled feature, and what each position would give it alone: its value, projected."""
    x = features.flatten(2) + pool.positional_embedding[1:].T.to(features)
    places = pool.c_proj(pool.v_proj(x.transpose(1, 2)))
    return torch.cat([pool(features)[:, None], places], 1)


def _middle(images: Float[Tensor, "n 3 h w"], side: int) -> Float[Tensor, "n 3 s s"]:
    """Images with a shorter side of so many pixels, and of these the square in the middle."""
    height, width = images.shape[-2:]
    sizes = [side * height // min(height, width), side * width // min(height, width)]
    small = interpolate(images, sizes, mode="bicubic") if sizes != [height, width] else images
    top, left = (round((size - side) / 2) for size in sizes)
    return small[:, :, top : top + side, left : left + side]


def _size(visual: Any) -> int:
    size = visual.image_size
    return int(size if isinstance(size, int) else size[0])


def _config(files: ClipFiles) -> Any:
    if files.weights is None:
        return json.loads(files.files[1].read_text(encoding="utf-8"))["model_cfg"]
    import open_clip  # slow to import, and not needed for folders

    return open_clip.get_model_config(files.name)
