import pytest

from p2p_bench.errors import ConfigError, PromptError
from p2p_bench.inversion import DDIMInversion, NegativePromptInversion
from p2p_bench.inversion.base import read_sources
from tests.editing.naive import naive_sampling
from tests.inversion.runs import (
    SOURCE,
    STEPS,
    TARGET,
    assert_batches_change_nothing,
    distance,
    edited,
    images,
)
from tests.models.tiny import tiny_model


def test_the_source_is_ddim_at_guidance_one_and_targets_lead_away_from_its_prompt() -> None:
    result = edited(NegativePromptInversion())
    plain = edited(DDIMInversion(), guidance=1.0)
    assert distance(result.latents[0], plain.latents[0]) <= 1e-10
    model = tiny_model()
    (replay,) = DDIMInversion().invert(model, read_sources(model, images(1), [SOURCE]), STEPS)
    empty = model.encode_prompts([SOURCE])
    expected = naive_sampling(
        model,
        [SOURCE, TARGET],
        replay.start[0],
        STEPS,
        combine=7.5,
        empty=lambda step: empty.expand(2, -1, -1),
    )
    assert distance(result.latents, expected) <= 1e-10
    assert distance(expected[1], edited(DDIMInversion()).latents[1]) > 1e-3


def test_the_source_needs_no_unconditional_pass() -> None:
    result = edited(NegativePromptInversion())
    assert (result.inversion_rows, result.source_rows, result.target_rows) == (4, 4, (8,))
    assert edited(NegativePromptInversion(), guidance=1.0).target_rows == (4,)


def test_guidance_of_the_backward_pass_is_apart_from_that_of_sampling() -> None:
    result = edited(NegativePromptInversion(guidance=3.0), guidance=1.0)
    ddim = edited(DDIMInversion(guidance=3.0), guidance=1.0)
    assert distance(result.latents, ddim.latents) <= 1e-10
    assert result.inversion_rows == 8


def test_batches_change_nothing() -> None:
    assert_batches_change_nothing(NegativePromptInversion)


def test_bad_input() -> None:
    with pytest.raises(ConfigError, match=r"inversion\.guidance: .* at least 0, got -1"):
        NegativePromptInversion(guidance=-1.0)
    with pytest.raises(PromptError, match="too long"):
        NegativePromptInversion().invert(
            tiny_model(), read_sources(tiny_model(), images(1), ["a mirror of mirrors and mirrors"]), 2
        )
