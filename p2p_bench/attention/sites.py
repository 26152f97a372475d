"""Attention sites: where in a network an edit can act."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn

from p2p_bench.errors import ConfigError

Place = Literal["down", "mid", "up", "block"]
_PLACES: dict[str, Place] = {"down_blocks": "down", "mid_block": "mid", "up_blocks": "up"}
_RUN_ORDER: tuple[Place, ...] = ("down", "mid", "up", "block")


@dataclass(frozen=True)
class Site:
    """One attention layer of a network.

    Attributes:
        name: Dotted path of the layer inside the network.
        kind: "cross" attends to text columns, "self" to the pixels of the same row.
        joint: Whether a "cross" site attends to the pixels of the same row too, under one softmax: added keys
            and values, as in DeepFloyd IF, or the joint attention of a transformer.
        level: How often the latent side was halved on the way here.
        place: Part of the U-Net; "block" in a transformer, whose maps all have one size.
        heads: Number of attention heads.
        head_dim: Width of one head.
        layer: Place among the sites of its kind in the order in which the network runs them, from 0.
        layers: Number of sites of its kind; joint ones are a kind of their own.
    """

    name: str
    kind: Literal["cross", "self"]
    level: int
    place: Place
    heads: int
    head_dim: int
    layer: int = 0
    layers: int = 1
    joint: bool = False

    @property
    def fraction(self) -> float:
        """Side of this site's maps, as a fraction of the latent side."""
        return 2.0**-self.level


ANY_CROSS = Site("any", "cross", 0, "down", 1, 1)
"""Stands for every site of cross-attention to the text alone: edits of columns are equal at all of them."""


def unet_sites(unet: nn.Module) -> tuple[Site, ...]:
    """Attention sites of a diffusers `UNet2DConditionModel`, in the order of its modules.

    Raises:
        ConfigError: There is none, so that no edit could act.
    """
    # diffusers takes seconds to import, and controllers, which need `Site` alone, have no use for it.
    from diffusers.models.attention_processor import Attention

    sites = []
    for name, module in unet.named_modules():
        if not isinstance(module, Attention):
            continue
        part, block, *_ = name.split(".")
        place = _PLACES[part]
        level = _level(unet, place, int(block) if place != "mid" else 0)
        added = module.added_kv_proj_dim is not None
        kind: Literal["cross", "self"] = "cross" if module.is_cross_attention or added else "self"
        joint = added and not module.only_cross_attention
        head_dim = module.inner_dim // module.heads
        sites.append(Site(name, kind, level, place, module.heads, head_dim, joint=joint))
    if not sites:
        raise ConfigError(f"no attention layer was found in a {type(unet).__name__}, so no edit could act")
    return _numbered(sites)


def transformer_sites(transformer: Any) -> tuple[Site, ...]:
    """Attention sites of a diffusers `SD3Transformer2DModel` or `FluxTransformer2DModel`, as they are run.

    Joint attention is one kind, attention of the image to itself (`attn2` of Stable Diffusion 3.5 medium)
    another. In FLUX all is joint, in its single blocks too; its latents are packed two by two.
    """
    from diffusers.models.attention_processor import Attention
    from diffusers.models.transformers.transformer_flux import FluxAttention

    packed = hasattr(transformer, "single_transformer_blocks")
    level = 1 if packed else int(transformer.config.patch_size).bit_length() - 1
    sites = []
    for name, module in transformer.named_modules():
        if isinstance(module, Attention | FluxAttention):
            joint = packed or module.added_kv_proj_dim is not None
            kind: Literal["cross", "self"] = "cross" if joint else "self"
            head_dim = module.inner_dim // module.heads
            sites.append(Site(name, kind, level, "block", module.heads, head_dim, joint=joint))
    return _numbered(sites)


def network_sites(network: nn.Module) -> tuple[Site, ...]:
    """Attention sites of a U-Net or of a transformer."""
    return transformer_sites(network) if hasattr(network, "transformer_blocks") else unet_sites(network)


def _numbered(sites: Sequence[Site]) -> tuple[Site, ...]:
    """The sites with their `layer`: modules are listed down, up, middle, but run down, middle, up."""
    places: dict[str, tuple[int, int]] = {}
    for kind in {(site.kind, site.joint) for site in sites}:
        alike = (site for site in sites if (site.kind, site.joint) == kind)
        run = sorted(alike, key=lambda site: _RUN_ORDER.index(site.place))
        places |= {site.name: (layer, len(run)) for layer, site in enumerate(run)}
    return tuple(replace(site, layer=places[site.name][0], layers=places[site.name][1]) for site in sites)


def _level(unet: Any, place: Place, block: int) -> int:
    """Halvings of the latent side seen by the attention layers of one block."""
    halvings = [down.downsamplers is not None for down in unet.down_blocks]
    if place == "down":
        return sum(halvings[:block])
    doublings = [up.upsamplers is not None for up in unet.up_blocks[:block]] if place == "up" else []
    return sum(halvings) - sum(doublings)
