"""Every controller and several compositions equal the written-out maps, at every site and end to end."""

from dataclasses import replace
from functools import cache

import pytest
import torch

import p2p_bench as p2p
from p2p_bench.attention.plan import RowEdit, build_step_plan
from p2p_bench.attention.sites import unet_sites
from p2p_bench.controllers import MasaCtrl, NoControl, SelfAttention, pie
from p2p_bench.controllers.bound import BoundP2P
from p2p_bench.controllers.self_edit import NO_SELF_EDIT
from p2p_bench.sampling import initial_noise
from tests.attention.joint import EXACT, bound, one_percent_off
from tests.attention.rig import (
    SELF_FRACTION,
    STEPS,
    WIDTH,
    inputs,
    site_differences,
    tiny_unet,
    tokenizer,
)
from tests.controllers.cases import CASES, SOURCE, Setting, run_order
from tests.editing.naive import naive_sampling
from tests.editing.published_blend import PublishedBlend
from tests.models.tiny import tiny_model
from tests.oracle import Chain, MapRow, Scaling, Timed

LEFT_ALONE = (NoControl, SelfAttention, MasaCtrl)
CROSS = [
    name
    for name, case in CASES.items()
    if not isinstance(case.controller, LEFT_ALONE) and name != "masactrl, then self-attention"
]
SELF = ["replace", "self-attention", "self-attention of all sizes", "notebook"]
SELF += [name for name in CASES if "masactrl" in name]


@cache
def setting() -> Setting:
    return Setting(tokenizer(), WIDTH, STEPS, SELF_FRACTION, run_order(tiny_unet(), *inputs(1)))


@cache
def tiny_setting(steps: int) -> Setting:
    model = tiny_model()
    x = torch.zeros(1, 4, 8, 8, dtype=model.dtype)
    layers = run_order(model.unet, x, 500, model.encode_prompts(["a"]))
    return Setting(model.tokenizer, model.spec.max_tokens, steps, model.spec.self_fraction, layers)


def differences(name: str, controller: BoundP2P, step: int) -> dict[str, float]:
    """Largest difference between the folded controller and the case's oracle, by site."""
    # Two unconditional rows, the source, and the target.
    plan = build_step_plan(unet_sites(tiny_unet()), 4, [RowEdit(3, 2, controller)], step, dtype=torch.float64)
    return site_differences(plan, [MapRow(3, 2, CASES[name].chain(setting()))], step, 4)


@pytest.mark.parametrize("name", CASES)
def test_every_site_equals_the_written_out_maps(name: str) -> None:
    controller = bound(name)
    for step in range(STEPS):
        found = differences(name, controller, step)
        assert len(found) == len(unet_sites(tiny_unet()))
        assert max(found.values()) < EXACT, (step, found)


@pytest.mark.parametrize("name", CROSS)
def test_one_percent_in_an_edit_is_seen(name: str) -> None:
    for step, wrong in one_percent_off(bound(name)):
        found = differences(name, wrong, step)
        assert min(value for site, value in found.items() if ".attn2." in site) > 1e4 * EXACT


@pytest.mark.parametrize("name", SELF)
def test_a_missing_edit_of_self_attention_is_seen(name: str) -> None:
    controller = bound(name)
    sites = [site for site in unet_sites(tiny_unet()) if site.kind == "self"]
    without = replace(controller, self_edits=(NO_SELF_EDIT,) * STEPS)
    seen = False
    for step in {edit: step for step, edit in enumerate(controller.self_edits)}.values():
        found = differences(name, without, step)
        for site in sites:
            edited = controller.site_edit(step, site) is not None
            seen = seen or edited
            assert (found[f"{site.name}.processor"] > 1e4 * EXACT) == edited
    assert seen


@pytest.mark.parametrize("name", CASES)
def test_whole_edits_equal_written_out_sampling(name: str) -> None:
    case, model, steps = CASES[name], tiny_model(), 6
    noise = initial_noise(3, (4, 8, 8)).double()
    edits = [MapRow(1, 0, case.chain(tiny_setting(steps)))]
    expected = naive_sampling(model, [case.source, case.target], noise, steps, edits=edits)
    result = p2p.edit(
        model, case.source, case.target, case.controller, seed=3, steps=steps, guidance=7.5, record=False
    )
    assert float((result.latents - expected).abs().max()) <= EXACT
    plain = naive_sampling(model, [case.source, case.target], noise, steps)
    changed = float((expected[1] - plain[1]).abs().max()) > 1e-3
    assert changed == (name != "none")


def test_pie_with_blend_words_equals_written_out_sampling() -> None:
    """Refinement, the target's blend word times 2, local blend after 20 % of the steps."""
    model, steps = tiny_model(), 5
    target = "a blue circle on grass"
    s = tiny_setting(steps)
    weighted = Scaling(s.weights(target, {"circle": 2.0}), s.refinement(SOURCE, target, True))
    chain = Chain([Timed(weighted, s.gate(0.4, target)), s.injected(0.6, fraction=0.5)])
    maps: dict[str, torch.Tensor] = {}
    sites = [
        site.name
        for site in model.sites
        if site.kind == "cross" and site.fraction == model.spec.record_fraction
    ]
    blend = PublishedBlend(maps, sites, [[3], [3]], start=1)
    noise = initial_noise(3, (4, 8, 8)).double()
    expected = naive_sampling(
        model, [SOURCE, target], noise, steps, edits=[MapRow(1, 0, chain)], after=blend, saved=maps
    )
    controller = pie().for_pair({}, (("circle",), ("circle",)))
    result = p2p.edit(model, SOURCE, target, controller, seed=3, steps=steps, guidance=7.5)
    assert float((result.latents - expected).abs().max()) <= EXACT
    assert len(blend.masks) == steps - 1


def test_many_targets_with_controllers_of_their_own_do_not_mix() -> None:
    names = ["masactrl", "refine, cosine gate", "inject words", "self-attention of all sizes", "pie"]
    cases, model = [CASES[name] for name in names], tiny_model()
    together = p2p.edit(
        model, SOURCE, [case.target for case in cases], [case.controller for case in cases], steps=4
    )
    for index, case in enumerate(cases, start=1):
        alone = p2p.edit(model, SOURCE, case.target, case.controller, steps=4)
        assert torch.allclose(together.latents[index], alone.latents[1], rtol=0, atol=EXACT)


def test_layers_are_numbered_as_the_network_runs_them() -> None:
    sites = {site.name: site for site in unet_sites(tiny_unet())}
    order = setting().layers
    assert [sites[name].layer for name in order] == list(range(len(order)))
    assert {sites[name].layers for name in order} == {len(order)}
    assert [sites[name.replace("attn1", "attn2")].layer for name in order] == list(range(len(order)))
    assert sites[order[-1]].place == "up"
