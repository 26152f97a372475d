"""Text and pixel columns under one softmax: the folded processor computes what written-out maps do."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnAddedKVProcessor2_0
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from p2p_bench.attention.columns import Identity, Zero
from p2p_bench.attention.plan import RowEdit, StepPlan, build_step_plan
from p2p_bench.attention.processor import FoldedAddedKVProcessor, folded_attention
from p2p_bench.attention.recorder import Recorder, RecordSpec
from p2p_bench.attention.sites import Site, unet_sites
from p2p_bench.attention.terms import NO_EDIT, ColumnEdit, Term, joint_terms
from p2p_bench.controllers import NoControl, Refine, Replace
from p2p_bench.controllers.bound import BoundP2P
from p2p_bench.errors import ConfigError
from tests.attention.joint import COLUMNS, EXACT, PIXELS, Comparison, bound
from tests.attention.rig import SELF_FRACTION, STEPS, WIDTH, context, tokenizer
from tests.controllers.cases import CASES, SOURCE, SWAP, Setting
from tests.joint_oracle import MaterialisedAddedKVProcessor, materialised_added_kv
from tests.oracle import Chain, MapRow


@cache
def joint_unet() -> UNet2DConditionModel:
    """The blocks of DeepFloyd IF, small, with maps that are not flat."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8, in_channels=3, out_channels=6, block_out_channels=(16, 32, 32),
            down_block_types=("ResnetDownsampleBlock2D", *("SimpleCrossAttnDownBlock2D",) * 2),
            up_block_types=(*("SimpleCrossAttnUpBlock2D",) * 2, "ResnetUpsampleBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn", layers_per_block=1, cross_attention_dim=32,
            encoder_hid_dim=16, attention_head_dim=8, norm_num_groups=4, cross_attention_norm="group_norm",
            resnet_time_scale_shift="scale_shift", act_fn="gelu",
        )  # fmt: skip
    for name, weight in unet.named_parameters():
        if name.endswith(("to_q.weight", "to_k.weight", "add_k_proj.weight")):
            weight.data *= 3
    return unet.double().eval().requires_grad_(False)


def inputs(rows: int, seed: int = 0) -> tuple[Tensor, int, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(rows, 3, 8, 8, generator=generator, dtype=torch.float64)
    return latents, 500, torch.randn(rows, WIDTH, 16, generator=generator, dtype=torch.float64)


@cache
def setting() -> Setting:
    seen: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: seen.append(name))
        for name, module in joint_unet().named_modules()
        if isinstance(module, Attention)
    ]
    joint_unet()(*inputs(1))
    for hook in hooks:
        hook.remove()
    return Setting(tokenizer(), WIDTH, STEPS, SELF_FRACTION, tuple(seen))


class _Both:
    """Runs the folded and the written-out processor on the same inputs and keeps their difference."""

    def __init__(self, site: Site, oracle: MaterialisedAddedKVProcessor, plan: StepPlan) -> None:
        self.folded, self.oracle, self.plan = FoldedAddedKVProcessor(site), oracle, plan
        self.difference = float("nan")

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        out = self.folded(*args, **kwargs, plan=self.plan)
        self.difference = float((out - self.oracle(*args, **kwargs)).abs().max())
        return out


@contextmanager
def processors(unet: UNet2DConditionModel, installed: dict[str, Any]) -> Iterator[None]:
    before = dict(unet.attn_processors)
    unet.set_attn_processor(dict(installed))
    try:
        yield
    finally:
        unet.set_attn_processor(before)


def site_differences(
    edits: Sequence[tuple[int, int, BoundP2P]],
    expected: Sequence[MapRow],
    step: int,
    rows: int,
    **options: Any,
) -> dict[str, float]:
    unet = joint_unet()
    row_edits = [RowEdit(row, source, controller) for row, source, controller in edits]
    plan = build_step_plan(unet_sites(unet), rows, row_edits, step, dtype=torch.float64)
    both = {
        site.name: _Both(site, MaterialisedAddedKVProcessor(site, expected, step), plan)
        for site in unet_sites(unet)
    }
    with processors(unet, {f"{name}.processor": one for name, one in both.items()}):
        unet(*inputs(rows), **options)
    return {name: one.difference for name, one in both.items()}


COMPARISON = Comparison(site_differences, setting, lambda: unet_sites(joint_unet()))


