import pytest
import torch
from diffusers import UNet2DConditionModel

from p2p_bench.attention.sites import unet_sites
from p2p_bench.errors import ConfigError
from tests.attention.rig import tiny_unet


def test_sites_of_a_unet() -> None:
    sites = {site.name: site for site in unet_sites(tiny_unet())}
    layers = [name for name, _ in tiny_unet().named_modules() if name.endswith((".attn1", ".attn2"))]
    assert sorted(sites) == sorted(layers)
    assert all((site.kind == "cross") == name.endswith("attn2") for name, site in sites.items())
    first = sites["down_blocks.0.attentions.0.transformer_blocks.0.attn2"]
    assert (first.level, first.fraction, first.place, first.heads, first.head_dim) == (0, 1.0, "down", 2, 8)


def test_levels_follow_the_size_of_the_maps() -> None:
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 8, 8),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    levels = {(site.place, site.name.split(".")[1]): site.level for site in unet_sites(unet)}
    assert levels == {
        ("down", "1"): 1,
        ("down", "2"): 2,
        ("mid", "attentions"): 2,
        ("up", "0"): 2,
        ("up", "1"): 1,
    }


def test_added_keys_and_values_are_joint_sites() -> None:
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8),
        down_block_types=("SimpleCrossAttnDownBlock2D", "ResnetDownsampleBlock2D"),
        up_block_types=("ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        layers_per_block=1,
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=4,
        only_cross_attention=(True, False),
        mid_block_only_cross_attention=False,
    )
    sites = {site.name: site for site in unet_sites(unet)}
    joint = {name: (site.joint, site.layer, site.layers) for name, site in sites.items()}
    # The layers that attend to the text alone are numbered apart, in the order in which they run.
    assert joint == {
        "down_blocks.0.attentions.0": (False, 0, 3),
        "mid_block.attentions.0": (True, 0, 1),
        "up_blocks.1.attentions.0": (False, 1, 3),
        "up_blocks.1.attentions.1": (False, 2, 3),
    }
    assert {site.kind for site in sites.values()} == {"cross"}


def test_a_network_without_attention_is_refused() -> None:
    with pytest.raises(ConfigError, match="no attention layer was found in a Linear"):
        unet_sites(torch.nn.Linear(2, 2))
