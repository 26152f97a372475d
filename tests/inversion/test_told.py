"""What the network is told of a source: its prompt or none, there and back."""

from typing import Any

import pytest
import torch

import p2p_bench as p2p
from p2p_bench.app.compose import compose, group_options
from p2p_bench.app.instantiate import instantiate
from p2p_bench.editing.request import EditRequest, PreparedRequest, Target, prepare
from p2p_bench.editing.run import run_edits
from p2p_bench.inversion import (
    DDIMInversion,
    DirectInversion,
    EDICTInversion,
    EditFriendlyInversion,
    Inversion,
    NegativePromptInversion,
    NullTextInversion,
    Pix2PixZeroInversion,
    ProximalInversion,
    ReNoiseInversion,
)
from p2p_bench.inversion.base import Prompts, read_sources
from p2p_bench.inversion.recall import replay_key
from p2p_bench.inversion.told import ToldApart, ToldInversion
from tests.controllers.released_loops import Released
from tests.inversion.runs import SOURCE, STEPS, TARGET, distance, edited, encoded, images
from tests.models.small_flux import small_flux_model
from tests.models.tiny import tiny_model

MASA = p2p.MasaCtrl(0, 0.5, unprompted=True)


def prepared(inversion: Inversion, controller: Any = MASA, **options: Any) -> PreparedRequest:
    model = tiny_model()
    request = EditRequest(
        "x", SOURCE, (Target(TARGET, controller),), image=images(1)[0], inversion=inversion, **options
    )
    return prepare(model, model.spec, request, STEPS, sites=model.sites)


@pytest.mark.parametrize("option", group_options("inversion"))
def test_methods_that_invert_with_a_prompt_alone_can_be_told_none(option: str) -> None:
    told = {
        "ddim", "direct", "null_text", "edict", "edit_friendly", "renoise",
        "ode", "rf_solver", "fireflow", "uni_inv",
    }  # fmt: skip
    node = compose([f"inversion={option}"]).inversion
    method = instantiate(node, "inversion")
    assert isinstance(method, ToldInversion) == (option in told)
    assert isinstance(method, ToldApart) == (option in ("ddim", "direct"))
    assert method.prompts == Prompts()
    if option not in told:
        with pytest.raises(p2p.P2PError, match=r"inverted_with"):
            instantiate(compose([f"inversion={option}", "+inversion.inverted_with=empty"]).inversion, "x")
        return
    empty = instantiate(compose([f"inversion={option}", "+inversion.inverted_with=empty"]).inversion, "x")
    assert empty.prompts == Prompts(inverted_empty=True, replayed_empty=True)


def test_both_ways_are_told() -> None:
    plain = prepared(DDIMInversion())
    assert (plain.inversion_prompt.text, plain.told, plain.negative) == (SOURCE, None, None)
    empty = prepared(DDIMInversion(inverted_with="empty"))
    assert empty.told is not None
    assert (empty.inversion_prompt.text, empty.told.text) == ("", "")
    back = prepared(DirectInversion(replayed_with="empty", negative_prompt="fog"))
    assert back.told is not None
    assert back.negative is not None
    assert (back.inversion_prompt.text, back.told.text, back.negative.text) == (SOURCE, "", "fog")
    there = prepared(DirectInversion(inverted_with="empty", replayed_with="source"))
    assert (there.inversion_prompt.text, there.told) == ("", None)


@pytest.mark.parametrize("method", [DirectInversion, EDICTInversion, EditFriendlyInversion])
@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_exact_methods_stay_exact(method: Any, guidance: float) -> None:
    result = edited(method(inverted_with="empty"), controller=MASA, guidance=guidance)
    assert distance(result.latents[0], encoded()) <= 1e-10
    other = edited(method(), controller=MASA, guidance=guidance)
    assert distance(result.latents[1], other.latents[1]) > 1e-4


@pytest.mark.parametrize(
    "inversion",
    [NegativePromptInversion(), ProximalInversion(), Pix2PixZeroInversion(direct=True, num_reg_steps=0)],
    ids=lambda one: type(one).__name__,
)
def test_a_pass_of_the_source_for_an_edit_is_no_part_of_its_own_guidance(
    inversion: Inversion,
) -> None:
    requests = [
        EditRequest(
            str(len(targets)), SOURCE, targets, image=images(1)[0], inversion=inversion,
            inversion_prompt="a cat in fog",
        )
        for targets in ((Target(TARGET),), (Target(TARGET), Target(TARGET, MASA)))
    ]  # fmt: skip
    alone, beside = run_edits(tiny_model(), requests, steps=STEPS, guidance=7.5)
    assert alone.error is beside.error is None
    assert distance(alone.latents, beside.latents[:2]) <= 1e-10
    assert distance(beside.latents[1], beside.latents[2]) > 1e-3


