"""Repair: the source's pixels outside the mask of an edit."""

from typing import Any

import pytest
import torch

import p2p_bench as p2p
from p2p_bench.editing.masks import attention_mask
from p2p_bench.editing.mending import feathered
from p2p_bench.errors import ConfigError, P2PError
from p2p_bench.inversion import DDIMInversion
from p2p_bench.inversion.base import read_sources
from tests.models.tiny import tiny_model

SOURCE, TARGET = "a red circle on grass", "a blue circle on grass"
IMAGE = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(4))
LEFT = (torch.arange(16) < 8).float().expand(16, -1)


def edited(repair: Any = False, target: str = TARGET, image: Any = IMAGE, **options: Any) -> p2p.EditResult:
    return p2p.edit(
        tiny_model(), SOURCE, target, image=image, steps=3, guidance=5.0, repair=repair, **options
    )


def test_a_given_mask_keeps_the_edit_inside_and_the_image_outside() -> None:
    plain, mended = edited(), edited(p2p.Repair(mask=LEFT))
    assert torch.equal(mended.images[0], plain.images[0])
    assert torch.equal(mended.images[1][:, :, 8:], IMAGE[:, :, 8:])
    assert torch.equal(mended.images[1][:, :, :8], plain.images[1][:, :, :8])
    assert torch.equal(mended.repair_masks[1], LEFT)
    assert not plain.repair_masks
    assert mended.unet_rows == plain.unet_rows


def test_a_generated_source_stands_for_itself() -> None:
    mended = edited(p2p.Repair(mask=LEFT), image=None)
    assert torch.equal(mended.images[1][:, :, 8:], mended.images[0][:, :, 8:])


@pytest.mark.parametrize("words", [None, ("red", "blue")])
def test_the_mask_is_where_the_changed_words_are_attended_to(words: tuple[str, ...] | None) -> None:
    mended, plain = edited(p2p.Repair(words, threshold=0.8), record=False), edited(record=True)
    wanted = attention_mask(plain.heatmap("red", 0), (16, 16), 3, 0.8)
    wanted |= attention_mask(plain.heatmap("blue", 1), (16, 16), 3, 0.8)
    assert 0 < int(wanted.sum()) < 256
    assert torch.equal(mended.repair_masks[1], wanted.float())
    expected = torch.where(wanted, plain.images[1], IMAGE)
    torch.testing.assert_close(mended.images[1], expected, atol=1e-6, rtol=0)


def test_words_that_change_places_are_changed_words() -> None:
    source, target = "a red circle and a blue square", "a blue circle and a red square"
    result = p2p.edit(tiny_model(), source, target, image=IMAGE, steps=1, guidance=5.0, repair=True)
    wanted = torch.zeros(16, 16, dtype=torch.bool)
    for word in ("red", "blue"):
        for at in (0, 1):
            wanted |= attention_mask(result.heatmap(word, at), (16, 16), 3, 0.3)
    assert torch.equal(result.repair_masks[1], wanted.float())


def test_words_are_found_as_controllers_find_them() -> None:
    mended = edited(p2p.Repair(("Red circle,",)), target="a blue circle on grass")
    assert mended.repair_masks[1].any()


def test_a_feathered_mask_is_soft_at_its_edge_alone() -> None:
    soft = feathered(LEFT, 1.5)
    assert torch.all(soft[:, :3] > 0.999)
    assert torch.all(soft[:, 13:] < 0.001)
    assert torch.all(soft[:, 1:] <= soft[:, :-1] + 1e-6)
    assert torch.allclose(soft[:, 7] + soft[:, 8], torch.ones(16), atol=1e-5)
    plain, mended = edited(), edited(p2p.Repair(mask=LEFT, feather=1.5))
    torch.testing.assert_close(
        mended.images[1], soft * plain.images[1] + (1 - soft) * IMAGE, atol=1e-6, rtol=0
    )


def test_true_takes_the_defaults() -> None:
    assert torch.equal(edited(True).images, edited(p2p.Repair()).images)


def test_other_captions_invert_the_image_and_leave_the_prompts() -> None:
    plain, other = edited(), edited(inversion_prompt="a cat in fog")
    (start,) = DDIMInversion().invert(
        tiny_model(), read_sources(tiny_model(), IMAGE[None].double(), ["a cat in fog"]), 3
    )
    expected = p2p.edit(tiny_model(), SOURCE, TARGET, noise=start.start[0], steps=3, guidance=5.0)
    torch.testing.assert_close(other.latents, expected.latents, atol=1e-6, rtol=0)
    assert not torch.allclose(other.latents, plain.latents, atol=1e-3)
    assert other.prompts[0].text == SOURCE
    # The inverted image's heatmaps are those of the source prompt.
    assert other.heatmap("circle", 0).shape == plain.heatmap("circle", 0).shape
    assert not torch.equal(edited(inversion_prompt="").latents, plain.latents), (
        "the empty prompt is a prompt of its own"
    )


@pytest.mark.parametrize(
    ("repair", "target", "said"),
    [
        (p2p.Repair(("cat",)), TARGET, "'cat' is neither in"),
        (p2p.Repair(), SOURCE, "have the same words"),
        (p2p.Repair(mask=torch.ones(4, 4)), TARGET, "4 x 4 pixels"),
    ],
)
def test_a_mask_that_cannot_be_made_is_an_error(repair: p2p.Repair, target: str, said: str) -> None:
    with pytest.raises(P2PError, match=said):
        edited(repair, target)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"words": ("a",), "mask": LEFT}, "got both"),
        ({"threshold": 1.0}, "threshold"),
        ({"pool": 2}, "pool"),
        ({"feather": -1.0}, "feather"),
    ],
)
def test_bad_settings_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        p2p.Repair(**values)


def test_an_inversion_prompt_needs_an_image() -> None:
    with pytest.raises(P2PError, match="inversion_prompt"):
        edited(image=None, inversion_prompt="a cat")