@pytest.mark.parametrize("name", CASES)
def test_every_site_equals_the_written_out_maps(name: str) -> None:
    COMPARISON.assert_equal(name, range(STEPS))


@pytest.mark.parametrize("name", COLUMNS)
def test_one_percent_in_an_edit_is_seen(name: str) -> None:
    COMPARISON.assert_one_percent_is_seen(name)


@pytest.mark.parametrize("name", PIXELS)
def test_a_missing_edit_of_pixel_columns_is_seen(name: str) -> None:
    COMPARISON.assert_missing_pixel_edits_are_seen(name)


def test_several_sources_and_targets_in_one_batch() -> None:
    COMPARISON.assert_batches_are_equal()


@pytest.mark.parametrize("name", ["refine", "notebook", "masactrl"])
def test_text_masks_follow_the_text_keys(name: str) -> None:
    mask = torch.ones(4, WIDTH, dtype=torch.bool)
    mask[2, 9:] = False
    mask[3, 12:] = False
    found = [COMPARISON.of(name, bound(name), step, encoder_attention_mask=mask) for step in (0, 4)]
    assert max(max(one.values()) for one in found) < EXACT


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("masked", [False, True])
def test_without_an_edit_it_is_diffusers_to_the_bit(dtype: torch.dtype, masked: bool) -> None:
    unet = copy.deepcopy(joint_unet()).to(dtype)
    latents, timestep, text = inputs(3)
    mask = torch.arange(WIDTH).expand(3, -1) < 9 if masked else None
    call: dict[str, Any] = {"encoder_attention_mask": mask}
    before = dict(unet.attn_processors)
    assert all(isinstance(one, AttnAddedKVProcessor2_0) for one in before.values())
    expected = unet(latents.to(dtype), timestep, text.to(dtype), **call).sample
    with folded_attention(unet) as sites:
        assert torch.equal(unet(latents.to(dtype), timestep, text.to(dtype), **call).sample, expected)
        none = build_step_plan(sites, 3, [RowEdit(2, 1, NoControl().bind(context(SOURCE, SWAP)))], 0)
        assert not none.sites
        call["cross_attention_kwargs"] = {"plan": none}
        assert torch.equal(unet(latents.to(dtype), timestep, text.to(dtype), **call).sample, expected)
    assert unet.attn_processors == before


def test_layers_that_attend_to_the_text_alone() -> None:
    torch.manual_seed(0)
    attn = Attention(
        32, cross_attention_dim=32, added_kv_proj_dim=12, heads=2, dim_head=16, norm_num_groups=4, bias=True,
        only_cross_attention=True, cross_attention_norm="group_norm", cross_attention_norm_num_groups=4,
        processor=AttnAddedKVProcessor2_0(),
    ).double().requires_grad_(False)  # fmt: skip
    states, text = torch.randn(3, 32, 4, 4).double(), torch.randn(3, WIDTH, 12).double()
    site = Site("layer", "cross", 1, "mid", 2, 16)
    plain = AttnAddedKVProcessor2_0()(attn, states, text)
    folded = FoldedAddedKVProcessor(site)
    assert torch.equal(folded(attn, states, text), plain)
    recorder = Recorder(RecordSpec((2,), fraction=0.5), WIDTH, (8, 8))
    edits = [RowEdit(2, 1, bound("refine"))]
    plan = build_step_plan([site], 3, edits, 0, [recorder], dtype=torch.float64)
    saved: dict[str, Tensor] = {}
    oracle = MaterialisedAddedKVProcessor(site, [MapRow(2, 1, CASES["refine"].chain(setting()))], 0, saved)
    out = folded(attn, states, text, plan=plan)
    torch.testing.assert_close(out, oracle(attn, states, text), rtol=0, atol=EXACT)
    assert not torch.allclose(out, plain)
    expected = saved["layer"][2].mean(0).mT
    torch.testing.assert_close(recorder.maps(2).flatten(1), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["replace", "refine, then reweight, then masactrl", "masactrl"])
