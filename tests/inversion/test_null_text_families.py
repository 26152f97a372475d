"""Null-text inversion reaches the pivot on models of other families."""

from dataclasses import replace

import pytest
import torch

from p2p_bench.inversion import NullTextInversion
from p2p_bench.inversion.base import read_sources
from p2p_bench.inversion.null_text import NullTextReplay
from tests.models.small import small_checkpoint
from tests.models.trained import PROMPTS, smooth_latents, trained_model

STEPS, GUIDANCE = 50, 2.5
METHOD = NullTextInversion(guidance=GUIDANCE, learning_rate=0.03)
PUBLISHED_STOP = 1e-5 + 2e-5 * torch.arange(STEPS)


def inverted(family: str, method: NullTextInversion) -> NullTextReplay:
    model = trained_model(family)
    latents = smooth_latents(1, 8, torch.Generator().manual_seed(5))
    sources = read_sources(model, torch.zeros(1, 3, *model.spec.image_size), [PROMPTS[0]])
    (replay,) = method.invert(model, replace(sources, latents=latents), STEPS)
    assert isinstance(replay, NullTextReplay)
    return replay


@pytest.mark.parametrize("family", ["sd2", "sdxl", "ldm"])
def test_the_pivot_is_reached(family: str) -> None:
    """Every step ends under the published stop, in the published number of updates."""
    before = inverted(family, replace(METHOD, learning_rate=0.0, inner_steps=1))
    after = inverted(family, METHOD)
    ended = torch.stack([losses[~losses.isnan()][-1] for losses in after.losses])
    assert float((before.losses[:, 0] / PUBLISHED_STOP).max()) > 3
    assert bool((ended < PUBLISHED_STOP).all())
    assert after.converged
    assert after.distance < before.distance / 3


def test_columns_that_start_at_zero_stay_equal_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    model = small_checkpoint("sdxl").load(dtype=torch.float32)
    assert model.spec.unprompted == "zeros"
    image = torch.rand(1, 3, *model.spec.image_size, generator=torch.Generator().manual_seed(2))
    (replay,) = replace(METHOD, inner_steps=2).invert(model, read_sources(model, image, [PROMPTS[0]]), 4)
    assert isinstance(replay, NullTextReplay)
    assert replay.embeddings is not None
    torch.testing.assert_close(
        replay.embeddings, replay.embeddings[:, :1].expand_as(replay.embeddings), rtol=0, atol=1e-6
    )
    assert float(replay.embeddings.abs().max()) > 1e-3
    assert "model.unprompted=encoded" in caplog.text
