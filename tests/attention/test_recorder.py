import pytest
import torch

from p2p_bench.attention.plan import PlanCache, RowEdit
from p2p_bench.attention.processor import folded_attention
from p2p_bench.attention.recorder import Recorder, RecordSpec
from p2p_bench.attention.sites import unet_sites
from p2p_bench.controllers import Refine
from p2p_bench.errors import ConfigError
from tests.attention.rig import SELF_FRACTION, WIDTH, context, inputs, tiny_unet, tokenizer
from tests.oracle import MapRow, Published, Refinement, refinement_mapper, run_materialised

SOURCE, TARGET = "a red circle on grass", "a striped red circle on grass"


def expected_maps(steps: int, fraction: float) -> torch.Tensor:
    """Rows x columns x pixels: mean over heads, layers and steps of the written-out maps."""
    ids = [tokenizer()(text).input_ids for text in (SOURCE, TARGET)]
    edit = Published(Refinement(*refinement_mapper(*ids, WIDTH)), 4, 3, SELF_FRACTION)
    kept = []
    for step in range(steps):
        _, saved = run_materialised(tiny_unet(), *inputs(4, seed=step), [MapRow(3, 2, edit)], step)
        sites = [site for site in unet_sites(tiny_unet()) if site.kind == "cross"]
        kept += [saved[site.name].mean(1) for site in sites if site.fraction == fraction]
    return torch.stack(kept).mean(0).transpose(1, 2)


def recorded(spec: RecordSpec, steps: int) -> Recorder:
    recorder = Recorder(spec, WIDTH, (8, 8))
    controller = Refine(0.4, 0.3).bind(context(SOURCE, TARGET))
    with folded_attention(tiny_unet()) as sites:
        plans = PlanCache(sites, 4, [RowEdit(3, 2, controller)], [recorder], dtype=torch.float64)
        for step in range(steps):
            tiny_unet()(*inputs(4, seed=step), cross_attention_kwargs={"plan": plans.at(step)})
    return recorder


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
            plans = PlanCache(sites, 4, [RowEdit(3, 2, controller)], recorders, dtype=torch.float64)
            out = tiny_unet()(*inputs(4), cross_attention_kwargs={"plan": plans.at(0)})
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
        PlanCache(unet_sites(tiny_unet()), 4, [], [coarse]).at(0)
