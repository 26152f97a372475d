"""Sampling along the prefix tree equals sampling every variant alone, and costs what the tree says."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.controllers import (
    ByEdit,
    Compose,
    Controller,
    LocalBlend,
    MasaCtrl,
    NoControl,
    Refine,
    Replace,
    Reweight,
)
from p2p_bench.editing import EditRequest, EditResult, Record, Target, run_edits
from tests.editing.test_edit import LONGER, SOURCE, SWAPPED, counted_rows
from tests.models.small_flux import small_flux_model
from tests.models.tiny import tiny_model

STEPS = 5
PARTS = st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0])
INTERVALS = st.tuples(PARTS, PARTS).map(lambda ends: (min(ends), max(ends)))
CROSS = st.one_of(
    PARTS,
    INTERVALS,
    st.tuples(PARTS, PARTS).map(lambda ends: {"end": max(ends), "ramp": min(ends)}),
    st.tuples(PARTS, INTERVALS).map(lambda pair: {"default_": pair[0], "on": pair[1]}),
)
KINDS = ("none", "plain", "reweight", "blend", "masactrl")
# Plain data: checked types look at random items of sequences, which a strategy must not.
SPECS = st.tuples(st.sampled_from(KINDS), st.sampled_from([SWAPPED, LONGER]), CROSS, PARTS, PARTS)


def target_of(spec: tuple[str, str, Any, float, float]) -> Target:
    """The target a specification stands for."""
    kind, prompt, cross, self_attn, number = spec
    inner: Controller = (Replace if prompt == SWAPPED else Refine)(cross=cross, self_attn=self_attn)
    match kind:
        case "none":
            inner = NoControl()
        case "reweight":
            inner = Reweight({"grass": number}, cross=1.0, inner=inner)
        case "blend":
            inner = LocalBlend(inner, words=["circle"], start=number, threshold=0.6)
        case "masactrl":
            inner = Compose((inner, MasaCtrl(start_step=2, layers=(0.0, 1.0))))
    return Target(prompt, inner)


def alone(target: Target, seed: int) -> tuple[Tensor, Tensor, int]:
    """Latents and maps of a target sampled alone, and its rows."""
    result = _run([EditRequest("alone", SOURCE, (target,), seed=seed)])[0]
    return result.latents[1], result.maps[1], result.target_rows[0]


def _run(requests: list[EditRequest]) -> list[EditResult]:
    return run_edits(tiny_model(), requests, steps=STEPS, guidance=3.0, record=True)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.lists(SPECS, min_size=1, max_size=5), min_size=1, max_size=2))
def test_the_tree_equals_solo_runs(specs: list[list[tuple[str, str, Any, float, float]]]) -> None:
    table = [[target_of(spec) for spec in row] for row in specs]
    requests = [EditRequest(str(seed), SOURCE, tuple(row), seed=seed) for seed, row in enumerate(table)]
    with counted_rows(tiny_model()) as sizes:
        results = _run(requests)
    assert sum(sizes) == sum(result.unet_rows for result in results)
    for seed, (row, result) in enumerate(zip(table, results, strict=True)):
        for index, target in enumerate(row):
            latents, maps, rows = alone(target, seed)
            assert float((result.latents[1 + index] - latents).abs().max()) <= 1e-10
            assert float((result.maps[1 + index] - maps).abs().max()) <= 1e-6
            assert result.target_rows[index] == rows == 2 * STEPS
            assert result.target_rows_spent[index] <= rows


def test_eleven_taus_take_750_of_2200_rows() -> None:
    model = tiny_model()
    targets = tuple(Target(SWAPPED, ByEdit(cross=tau / 10, self_attn=0.0)) for tau in range(11))
    request = EditRequest("one", SOURCE, targets)
    with counted_rows(model) as sizes:
        result = run_edits(model, [request], steps=50, guidance=3.0)[0]
    assert sum(sizes) == result.unet_rows == 750
    assert sum(result.source_rows + rows for rows in result.target_rows) == 2200
    assert sum(result.target_rows_spent) == pytest.approx(650)


def test_variants_that_are_one_edit_are_one_row() -> None:
    targets = (Target(SWAPPED, Replace(0.5, 0.0)), Target(SWAPPED, ByEdit(0.5, 0.0)))
    result = p2p.run_edits(tiny_model(), [EditRequest("same", SOURCE, targets)], steps=STEPS, guidance=3.0)[0]
    assert result.target_rows_spent == (STEPS, STEPS)
    assert torch.equal(result.latents[1], result.latents[2])


def test_details_and_self_attention_are_kept_through_forks() -> None:
    targets = (Target(SWAPPED, Replace(0.4, 0.0)), Target(SWAPPED, Replace(0.8, 0.0)))
    record = Record(apart=("steps",), self_images=(0, 2))
    both = run_edits(tiny_model(), [EditRequest("both", SOURCE, targets)], steps=STEPS, record=record)[0]
    one = run_edits(
        tiny_model(),
        [EditRequest("one", SOURCE, targets[1:])],
        steps=STEPS,
        record=Record(apart=("steps",), self_images=(0, 1)),
    )[0]
    for got, expected in zip(both.attention, one.attention, strict=True):
        assert float((got.maps[2] - expected.maps[1]).abs().max()) <= 1e-6
        assert float((got.maps[0] - expected.maps[0]).abs().max()) <= 1e-6
    assert set(both.attention[1].maps) == {0, 2}


def test_targets_that_one_of_two_text_encoders_reads_alike_are_two_rows() -> None:
    """T5's tokenizer has no capital letters here; CLIP's, whose vector is told besides, reads small ones."""
    model, texts = small_flux_model(), ["a A cat", "a B cat"]
    assert model.tokenize(texts[0]).ids == model.tokenize(texts[1]).ids
    together = p2p.edit(model, "a cat", texts, steps=2, record=False)
    alone = p2p.edit(model, "a cat", texts[1], steps=2, record=False)
    assert float((together.latents[2] - alone.latents[1]).abs().max()) < 1e-5
    assert float((together.latents[2] - together.latents[1]).abs().max()) > 1e-3
    # So there is something to edit from the one into the other.
    edited = p2p.edit(model, *texts, Replace(), steps=2, record=False)
    assert float((edited.latents[1] - edited.latents[0]).abs().max()) > 1e-4
