"""Local blend, end to end."""

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

import p2p_bench as p2p
from p2p_bench.controllers import LocalBlend
from p2p_bench.editing.masks import attention_mask, fitted_mask
from p2p_bench.editing.run import run_edits
from p2p_bench.sampling import initial_noise
from tests.editing.naive import naive_sampling
from tests.editing.published_blend import PublishedBlend
from tests.models.tiny import tiny_model
from tests.oracle import MapRow, Published, Refinement, Scaling, Swap, refinement_mapper, swap_mapper

SOURCE, SWAPPED = "a red circle on grass", "a blue circle on grass"
LONGER = "a small red circle on grass in fog"
STEPS, SEED, SHAPE = 5, 3, (4, 8, 8)
REPLACE = p2p.Replace(cross=0.6, self_attn=0.5)


def written_out(name: str, target: str) -> Published:
    """The oracle's edit: cross 0.6 and self 0.5 of 5 steps are the first 3 and the first 2."""
    model = tiny_model()
    tokenizer, width = model.tokenizer, model.spec.max_tokens
    weights = torch.ones(width, dtype=torch.float64)
    weights[3] = 2.5
    if name == "refine":
        ids = (tokenizer(SOURCE).input_ids, tokenizer(target).input_ids)
        cross: Any = Refinement(*refinement_mapper(*ids, width))
    else:
        cross = Swap(swap_mapper(SOURCE, target, tokenizer, width, as_released=False))
    return Published(Scaling(weights, cross) if name == "reweight" else cross, 3, 2, model.spec.self_fraction)


def names(fraction: float) -> list[str]:
    return [site.name for site in tiny_model().sites if site.kind == "cross" and site.fraction == fraction]


