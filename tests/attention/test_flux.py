"""Joint attention of FLUX: the folded processor computes what written-out maps do, in all its blocks."""

import copy
from collections.abc import Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from p2p_bench.attention.flux import FoldedFluxProcessor
from p2p_bench.attention.plan import RowEdit, StepPlan, build_step_plan
from p2p_bench.attention.processor import folded_attention
from p2p_bench.attention.recorder import Recorder, RecordSpec
from p2p_bench.attention.sites import Site, transformer_sites
from p2p_bench.controllers import NoControl, Refine, Replace
from p2p_bench.controllers.bound import BoundP2P
from p2p_bench.models.flux import positions
from tests.attention.joint import Comparison, bound
from tests.attention.rig import SELF_FRACTION, STEPS, WIDTH, context, tokenizer
from tests.controllers.cases import CASES, SOURCE, SWAP, Setting
from tests.flux_oracle import MaterialisedFluxProcessor
from tests.models.small_flux import small_flux_transformer
from tests.oracle import MapRow

COLUMNS = ("replace", "refine", "reweight a refinement", "inject words", "replace softly, then keep a word")
PIXELS = ("replace", "notebook", "self-attention", "masactrl", "masactrl, then self-attention")
NAMES = [f"transformer_blocks.{index}.attn" for index in (0, 1)]
NAMES += [f"single_transformer_blocks.{index}.attn" for index in (0, 1)]


@cache
def transformer() -> FluxTransformer2DModel:
    return torch.nn.Module.to(small_flux_transformer(guidance=True), torch.float64).requires_grad_(False)


def inputs(rows: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "hidden_states": (16, 16), "encoder_hidden_states": (WIDTH, 32), "pooled_projections": (16,),
    }  # fmt: skip
    drawn = {name: torch.randn(rows, *shape, generator=generator) for name, shape in shapes.items()}
    drawn |= {"timestep": torch.full((rows,), 0.5), "guidance": torch.full((rows,), 3.5)}
    drawn |= {"img_ids": positions(4, 4), "txt_ids": torch.zeros(WIDTH, 3)}
    return {name: tensor.to(dtype) for name, tensor in drawn.items()}


def attention(plan: StepPlan) -> dict[str, Any]:
    return {"joint_attention_kwargs": {"plan": plan, "text_length": WIDTH}}


def setting() -> Setting:
    return Setting(tokenizer(), WIDTH, STEPS, SELF_FRACTION, tuple(NAMES))


class _Both:
    """Runs the folded and the written-out processor on the same inputs and keeps their difference."""

    def __init__(self, site: Site, plain: Any, oracle: MaterialisedFluxProcessor, plan: StepPlan) -> None:
        self.folded, self.oracle, self.plan = FoldedFluxProcessor(site, plain), oracle, plan
        self.difference = float("nan")

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Any:
        given = attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb
        found = self.folded(*given, plan=self.plan, text_length=WIDTH)
        expected = self.oracle(*given)
        sides = [one if isinstance(one, tuple) else (one,) for one in (found, expected)]
        self.difference = max(float((a - b).abs().max()) for a, b in zip(*sides, strict=True))
        return found


@contextmanager
def installed(processors: dict[str, Any]) -> Any:
    before = dict(transformer().attn_processors)
    transformer().set_attn_processor({f"{name}.processor": one for name, one in processors.items()})
    try:
        yield before
    finally:
        transformer().set_attn_processor(before)


def site_differences(
    edits: Sequence[tuple[int, int, BoundP2P]], expected: Sequence[MapRow], step: int, rows: int
) -> dict[str, float]:
    sites = transformer_sites(transformer())
    plan = build_step_plan(sites, rows, [RowEdit(*edit) for edit in edits], step, dtype=torch.float64)
    plain = transformer().attn_processors
    both = {
        site.name: _Both(
            site,
            plain[f"{site.name}.processor"],
            MaterialisedFluxProcessor(site, WIDTH, expected, step),
            plan,
        )
        for site in sites
    }
    with installed(dict(both)):
        transformer()(**inputs(rows))
    return {name: one.difference for name, one in both.items()}


