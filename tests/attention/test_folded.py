"""The folded processors compute what written-out maps compute."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch.nn.attention import SDPBackend, sdpa_kernel

from p2p_bench.attention.columns import as_matrix, dense
from p2p_bench.attention.plan import RowEdit, build_step_plan
from p2p_bench.attention.processor import FoldedAttnProcessor, folded_attention
from p2p_bench.attention.recorder import Recorder, RecordSpec
from p2p_bench.attention.sites import Site, unet_sites
from p2p_bench.controllers import ByEdit, Controller, NoControl, Refine, Replace, Reweight
from p2p_bench.controllers.bound import BoundP2P
from tests.attention.rig import SELF_FRACTION, WIDTH, context, inputs, site_differences, tiny_unet, tokenizer
from tests.oracle import (
    MapRow,
    MaterialisedAttnProcessor,
    Published,
    Refinement,
    Scaling,
    Swap,
    refinement_mapper,
    run_materialised,
    swap_mapper,
)

SOURCE = "a red circle on striped grass"
SWAP = "a hexagon circle on blue grass"
ADDED = "a red orange circle on grass in the fog"
EXACT = 1e-10


@dataclass(frozen=True)
class Case:
    """A controller, the target it is for, and the published formula it must agree with."""

    target: str
    controller: Controller
    cross: Any
    cross_stop: int
    self_stop: int


def swap(target: str = SWAP) -> Swap:
    return Swap(swap_mapper(SOURCE, target, tokenizer(), WIDTH, as_released=False))


def refinement(target: str = ADDED) -> Refinement:
    return Refinement(*refinement_mapper(tokenizer()(SOURCE).input_ids, tokenizer()(target).input_ids, WIDTH))


def equalizer(columns: tuple[int, ...], factor: float) -> torch.Tensor:
    values = torch.ones(WIDTH, dtype=torch.float64)
    values[list(columns)] = factor
    return values


# Of 10 steps: int(0.4 * 11) = 4 cross steps, int(0.3 * 10) = 3 self steps.
CASES = {
    "replace": Case(SWAP, Replace(0.4, 0.3), swap(), 4, 3),
    "refine": Case(ADDED, Refine(0.4, 0.3), refinement(), 4, 3),
    "reweight alone": Case(
        SOURCE, Reweight({"striped": -2.0}, 0.4, 0.3), Scaling(equalizer((5, 6, 7), -2.0)), 4, 3
    ),
    "reweight replace": Case(
        SWAP,
        Reweight({"blue": 3.0}, 0.4, inner=Replace(0.4, 0.3)),
        Scaling(equalizer((6,), 3.0), swap()),
        4,
        3,
    ),
    "reweight refine": Case(
        ADDED,
        Reweight({"fog": 0.0}, 0.4, inner=Refine(0.4, 0.3)),
        Scaling(equalizer((10,), 0.0), refinement()),
        4,
        3,
    ),
    "by edit, swap": Case(SWAP, ByEdit(0.4, 0.3), swap(), 4, 3),
    "by edit, weights": Case(
        ADDED, ByEdit(0.4, 0.3).for_pair({"fog": 2.0}), Scaling(equalizer((10,), 2.0), refinement()), 4, 3
    ),
    "none": Case(SWAP, NoControl(), swap(), 0, 0),
}


def oracle(case: Case) -> Published:
    return Published(case.cross, case.cross_stop, case.self_stop, SELF_FRACTION)


def bound(case: Case) -> Any:
    return case.controller.bind(context(SOURCE, case.target))


# Rows: three unconditional, two sources, then targets of either source, not in order.
PLACES = ((4, 3), (5, 3), (7, 6), (8, 6), (9, 3))
ROWS = 10


@pytest.mark.parametrize("step", [0, 3, 4])
@pytest.mark.parametrize("name", CASES)
def test_folded_equals_materialised_at_every_site(name: str, step: int) -> None:
    case = CASES[name]
    others = [CASES[other] for other in ("refine", "none", "reweight replace", "replace")]
    cases = [case, *others]
    plan = build_step_plan(
        unet_sites(tiny_unet()),
        ROWS,
        [RowEdit(row, source, bound(each)) for (row, source), each in zip(PLACES, cases, strict=True)],
        step,
        dtype=torch.float64,
    )
    edits = [MapRow(row, source, oracle(each)) for (row, source), each in zip(PLACES, cases, strict=True)]
    differences = site_differences(plan, edits, step, ROWS)
    assert len(differences) == len(unet_sites(tiny_unet()))
    assert max(differences.values()) < EXACT, differences


@pytest.mark.parametrize("part", ["L", "R"])
def test_one_percent_in_one_map_is_seen(part: str) -> None:
    case = CASES["refine"]
    controller: BoundP2P = bound(case)
    edit = controller.cross[0]
    wrong = edit._replace(**{part: dense(as_matrix(getattr(edit, part), WIDTH) * 1.01)})
    edits = [RowEdit(1, 0, replace(controller, cross=(wrong,) * len(controller.cross)))]
    plan = build_step_plan(unet_sites(tiny_unet()), 2, edits, 0, dtype=torch.float64)
    differences = site_differences(plan, [MapRow(1, 0, oracle(case))], 0, 2)
    cross = [difference for name, difference in differences.items() if ".attn2." in name]
    assert min(cross) > 1e4 * EXACT


def test_a_missing_injection_is_seen() -> None:
    plan = build_step_plan(unet_sites(tiny_unet()), 2, [], 0, dtype=torch.float64)
    differences = site_differences(plan, [MapRow(1, 0, oracle(CASES["replace"]))], 0, 2)
    for site in unet_sites(tiny_unet()):
        edited = site.kind == "cross" or site.fraction <= SELF_FRACTION
        assert (differences[f"{site.name}.processor"] > 1e4 * EXACT) == edited, site


@pytest.mark.parametrize("name", CASES)
def test_whole_network_equals_materialised(name: str) -> None:
    case = CASES[name]
    latents, timestep, embeddings = inputs(4)
    plan = build_step_plan(unet_sites(tiny_unet()), 4, [RowEdit(3, 2, bound(case))], 0, dtype=torch.float64)
    with folded_attention(tiny_unet()):
        out = tiny_unet()(latents, timestep, embeddings, cross_attention_kwargs={"plan": plan}).sample
    edits = [MapRow(3, 2, oracle(case))]
    expected, _ = run_materialised(tiny_unet(), latents, timestep, embeddings, edits, 0)
    torch.testing.assert_close(out, expected, rtol=0, atol=EXACT)


def test_text_masks_follow_the_keys() -> None:
    mask = torch.ones(4, WIDTH, dtype=torch.bool)
    mask[2, 9:] = False
    mask[3, 12:] = False
    plan = build_step_plan(
        unet_sites(tiny_unet()), 4, [RowEdit(3, 2, bound(CASES["refine"]))], 0, dtype=torch.float64
    )
    edits = [MapRow(3, 2, oracle(CASES["refine"]))]
    differences = site_differences(plan, edits, 0, 4, encoder_attention_mask=mask)
    assert max(differences.values()) < EXACT


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_a_plan_it_is_diffusers_to_the_bit(dtype: torch.dtype) -> None:
    unet = tiny_unet() if dtype == torch.float64 else _copy(tiny_unet()).to(dtype)
    latents, timestep, embeddings = inputs(3, dtype)
    before = dict(unet.attn_processors)
    expected = unet(latents, timestep, embeddings).sample
    with folded_attention(unet) as sites:
        assert torch.equal(unet(latents, timestep, embeddings).sample, expected)
        empty = build_step_plan(sites, 3, [RowEdit(2, 1, NoControl().bind(context(SOURCE, SWAP)))], 0)
        assert not empty.sites
        out = unet(latents, timestep, embeddings, cross_attention_kwargs={"plan": empty}).sample
        assert torch.equal(out, expected)
    assert unet.attn_processors == before


@pytest.mark.parametrize(
    ("options", "shape", "words"),
    [
        ({"norm_num_groups": 4, "residual_connection": True, "rescale_output_factor": 2.0}, (3, 32, 4, 4), 0),
        ({"bias": True, "qk_norm": "layer_norm"}, (3, 9, 32), 0),
        ({"cross_attention_dim": 12, "cross_attention_norm": "layer_norm"}, (3, 9, 32), WIDTH),
        ({"spatial_norm_dim": 32, "norm_num_groups": 4}, (3, 32, 4, 4), 0),
    ],
)
def test_every_kind_of_attention_layer(options: dict[str, Any], shape: tuple[int, ...], words: int) -> None:
    """Without a plan as diffusers to the bit; with one as the oracle."""
    generator = torch.Generator().manual_seed(0)
    attn = Attention(32, heads=2, dim_head=16, **options).double().requires_grad_(False)
    states = torch.randn(shape, generator=generator, dtype=torch.float64)
    text = torch.randn(3, words, 12, generator=generator, dtype=torch.float64) if words else None
    temb = torch.randn(3, 32, 4, 4, generator=generator, dtype=torch.float64)
    site = Site("layer", "cross" if words else "self", 1, "mid", 2, 16)
    plan = build_step_plan([site], 3, [RowEdit(2, 1, bound(CASES["refine"]))], 0, dtype=torch.float64)

    folded = FoldedAttnProcessor(site)
    plain = AttnProcessor2_0()(attn, states, text, temb=temb)
    assert torch.equal(folded(attn, states, text, temb=temb), plain)
    expected = MaterialisedAttnProcessor(site, [MapRow(2, 1, oracle(CASES["refine"]))])
    out = folded(attn, states, text, temb=temb, plan=plan)
    torch.testing.assert_close(out, expected(attn, states, text, temb=temb), rtol=0, atol=EXACT)
    assert not torch.allclose(out, plain)


def _copy(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    copy = UNet2DConditionModel.from_config(unet.config)
    copy.load_state_dict(unet.state_dict())
    return copy.eval().requires_grad_(False)


def test_processors_come_back_after_an_error() -> None:
    before = dict(tiny_unet().attn_processors)
    with pytest.raises(RuntimeError, match="on purpose"), folded_attention(tiny_unet()):
        raise RuntimeError("on purpose")
    assert tiny_unet().attn_processors == before


def test_edited_attention_stays_fused() -> None:
    cases = [CASES["replace"], CASES["refine"]]
    edits = [RowEdit(row, 1, bound(case)) for row, case in enumerate(cases, start=2)]
    unet = _copy(tiny_unet()).float()
    recorder = Recorder(RecordSpec((2, 3), fraction=0.5), WIDTH, (8, 8))
    plan = build_step_plan(unet_sites(unet), 4, edits, 0, [recorder])
    with folded_attention(unet), sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
        unet(*inputs(4, torch.float32), cross_attention_kwargs={"plan": plan})


def test_the_fused_kernel_refuses_wider_values() -> None:
    query = torch.randn(1, 2, 4, 8)
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]), pytest.raises(RuntimeError, match="No available kernel"):
        torch.nn.functional.scaled_dot_product_attention(query, query, torch.randn(1, 2, 4, 16))


@pytest.mark.parametrize(("name", "rows"), [("replace", 3), ("refine", 4)])
def test_queries_nobody_reads_are_not_computed(name: str, rows: int) -> None:
    unet = tiny_unet()
    plan = build_step_plan(unet_sites(unet), 4, [RowEdit(3, 2, bound(CASES[name]))], 0, dtype=torch.float64)
    seen: dict[str, int] = {}
    hooks = [
        module.register_forward_hook(lambda _, args, out, path=path: seen.__setitem__(path, len(args[0])))
        for path, module in unet.named_modules()
        if path.endswith(("attn2.to_q", "attn2.to_k", "attn2.to_v"))
    ]
    with folded_attention(unet):
        unet(*inputs(4), cross_attention_kwargs={"plan": plan})
    for hook in hooks:
        hook.remove()
    assert {n for path, n in seen.items() if not path.endswith("to_v")} == {rows}
    assert {n for path, n in seen.items() if path.endswith("to_v")} == {4}


def test_plans_are_shared_by_sites() -> None:
    sites = unet_sites(tiny_unet())
    edits = [RowEdit(1, 0, bound(CASES["replace"]))]
    assert not build_step_plan(sites, 2, edits, 4).sites  # cross-attention is edited up to step 4
    plan = build_step_plan(sites, 2, edits, 0)
    cross = {id(plan.sites[site.name]) for site in sites if site.kind == "cross"}
    injected = {id(plan.sites[site.name]) for site in sites if site.kind == "self" and site.level}
    assert len(cross) == len(injected) == 1


def test_rows_are_checked() -> None:
    controller = bound(CASES["replace"])
    sites = unet_sites(tiny_unet())
    with pytest.raises(ValueError, match="row 2 is outside the batch of 2 rows"):
        build_step_plan(sites, 2, [RowEdit(1, 2, controller)], 0)
    with pytest.raises(ValueError, match="one edit per row"):
        build_step_plan(sites, 3, [RowEdit(1, 0, controller), RowEdit(1, 2, controller)], 0)
    plan = build_step_plan(sites, 2, [RowEdit(1, 0, controller)], 0, dtype=torch.float64)
    with folded_attention(tiny_unet()), pytest.raises(ValueError, match="made for 2 rows, the batch has 3"):
        tiny_unet()(*inputs(3), cross_attention_kwargs={"plan": plan})


def test_gradients_reach_the_embeddings() -> None:
    latents, timestep, embeddings = inputs(2)
    embeddings.requires_grad_()
    plan = build_step_plan(
        unet_sites(tiny_unet()), 2, [RowEdit(1, 0, bound(CASES["refine"]))], 0, dtype=torch.float64
    )
    with folded_attention(tiny_unet()):
        out = tiny_unet()(latents, timestep, embeddings, cross_attention_kwargs={"plan": plan}).sample
        out[1].sum().backward()
    assert embeddings.grad is not None
    assert embeddings.grad.abs().amax((1, 2)).min() > 0
