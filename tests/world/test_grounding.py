"""Grounding: words know their pixels, and the loss pulls their attention there."""

import numpy as np
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTokenizer

from p2p_bench.models import DiffusionModel
from p2p_bench.world.scenes import caption, sample_scene
from p2p_bench.world.scenes.captions import caption_words
from p2p_bench.world.training.grounding import (
    KeepingAttnProcessor,
    grounding_loss,
    place_masks,
    token_owners,
)
from p2p_bench.world.training.latents import DenoisingRecipe, scene_pools, tokenise
from p2p_bench.world.training.unet import build_unet


def test_caption_words_are_the_caption() -> None:
    for seed in range(100):
        scene = sample_scene(seed, two_objects=0.5, styled=0.3, weathered=0.3)
        rngs = np.random.default_rng(seed), np.random.default_rng(seed)
        assert " ".join(word for word, _ in caption_words(scene, rngs[0])) == caption(scene, rngs[1])
        owners = dict(caption_words(scene))
        assert owners[scene.background] == "background"
        for index, item in enumerate(scene.objects):
            assert owners[item.shape] == owners[item.colour] == index


def test_token_owners_lie_on_the_words_tokens(world: DiffusionModel) -> None:
    tokenizer = world.tokenizer
    assert isinstance(tokenizer, CLIPTokenizer)
    scenes = [sample_scene(seed, two_objects=0.5) for seed in range(60)]
    words = [caption_words(scene) for scene in scenes]
    owners = token_owners(tokenizer, words)
    ids = tokenise(tokenizer, [caption(scene) for scene in scenes])
    for row, scene in enumerate(scenes):
        background = tokenizer.decode(ids[row][owners[row] == 3]).strip()
        assert background == scene.background
        for index, item in enumerate(scene.objects):
            named = tokenizer.decode(ids[row][owners[row] == index + 1])
            assert item.shape in named
            assert item.colour in named


def test_loss_is_zero_where_words_look_at_their_pixels_and_one_where_they_do_not() -> None:
    objects = torch.zeros(1, 2, 4, 4)
    objects[0, 0, :2] = 1
    places, owners = place_masks(objects), torch.tensor([[0, 1, 3]])
    attention = torch.zeros(1, 16, 3)
    attention[0, :8, 1], attention[0, 8:, 2], attention[0, :, 0] = 1, 1, 7
    weight = torch.ones(1)
    assert float(grounding_loss([attention], owners, places, weight)) < 1e-9
    swapped = attention[:, :, [0, 2, 1]]
    assert abs(float(grounding_loss([swapped], owners, places, weight)) - 1) < 1e-6
    assert float(grounding_loss([swapped], owners, places, 0 * weight)) == 0


def test_keeping_processor_changes_nothing_and_keeps_every_cross_attention() -> None:
    torch.manual_seed(0)
    unet = build_unet((32, 32), 16).eval()
    x, t, context = torch.randn(2, 4, 16, 16), torch.tensor([3, 700]), torch.randn(2, 7, 16)
    with torch.no_grad():
        plain = unet(x, t, context).sample
        unet.set_attn_processor(KeepingAttnProcessor())
        maps: list[torch.Tensor] = []
        kept = unet(x, t, context, cross_attention_kwargs={"maps": maps}).sample
    torch.testing.assert_close(kept, plain, atol=1e-5, rtol=1e-5)
    assert len(maps) == _cross_sites(unet)
    for layer in maps:
        torch.testing.assert_close(layer.sum(2), torch.ones(layer.shape[:2]))


def _cross_sites(unet: UNet2DConditionModel) -> int:
    return sum(name.endswith("attn2") for name, _ in unet.named_modules())


def test_rare_scenes_are_in_the_pool_as_often_as_the_recipe_says() -> None:
    scenes = [sample_scene(seed, two_objects=0.3, styled=0.5, weathered=0.5) for seed in range(80)]
    alone, together = scene_pools(scenes, DenoisingRecipe(thin_copies=5, thick_copies=1, style_copies=2))
    counts = torch.bincount(torch.cat([alone, together]), minlength=80)
    for scene, count in zip(scenes, counts.tolist(), strict=True):
        thin = scene.weather != "clear" and scene.weather_strength < 0.4
        assert count == (5 if thin else 1) * (2 if scene.style != "photo" else 1)
    assert all(len(scenes[i].objects) == 1 for i in alone)