@pytest.mark.parametrize("method", [DDIMInversion, ReNoiseInversion, NullTextInversion])
def test_the_source_is_sampled_as_the_empty_prompt_is(method: Any) -> None:
    model = tiny_model()
    own = method(inverted_with="empty", **({"inner_steps": 0} if method is NullTextInversion else {}))
    (replay,) = own.for_guidance(7.5).invert(model, read_sources(model, images(1), [""]), STEPS)
    with torch.no_grad():
        expected = Released(model, STEPS).sampled(replay.start[0][None], "")[-1][0]
    result = edited(own, controller=MASA)
    assert distance(result.latents[0], expected) <= 1e-10
    assert distance(edited(type(own)(), controller=MASA).latents[0], expected) > 1e-6


def test_null_text_leads_a_source_that_is_told_nothing_back() -> None:
    wild, led = (
        edited(
            NullTextInversion(inverted_with="empty", inner_steps=steps, learning_rate=0.1), controller=MASA
        )
        for steps in (0, 10)
    )
    assert distance(led.latents[0], encoded()) < distance(wild.latents[0], encoded())


def test_what_is_told_on_the_way_there_is_part_of_an_inversions_key() -> None:
    model = tiny_model()
    sources = {text: read_sources(model, images(1), [text]) for text in (SOURCE, "")}
    keys = [
        replay_key(DDIMInversion(), model, sources[SOURCE], 0, STEPS),
        replay_key(DDIMInversion(inverted_with="empty"), model, sources[""], 0, STEPS),
        replay_key(DDIMInversion(), model, sources[""], 0, STEPS),
    ]
    assert len(set(keys)) == 3


@pytest.mark.parametrize(
    "controller",
    [
        p2p.Replace(), p2p.Refine(), p2p.InjectWords("circle"), p2p.LocalBlend(MASA, words="circle"),
        p2p.Compose([p2p.Refine(0.5, 0.0), MASA]),
    ],
    ids=lambda one: type(one).__name__,
)  # fmt: skip
def test_edits_that_take_the_sources_words_are_refused(controller: p2p.Controller) -> None:
    with pytest.raises(p2p.ConfigError, match="tells the source none"):
        p2p.edit(
            tiny_model(), SOURCE, TARGET, controller, image=images(1)[0], steps=STEPS,
            inversion=DDIMInversion(inverted_with="empty"),
        )  # fmt: skip
    assert prepared(DDIMInversion(inverted_with="empty", replayed_with="source"), controller).faults == []


@pytest.mark.parametrize(
    "controller",
    [p2p.NoControl(), p2p.SelfAttention(), p2p.ImageQK(), p2p.PlugAndPlay(), MASA],
    ids=lambda one: type(one).__name__,
)
def test_others_are_not(controller: p2p.Controller) -> None:
    assert prepared(DDIMInversion(inverted_with="empty"), controller).faults == []


def test_what_nobody_reads_is_refused() -> None:
    with pytest.raises(p2p.P2PError, match="says already what the image is inverted with"):
        prepared(DDIMInversion(inverted_with="empty"), inversion_prompt="a cat")
    with pytest.raises(p2p.P2PError, match="at guidance 1 there is no pass"):
        prepared(DDIMInversion(negative_prompt="fog"), guidance=1.0)
    with pytest.raises(p2p.P2PError, match="takes no pass without the prompt that could be told it"):
        p2p.edit(
            small_flux_model(), SOURCE, TARGET, image=torch.rand(3, *small_flux_model().spec.image_size),
            inversion=DDIMInversion(negative_prompt="fog"), steps=2,
        )  # fmt: skip
    wrong = compose(["+inversion.inverted_with=nothing"]).inversion
    with pytest.raises(p2p.P2PError, match=r"inversion\.inverted_with"):
        instantiate(wrong, "inversion")


def test_a_negative_prompt_takes_the_place_of_the_empty_one_for_targets_alone() -> None:
    plain, negative = (edited(DDIMInversion(negative_prompt=text)) for text in ("", "a cat in fog"))
    assert distance(plain.latents[0], negative.latents[0]) <= 1e-10
    assert distance(plain.latents[1], negative.latents[1]) > 1e-3
    # Guidance away from the target's own prompt is none at all.
    same = edited(DDIMInversion(negative_prompt=TARGET))
    assert distance(same.latents[1], edited(DDIMInversion(), guidance=1.0).latents[1]) <= 1e-10


def test_a_source_that_is_told_nothing_attends_to_no_word() -> None:
    result = edited(DDIMInversion(inverted_with="empty"), controller=MASA, record=True)
    assert list(result.maps) == [1]
    with pytest.raises(p2p.P2PError, match="was told no prompt"):
        result.heatmap("red", 0)
    assert float(result.heatmap("blue").max()) == 1