def test_the_sites() -> None:
    sites = transformer_sites(transformer())
    assert [site.name for site in sites] == NAMES
    assert {(site.kind, site.joint, site.fraction, site.layers) for site in sites} == {
        ("cross", True, 0.5, 4)
    }
    assert [site.layer for site in sites] == [0, 1, 2, 3]


COMPARISON = Comparison(site_differences, setting, lambda: transformer_sites(transformer()))


@pytest.mark.parametrize("name", CASES)
def test_every_site_equals_the_written_out_maps(name: str) -> None:
    COMPARISON.assert_equal(name)


@pytest.mark.parametrize("name", COLUMNS)
def test_one_percent_in_an_edit_is_seen(name: str) -> None:
    COMPARISON.assert_one_percent_is_seen(name)


@pytest.mark.parametrize("name", PIXELS)
def test_a_missing_edit_of_pixel_columns_is_seen(name: str) -> None:
    COMPARISON.assert_missing_pixel_edits_are_seen(name)


def test_several_sources_and_targets_in_one_batch() -> None:
    COMPARISON.assert_batches_are_equal()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_an_edit_it_is_diffusers_to_the_bit(dtype: torch.dtype) -> None:
    network = torch.nn.Module.to(copy.deepcopy(transformer()), dtype)
    given = inputs(3, dtype=dtype)
    before = dict(network.attn_processors)
    expected = network(**given).sample
    with folded_attention(network) as sites:
        assert torch.equal(network(**given).sample, expected)
        none = build_step_plan(sites, 3, [RowEdit(2, 1, NoControl().bind(context(SOURCE, SWAP)))], 0)
        assert not none.sites
        assert torch.equal(network(**given, **attention(none)).sample, expected)
    assert network.attn_processors == before


@pytest.mark.parametrize("name", ["replace", "refine, then reweight, then masactrl"])
def test_recorded_maps_are_the_edited_text_columns(name: str) -> None:
    recorder = Recorder(RecordSpec((2, 3), fraction=0.5), WIDTH, (8, 8))
    kept: list[Tensor] = []
    with folded_attention(transformer()) as sites:
        for step in range(8):
            recorder.begin(step)
            plan = build_step_plan(
                sites, 4, [RowEdit(3, 2, bound(name))], step, [recorder], dtype=torch.float64
            )
            transformer()(**inputs(4, seed=step), **attention(plan))
    for step in range(8):
        saved: dict[str, Tensor] = {}
        edits = [MapRow(3, 2, CASES[name].chain(setting()))]
        with installed(
            {site.name: MaterialisedFluxProcessor(site, WIDTH, edits, step, saved) for site in sites}
        ):
            transformer()(**inputs(4, seed=step))
        kept += [maps.mean(1) for maps in saved.values()]
    expected = torch.stack(kept).mean(0).mT
    for row in (2, 3):
        torch.testing.assert_close(recorder.maps(row).flatten(1), expected[row], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("controller", "terms"), [(Replace(1.0, 1.0), 4), (Refine(1.0, 0.0), 5)])
def test_rows_of_the_fused_call(controller: Any, terms: int) -> None:
    """One term per row, one more only where the target keeps columns of its own; flash attention serves."""
    network = torch.nn.Module.to(copy.deepcopy(transformer()), torch.float32)
    edits = [RowEdit(3, 2, controller.bind(context(SOURCE, SWAP)))]
    recorder = Recorder(RecordSpec((2, 3), fraction=0.5), WIDTH, (8, 8))
    plan = build_step_plan(transformer_sites(network), 4, edits, 0, [recorder])
    for name in NAMES:
        at = plan.sites[name]
        assert 4 + (0 if at.extra_rows is None else len(at.extra_rows)) == terms
    with folded_attention(network), sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
        network(**inputs(4, dtype=torch.float32), **attention(plan))


def test_the_batch_must_be_the_plans() -> None:
    plan = build_step_plan(
        transformer_sites(transformer()), 2, [RowEdit(1, 0, bound("replace"))], 0, dtype=torch.float64
    )
    with folded_attention(transformer()), pytest.raises(ValueError, match="made for 2 rows, the batch has 3"):
        transformer()(**inputs(3), **attention(plan))