def test_recorded_maps_are_the_edited_text_columns(name: str) -> None:
    recorders = [Recorder(RecordSpec((2, 3), fraction=fraction), WIDTH, (8, 8)) for fraction in (0.5, 0.25)]
    kept: dict[float, list[Tensor]] = {0.5: [], 0.25: []}
    with folded_attention(joint_unet()) as sites:
        for step in range(8):
            for recorder in recorders:
                recorder.begin(step)
            plan = build_step_plan(
                sites, 4, [RowEdit(3, 2, bound(name))], step, recorders, dtype=torch.float64
            )
            joint_unet()(*inputs(4, seed=step), cross_attention_kwargs={"plan": plan})
    for step in range(8):
        saved: dict[str, Tensor] = {}
        with materialised_added_kv(joint_unet(), [MapRow(3, 2, CASES[name].chain(setting()))], step, saved):
            joint_unet()(*inputs(4, seed=step))
        for site in sites:
            kept[site.fraction].append(saved[site.name][..., :WIDTH].mean(1))
    for recorder in recorders:
        expected = torch.stack(kept[recorder.spec.fraction]).mean(0).mT
        for row in (2, 3):
            torch.testing.assert_close(recorder.maps(row).flatten(1), expected[row], rtol=0, atol=EXACT)


def test_pixel_columns_are_not_recorded() -> None:
    recorder = Recorder(RecordSpec((2,), fraction=0.5, kind="self"), WIDTH, (8, 8))
    with pytest.raises(
        ConfigError, match=r"no self-attention at 0\.5 of the side; the model has no such layers"
    ):
        build_step_plan(unet_sites(joint_unet()), 4, [], 0, [recorder])


def test_whole_network_equals_written_out() -> None:
    name = "refine, then reweight, then masactrl"
    with folded_attention(joint_unet()) as sites:
        plan = build_step_plan(sites, 4, [RowEdit(3, 2, bound(name))], 4, dtype=torch.float64)
        out = joint_unet()(*inputs(4), cross_attention_kwargs={"plan": plan}).sample
    with materialised_added_kv(joint_unet(), [MapRow(3, 2, Chain(CASES[name].parts(setting())))], 4):
        expected = joint_unet()(*inputs(4)).sample
    torch.testing.assert_close(out, expected, rtol=0, atol=EXACT)


def test_terms_that_are_zero_are_left_out() -> None:
    swap = ColumnEdit(Identity(), Zero())
    pixels_alone = Term("target", "target", "target", Zero(), "own")
    assert joint_terms(NO_EDIT) is None
    # The pixel columns are the target's own, so it is there even where R is zero ...
    assert joint_terms(swap) == (Term("source", "source", "target", Identity(), "dropped"), pixels_alone)
    # ... unless they are injected too.
    assert joint_terms(swap, "injected") == (Term("source", "source", "target", Identity(), "own"),)
    assert joint_terms(NO_EDIT, "injected") == (
        Term("source", "source", "target", Zero(), "own"),
        Term("target", "target", "target", Identity(), "dropped"),
    )
    assert joint_terms(NO_EDIT, "mutual") == (Term("target", "target", "target", Identity(), "source"),)
    # Text columns may be removed altogether, since pixels are left to attend to.
    assert joint_terms(ColumnEdit(Zero(), Zero())) == (pixels_alone,)


@pytest.mark.parametrize(("controller", "terms"), [(Replace(1.0, 1.0), 4), (Refine(1.0, 0.0), 5)])
def test_rows_of_the_fused_call(controller: Any, terms: int) -> None:
    """One term per row, one more only where the target keeps columns of its own; flash attention serves."""
    unet = copy.deepcopy(joint_unet()).float()
    latents, timestep, text = inputs(4)
    edits = [RowEdit(3, 2, controller.bind(context(SOURCE, SWAP)))]
    recorder = Recorder(RecordSpec((2, 3), fraction=0.25), WIDTH, (8, 8))
    plan = build_step_plan(unet_sites(unet), 4, edits, 0, [recorder])
    at = plan.sites["mid_block.attentions.0"]
    assert 4 + (0 if at.extra_rows is None else len(at.extra_rows)) == terms
    with folded_attention(unet), sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
        unet(latents.float(), timestep, text.float(), cross_attention_kwargs={"plan": plan})


def test_the_batch_must_be_the_plans() -> None:
    plan = build_step_plan(
        unet_sites(joint_unet()), 2, [RowEdit(1, 0, bound("replace"))], 0, dtype=torch.float64
    )
    with folded_attention(joint_unet()), pytest.raises(ValueError, match="made for 2 rows, the batch has 3"):
        joint_unet()(*inputs(3), cross_attention_kwargs={"plan": plan})
