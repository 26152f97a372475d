import dataclasses

import pytest
import torch
from diffusers import UNet2DConditionModel

from p2p_bench.attention.plan import RowEdit, build_step_plan
from p2p_bench.attention.processor import folded_attention
from p2p_bench.attention.recorder import Recorder, RecordSpec
from p2p_bench.attention.sites import unet_sites
from p2p_bench.controllers import Refine
from p2p_bench.errors import ConfigError
from tests.attention.rig import SELF_FRACTION, WIDTH, context, inputs, tiny_unet, tokenizer
from tests.oracle import MapRow, Published, Refinement, refinement_mapper, run_materialised

SOURCE, TARGET = "a red circle on grass", "a striped red circle on grass"


def expected_maps(steps: int, fraction: float, kind: str = "cross") -> torch.Tensor:
    """Rows x columns x pixels: mean over heads, layers and steps of the written-out maps."""
    ids = [tokenizer()(text).input_ids for text in (SOURCE, TARGET)]
    edit = Published(Refinement(*refinement_mapper(*ids, WIDTH)), 4, 3, SELF_FRACTION)
    kept = []
    for step in range(steps):
        _, saved = run_materialised(tiny_unet(), *inputs(4, seed=step), [MapRow(3, 2, edit)], step)
        sites = [site for site in unet_sites(tiny_unet()) if site.kind == kind]
        kept += [saved[site.name].mean(1) for site in sites if site.fraction == fraction]
    return torch.stack(kept).mean(0).transpose(1, 2)


def recorded(spec: RecordSpec, steps: int) -> Recorder:
    recorder = Recorder(spec, WIDTH, (8, 8))
    record_with([recorder], steps)
    return recorder


def record_with(recorders: list[Recorder], steps: int) -> None:
    """Runs the edit with recorders."""
    controller = Refine(0.4, 0.3).bind(context(SOURCE, TARGET))
    with folded_attention(tiny_unet()) as sites:
        for step in range(steps):
            for recorder in recorders:
                recorder.begin(step)
            plan = build_step_plan(
                sites, 4, [RowEdit(3, 2, controller)], step, recorders, dtype=torch.float64
            )
            tiny_unet()(*inputs(4, seed=step), cross_attention_kwargs={"plan": plan})


@pytest.mark.parametrize(("fraction", "side"), [(1.0, 8), (0.5, 4)])
def test_recorded_maps_are_the_edited_maps(fraction: float, side: int) -> None:
    # steps 3 and 4 lie on either side of the end of the edit
    recorder = recorded(RecordSpec((2, 3), fraction=fraction), steps=6)
    expected = expected_maps(6, fraction)
    for row in (2, 3):
        maps = recorder.maps(row)
        assert maps.shape == (WIDTH, side, side)
        torch.testing.assert_close(maps.flatten(1), expected[row], rtol=0, atol=1e-12)


def test_single_columns_of_single_rows() -> None:
    recorder = recorded(RecordSpec((3, 1), columns=((2, 5, 23), ()), fraction=0.5), steps=1)
    maps = recorder.maps(3).flatten(1)
    expected = expected_maps(1, 0.5)[3]
    torch.testing.assert_close(maps[[2, 5, 23]], expected[[2, 5, 23]], rtol=0, atol=1e-12)
    others = [column for column in range(WIDTH) if column not in (2, 5, 23)]
    assert not maps[others].any()
    assert not recorder.maps(1).any()


def test_recording_changes_nothing() -> None:
    controller = Refine(0.4, 0.3).bind(context(SOURCE, TARGET))
    outputs = []
    with folded_attention(tiny_unet()) as sites:
        for recorders in ([], [Recorder(RecordSpec((2, 3), fraction=0.5), WIDTH, (8, 8))]):
            plan = build_step_plan(sites, 4, [RowEdit(3, 2, controller)], 0, recorders, dtype=torch.float64)
            out = tiny_unet()(*inputs(4), cross_attention_kwargs={"plan": plan})
            outputs.append(out.sample)
    assert torch.equal(*outputs)


def test_what_cannot_be_recorded_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected 1, 0.5, 0.25, ... of the side, got 0.3"):
        Recorder(RecordSpec((0,), fraction=0.3), WIDTH, (8, 8))
    recorder = Recorder(RecordSpec((2,), fraction=0.5), WIDTH, (8, 8))
    with pytest.raises(ValueError, match="nothing is recorded yet"):
        recorder.maps(2)
    with pytest.raises(ValueError, match=r"one of the recorded rows \(2,\), got 0"):
        recorder.maps(0)
    coarse = Recorder(RecordSpec((2,), fraction=0.125), WIDTH, (8, 8))
    with pytest.raises(ConfigError, match=r"no cross-attention at 0.125 of the side; the model has 1.0, 0.5"):
        build_step_plan(unet_sites(tiny_unet()), 4, [], 0, [coarse])


