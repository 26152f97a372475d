"""What was asked and cannot act is told: few steps, layers that a model lacks, edits undone by others."""

from typing import Any

import pytest
import torch

import p2p_bench as p2p
from tests.models.tiny import tiny_model

SOURCE, TARGET = "a red circle on grass", "a blue circle on grass"
NO_STEP = "edited at none of the 4 steps taken"
EDGE = torch.ones(16, 16, dtype=torch.bool)
EDGE[0] = False
"""A mask that keeps a line of the image, thinner than a latent."""
NO_LAYER = "edited at none of the model's layers"


def notes(controller: p2p.Controller, **options: Any) -> str:
    (said,) = p2p.edit(tiny_model(), SOURCE, TARGET, controller, steps=4, **options).notes
    return said


@pytest.mark.parametrize(
    ("controller", "said"),
    [
        (lambda: p2p.Replace(0.8, 0.2), f"self-attention: {NO_STEP}"),
        (lambda: p2p.Replace(0.1, 0.5), f"cross-attention: {NO_STEP}"),
        (
            lambda: p2p.ByEdit({"default_": 0.0, "blue": 0.1}, (0.3, 0.4)),
            f"cross-attention: {NO_STEP}; self-attention: {NO_STEP}",
        ),
        (lambda: p2p.Refine(p2p.Ramp(end=0.1, ramp=0.1), 0.0), f"cross-attention: {NO_STEP}"),
        (lambda: p2p.MasaCtrl(start_step=4), f"self-attention: {NO_STEP}"),
        (lambda: p2p.ImageQK(), f"self-attention: {NO_STEP}"),
        (lambda: p2p.PlugAndPlay(0.5, 0.2), f"features: {NO_STEP}"),
        (lambda: p2p.MasaCtrl(layers=20), f"self-attention: {NO_LAYER}"),
        (lambda: p2p.SelfAttention(0.5, fraction=0.01), f"self-attention: {NO_LAYER}"),
        (
            lambda: p2p.LocalBlend(p2p.Replace(0.8, 0.2), "circle", start=1.0),
            f"self-attention: {NO_STEP}; local blend: begins after the last of 4 steps",
        ),
        (
            lambda: p2p.LocalBlend(p2p.Replace(0.8, 0.25), mask=EDGE),
            "local blend: its mask covers all of the latents, so nothing is kept from the source",
        ),
        (
            lambda: p2p.Compose([p2p.Refine(0.8, 0.5), p2p.Reweight({"blue": 2.0})]),
            "reweight blue x 2 takes the source's maps anew, which leaves nothing of refine before it",
        ),
    ],
)
def test_what_never_acts_is_told(controller: Any, said: str) -> None:
    assert notes(controller()) == said


@pytest.mark.parametrize(
    "controller",
    [
        lambda: p2p.NoControl(),
        lambda: p2p.Replace(0.8, 0.0),  # what is not asked for is no news
        lambda: p2p.Replace({"default_": 0.0, "blue": 0.5}, 0.25),
        lambda: p2p.PlugAndPlay(),
        lambda: p2p.Pix2PixZero(),
        lambda: p2p.MasaCtrl(),
        lambda: p2p.LocalBlend(p2p.Refine(), "circle", start=0.75),
        lambda: p2p.LocalBlend(p2p.Replace(0.8, 0.25), mask=EDGE.flip(0) & ~EDGE),
        lambda: p2p.Compose([p2p.Refine(0.8, 0.0), p2p.Reweight({"blue": 2.0}, 0.4)]),
    ],
)
def test_what_acts_is_not(controller: Any) -> None:
    assert notes(controller()) == ""


def test_words_with_the_maps_of_others_are_told() -> None:
    result = p2p.edit(
        tiny_model(), SOURCE, "a small red circle on grass", p2p.Reweight({"red": 2.0}), steps=4
    )
    assert "the prompts share words in other columns" in result.notes[0]


def test_a_blend_that_leaves_nothing_is_told() -> None:
    # what is subtracted covers what is kept: the picture of the source was a row like any other
    everywhere = {"threshold": 0.0, "subtract_threshold": 0.0}
    emptied = p2p.LocalBlend(p2p.Replace(0.8, 0.25), "circle", subtract="grass", **everywhere)
    assert notes(emptied) == "local blend: left nothing of the edit, which is the source"
    assert notes(p2p.LocalBlend(p2p.Replace(0.8, 0.25), "circle")) == ""
    # Nor was there an edit to be left.
    (said,) = p2p.edit(tiny_model(), SOURCE, SOURCE, p2p.Replace(0.8, 0.25), steps=4).notes
    assert said == ""


def test_steps_that_an_inversion_skips_do_not_count() -> None:
    options = {"image": torch.zeros(3, 16, 16), "inversion": p2p.NoisingInversion(0.5)}
    assert notes(p2p.Replace(0.8, 0.4), **options) == "self-attention: edited at none of the 2 steps taken"
    assert notes(p2p.Replace(0.8, 0.0), **options) == ""