# Columns: 0 begin, 1 "a", 2 the colour, 3 "circle", 4 "on", 5 "grass"; in LONGER 2 "small", 3 "red", ...
CASES: dict[str, tuple[str, str, Any, dict[str, Any], dict[str, Any]]] = {
    "one word of both": (
        "replace", SWAPPED, REPLACE,
        {"words": "circle", "start": 0.0, "threshold": 0.6},
        {"words": [[3], [3]], "start": 0, "threshold": (0.6, 0.3)},
    ),
    "words of each, later": (
        "replace", SWAPPED, REPLACE,
        {"words": ["red", "on"], "target_words": ["blue circle"], "start": 0.5, "threshold": 0.7, "pool": 1},
        {"words": [[2, 4], [2, 3]], "start": 2, "threshold": (0.7, 0.3), "k": 0},
    ),
    "subtracted": (
        "replace", SWAPPED, REPLACE,
        {"words": "circle", "subtract": "grass", "start": 0.2, "threshold": 0.4, "subtract_threshold": 0.8},
        {"words": [[3], [3]], "subtract": [[5], [5]], "start": 1, "threshold": (0.4, 0.8)},
    ),
    "source words alone, around a refinement": (
        "refine", LONGER, p2p.Refine(cross=0.6, self_attn=0.5),
        {"words": "circle", "target_words": [], "start": 0.2, "threshold": 0.6},
        {"words": [[3], []], "start": 1, "threshold": (0.6, 0.3)},
    ),
    "target words alone, subtracted in the target alone": (
        "refine", LONGER, p2p.Refine(cross=0.6, self_attn=0.5),
        {
            "words": [], "target_words": ["small", "fog"], "target_subtract": "on",
            "threshold": 0.3, "subtract_threshold": 0.7, "pool": 5,
        },
        {"words": [[], [2, 8]], "subtract": [[], [5]], "start": 1, "threshold": (0.3, 0.7), "k": 2},
    ),
    "around a re-weighting, at the full size": (
        "reweight", SWAPPED, p2p.Reweight({"circle": 2.5}, cross=0.6, inner=REPLACE),
        {"words": "circle", "start": 0.0, "threshold": 0.7, "fraction": 1.0},
        {"words": [[3], [3]], "start": 0, "threshold": (0.7, 0.3)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_equals_the_released_code_on_written_out_maps(case: str) -> None:
    name, target, inner, options, published = CASES[case]
    model = tiny_model()
    maps: dict[str, Tensor] = {}
    blend = PublishedBlend(maps, names(options.get("fraction", 0.5)), **published)
    edits = [MapRow(1, 0, written_out(name, target))]
    noise = initial_noise(SEED, SHAPE).double()
    expected = naive_sampling(model, [SOURCE, target], noise, STEPS, edits=edits, saved=maps, after=blend)
    assert len(blend.masks) == STEPS - blend.start
    shares = torch.stack([mask[1].double().mean() for mask in blend.masks])
    assert shares.min() < 0.9, "the mask is all of the picture: this case shows nothing"
    assert shares.max() > 0.05, "the mask is empty: this case shows nothing"
    result = p2p.edit(model, SOURCE, target, LocalBlend(inner, **options), seed=SEED, steps=STEPS)
    assert float((result.latents - expected).abs().max()) <= 1e-10
    without = p2p.edit(model, SOURCE, target, inner, seed=SEED, steps=STEPS)
    assert torch.equal(without.latents[0], result.latents[0])
    assert float((without.latents[1] - result.latents[1]).abs().max()) > 1e-3


def test_a_given_mask_records_nothing_and_keeps_the_rest() -> None:
    model = tiny_model()
    mask = torch.zeros(16, 16)
    mask[5, 3] = 1.0  # of the latent position (2, 1)
    mask[8:12, 8:] = 0.9
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[2, 1] = expected[4:6, 4:].fill_(True).any()
    assert torch.equal(fitted_mask(mask > 0.5, (8, 8)), expected)
    result = p2p.edit(model, SOURCE, SWAPPED, LocalBlend(REPLACE, mask=mask), seed=SEED, steps=STEPS)
    changed = (result.latents[1] - result.latents[0]).abs().amax(0) > 0
    assert torch.equal(changed, expected)

    def after(step: int, x: Tensor) -> Tensor:
        return x if step < 1 else x[:1] + expected.to(x) * (x - x[:1])

    naive = naive_sampling(
        model, [SOURCE, SWAPPED], initial_noise(SEED, SHAPE).double(), STEPS,
        edits=[MapRow(1, 0, written_out("replace", SWAPPED))], after=after,
    )  # fmt: skip
    assert float((result.latents - naive).abs().max()) <= 1e-10


def blended(prompt: str, inner: p2p.Controller, **options: Any) -> p2p.Target:
    return p2p.Target(prompt, LocalBlend(inner, threshold=0.6, **options))


def blend_requests() -> list[p2p.EditRequest]:
    """Several pairs, several targets each: with and without blends, of different words, starts and sizes."""
    refine = p2p.Refine(cross=0.6, self_attn=0.5)
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1))
    ones = torch.zeros(8, 8)
    ones[2:5, 3:] = 1
    targets = (
        blended(SWAPPED, REPLACE, words="circle"),
        p2p.Target(LONGER, refine),
        blended(LONGER, refine, words="red", target_words="small", start=0.4, subtract="grass"),
        p2p.Target(SWAPPED, LocalBlend(REPLACE, mask=ones, start=0.6)),
        blended(SWAPPED, REPLACE, words="on", fraction=1.0, start=0.0),
        p2p.Target(SWAPPED, REPLACE),
    )
    return [
        p2p.EditRequest("first", SOURCE, targets, seed=1),
        p2p.EditRequest("second", SWAPPED, (blended(SOURCE, REPLACE, words="grass"),), seed=2),
        p2p.EditRequest("real", SOURCE, targets[:2], image=image, inversion=p2p.DDIMInversion()),
    ]


def test_blends_of_several_targets_and_pairs_equal_solo_runs() -> None:
    model = tiny_model()
    together = run_edits(model, blend_requests(), steps=STEPS, record=True)
    for request, result in zip(blend_requests(), together, strict=True):
        assert result.error is None
        for index, target in enumerate(request.targets, start=1):
            alone = run_edits(model, [dataclasses.replace(request, targets=(target,))], steps=STEPS)[0]
            assert float((alone.latents[0] - result.latents[0]).abs().max()) <= 1e-10
            assert float((alone.latents[1] - result.latents[index]).abs().max()) <= 1e-10
    first = together[0].latents
    assert all(float((first[a] - first[b]).abs().max()) > 1e-3 for a, b in ((1, 6), (2, 3), (4, 6), (5, 6)))


def test_a_blend_the_model_cannot_make_leaves_the_other_targets() -> None:
    model = tiny_model()
    targets = (
        p2p.Target(SWAPPED, LocalBlend(REPLACE, "circle", fraction=0.125)),
        p2p.Target(SWAPPED, LocalBlend(REPLACE, mask=torch.ones(8, 4))),
        p2p.Target(SWAPPED, REPLACE),
    )
    (result,) = run_edits(model, [p2p.EditRequest("x", SOURCE, targets)], steps=2)
    assert "local_blend fraction: there is no cross-attention at 0.125 of the side" in str(result.errors[1])
    assert "local_blend mask: 4 x 8 pixels have other proportions than the 16 x 16" in str(result.errors[2])
    assert result.errors[3] is None


def test_nothing_is_recorded_before_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    from p2p_bench.attention.recorder import Recorder

    added: list[str] = []
    monkeypatch.setattr(Recorder, "add", lambda self, site, maps, slots: added.append(site.name))
    model = tiny_model()
    p2p.edit(model, SOURCE, SWAPPED, REPLACE, steps=2, record=False)
    p2p.edit(model, SOURCE, SWAPPED, LocalBlend(REPLACE, mask=torch.ones(8, 8)), steps=2, record=False)
    assert added == []
    late = LocalBlend(REPLACE, "circle", start=1.0)
    p2p.edit(model, SOURCE, SWAPPED, late, steps=2, record=False)
    assert sorted(set(added)) == sorted(names(0.5))
    assert len(added) == 2 * len(names(0.5))


@pytest.mark.parametrize("start", [0.0, 0.2])
def test_the_world_keeps_its_background(world: Any, start: float) -> None:
    steps = 10
    model = dataclasses.replace(world)
    blend = LocalBlend(p2p.Replace(), "circle", start=start, threshold=0.5)
    plain = p2p.edit(model, SOURCE, SWAPPED, p2p.Replace(), seed=0, steps=steps)
    result = p2p.edit(model, SOURCE, SWAPPED, blend, seed=0, steps=steps)
    torch.testing.assert_close(result.latents[0], plain.latents[0], rtol=0, atol=1e-5)
    # The last mask, from the maps of all steps.
    mask = torch.stack(
        [attention_mask(result.maps[image][3], world.spec.latent_size, 3, 0.5) for image in (0, 1)]
    ).any(0)
    assert 0 < mask.float().mean() < 1
    change = (result.latents[1] - result.latents[0]).abs().amax(0)
    assert bool((change[~mask] == 0).all())
    assert change[mask].max() > 0.1
    assert (plain.latents[1] - plain.latents[0]).abs().amax(0)[~mask].max() > 0.1


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 6), st.integers(1, 6), st.sampled_from([1, 3, 5]), st.floats(0, 0.99), st.integers(0, 99)
)
def test_attention_masks(height: int, width: int, pool: int, threshold: float, seed: int) -> None:
    heat = torch.rand(height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mask = attention_mask(heat, (2 * height, 2 * width), pool, threshold)
    padded = functional.pad(heat, (pool // 2,) * 4, value=-1.0)
    pooled = padded.unfold(0, pool, 1).unfold(1, pool, 1).amax((2, 3))
    expected = (pooled / heat.max() > threshold).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(mask, expected)
    assert mask.any()
    assert torch.equal(attention_mask(heat * 0.01, (2 * height, 2 * width), pool, threshold + 1e-9), mask)


def test_no_attention_is_no_mask() -> None:
    assert not attention_mask(torch.zeros(4, 4), (8, 8), 3, 0.3).any()