def test_steps_layers_and_heads_apart() -> None:
    steps = 6
    spec = RecordSpec((3,), fraction=0.5, apart=frozenset({"steps", "layers", "heads"}))
    recorder = Recorder(spec, WIDTH, (8, 8))
    ids = [tokenizer()(text).input_ids for text in (SOURCE, TARGET)]
    edit = Published(Refinement(*refinement_mapper(*ids, WIDTH)), 4, 3, SELF_FRACTION)
    record_with([recorder], steps)
    wanted = [site.name for site in unet_sites(tiny_unet()) if site.kind == "cross" and site.fraction == 0.5]
    detailed = recorder.detailed(3)
    assert detailed.shape == (steps, len(wanted), 2, WIDTH, 4, 4)
    for step in range(steps):
        _, saved = run_materialised(tiny_unet(), *inputs(4, seed=step), [MapRow(3, 2, edit)], step)
        expected = torch.stack([saved[name][3] for name in wanted]).transpose(-1, -2).unflatten(-1, (4, 4))
        # Sites are recorded in the order the network runs them, the middle before the way up.
        for layer in expected:
            nearest = (detailed[step] - layer).abs().amax((1, 2, 3, 4)).min()
            assert float(nearest) <= 1e-12
    torch.testing.assert_close(detailed.mean((0, 1, 2)), recorder.maps(3), rtol=0, atol=1e-12)
    for apart in ("steps", "layers", "heads"):
        single = Recorder(RecordSpec((3,), fraction=0.5, apart=frozenset({apart})), WIDTH, (8, 8))
        record_with([single], steps)
        others = [axis for axis, name in enumerate(("steps", "layers", "heads")) if name != apart]
        torch.testing.assert_close(single.detailed(3).mean(others), detailed.mean(others), rtol=0, atol=1e-12)


def test_several_recorders_at_once_and_self_attention() -> None:
    coarse = Recorder(RecordSpec((2, 3), fraction=0.5), WIDTH, (8, 8))
    fine = Recorder(RecordSpec((3,), columns=((4,),), fraction=1.0), WIDTH, (8, 8))
    selves = [
        Recorder(RecordSpec((3, 2), fraction=fraction, kind="self"), WIDTH, (8, 8)) for fraction in (0.5, 1.0)
    ]
    record_with([coarse, *selves, fine], steps=4)
    for row in (2, 3):
        torch.testing.assert_close(
            coarse.maps(row).flatten(1), expected_maps(4, 0.5)[row], rtol=0, atol=1e-12
        )
        for recorder, side in zip(selves, (4, 8), strict=True):
            maps = recorder.maps(row)
            assert maps.shape == (side**2, side, side)
            expected = expected_maps(4, recorder.spec.fraction, "self")[row]
            torch.testing.assert_close(maps.flatten(1), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(fine.maps(3)[4].flatten(), expected_maps(4, 1.0)[3][4], rtol=0, atol=1e-12)


def test_rows_of_the_state_can_be_selected() -> None:
    both = Recorder(RecordSpec((2, 3), fraction=0.5), WIDTH, (8, 8))
    alone = Recorder(RecordSpec((3,), fraction=0.5), WIDTH, (8, 8))
    record_with([both, alone], steps=2)
    assert both.counts == alone.counts
    for group, sums in both.sums.items():
        torch.testing.assert_close(
            sums.index_select(0, torch.tensor([1])), alone.sums[group], rtol=0, atol=1e-12
        )


def test_large_self_attention_and_unequal_heads_are_refused() -> None:
    with pytest.raises(ConfigError, match="9216 positions, at most 4096 can be kept"):
        Recorder(RecordSpec((0,), fraction=1.0, kind="self"), WIDTH, (96, 96))
    sites = [dataclasses.replace(site, heads=2 + at) for at, site in enumerate(unet_sites(tiny_unet()))]
    apart = Recorder(RecordSpec((0,), fraction=0.5, apart=frozenset({"heads"})), WIDTH, (8, 8))
    with pytest.raises(ConfigError, match="heads, which cannot be kept apart"):
        apart.check(sites)


def test_stable_diffusion_blends_by_the_released_layers() -> None:
    """Two layers of the way down and the first three of the way up, at a quarter of the latent side."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
    recorder = Recorder(RecordSpec((0,), fraction=0.25), 77, (64, 64))
    chosen = [site.name.split(".attentions")[0] for site in unet_sites(unet) if recorder.records(site)]
    assert chosen == ["down_blocks.2"] * 2 + ["up_blocks.1"] * 3
