"""Joint attention of transformers: the folded processors compute what written-out maps do."""

import copy
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from p2p_bench.attention.joint import FoldedJointProcessor
from p2p_bench.attention.plan import RowEdit, StepPlan, build_step_plan
from p2p_bench.attention.processor import FoldedAttnProcessor, folded_attention
from p2p_bench.attention.recorder import Recorder, RecordSpec
from p2p_bench.attention.sites import Site, transformer_sites
from p2p_bench.controllers import NoControl, Refine, Replace
from p2p_bench.controllers.bound import BoundP2P
from p2p_bench.errors import ConfigError
from tests.attention.joint import COLUMNS, PIXELS, Comparison, bound
from tests.attention.rig import SELF_FRACTION, STEPS, WIDTH, context, tokenizer
from tests.controllers.cases import CASES, SOURCE, SWAP, Setting
from tests.oracle import MapRow
from tests.transformer_oracle import MaterialisedJointProcessor, materialised_joint

LAYERS = 4


@cache
def transformer(norm: str | None = "rms_norm") -> SD3Transformer2DModel:
    """Blocks of Stable Diffusion 3.5 medium, small, maps that are not flat; without norm those of 3.0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = SD3Transformer2DModel(
            sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=LAYERS,
            attention_head_dim=8, num_attention_heads=2, joint_attention_dim=16, caption_projection_dim=16,
            pooled_projection_dim=8, pos_embed_max_size=8, qk_norm=norm,
            dual_attention_layers=tuple(range(LAYERS)) if norm else (),
        )  # fmt: skip
    for name, weight in made.named_parameters():
        if name.endswith(("to_q.weight", "to_k.weight", "add_q_proj.weight", "add_k_proj.weight")):
            weight.data *= 3
        if "norm_" in name and name.endswith(("q.weight", "k.weight")):
            weight.data *= 2
    return made.double().eval().requires_grad_(False)


def _cast(norm: str | None, dtype: torch.dtype) -> Any:
    # Without diffusers' own `to`, which warns of layers that stay in float32, none of them here.
    return torch.nn.Module.to(copy.deepcopy(transformer(norm)), dtype)


def inputs(rows: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "hidden_states": (4, 8, 8),
        "encoder_hidden_states": (WIDTH, 16),
        "pooled_projections": (8,),
    }
    drawn = {name: torch.randn(rows, *shape, generator=generator).double() for name, shape in shapes.items()}
    return {**drawn, "timestep": torch.full((rows,), 500.0)}


def setting() -> Setting:
    layers = tuple(site.name for site in transformer_sites(transformer()) if site.joint)
    return Setting(tokenizer(), WIDTH, STEPS, SELF_FRACTION, layers)


class _Both:
    """Runs the folded and the written-out processor on the same inputs and keeps their difference."""

    def __init__(self, site: Site, oracle: MaterialisedJointProcessor, plan: StepPlan) -> None:
        self.folded = FoldedJointProcessor(site) if site.joint else FoldedAttnProcessor(site)
        self.oracle, self.plan, self.difference = oracle, plan, float("nan")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        found = self.folded(*args, **kwargs, plan=self.plan)
        expected = self.oracle(*args, **kwargs)
        # Where a site of the last block is edited, what its text gets, which nobody reads, is left out.
        pairs = zip(_parts(found), _parts(expected), strict=False)
        self.difference = max(float((a - b).abs().max()) for a, b in pairs)
        return found


def _parts(outputs: Any) -> list[Tensor]:
    return [part for part in (outputs if isinstance(outputs, tuple) else (outputs,)) if part is not None]


def site_differences(
    edits: Sequence[tuple[int, int, BoundP2P]], expected: Sequence[MapRow], step: int, rows: int
) -> dict[str, float]:
    network = transformer()
    sites = transformer_sites(network)
    plan = build_step_plan(sites, rows, [RowEdit(*edit) for edit in edits], step, dtype=torch.float64)
    both = {site.name: _Both(site, MaterialisedJointProcessor(site, expected, step), plan) for site in sites}
    before = dict(network.attn_processors)
    network.set_attn_processor({f"{name}.processor": one for name, one in both.items()})
    try:
        network(**inputs(rows))
    finally:
        network.set_attn_processor(before)
    return {name: one.difference for name, one in both.items()}


def test_the_sites() -> None:
    sites = transformer_sites(transformer())
    joint, own = ([site for site in sites if site.kind == kind] for kind in ("cross", "self"))
    assert [site.name for site in joint] == [f"transformer_blocks.{index}.attn" for index in range(LAYERS)]
    assert [site.name for site in own] == [f"transformer_blocks.{index}.attn2" for index in range(LAYERS)]
    assert all(site.joint for site in joint)
    assert not any(site.joint for site in own)
    for sites in (joint, own):
        assert [(site.layer, site.layers) for site in sites] == [(index, LAYERS) for index in range(LAYERS)]
        assert {(site.fraction, site.heads, site.head_dim) for site in sites} == {(0.5, 2, 8)}
    assert len(transformer_sites(transformer(None))) == LAYERS


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


@pytest.mark.parametrize("norm", [None, "rms_norm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_an_edit_it_is_diffusers_to_the_bit(dtype: torch.dtype, norm: str | None) -> None:
    network = _cast(norm, dtype)
    given = {name: tensor.to(dtype) for name, tensor in inputs(3).items()}
    before = dict(network.attn_processors)
    expected = network(**given).sample
    with folded_attention(network) as sites:
        assert torch.equal(network(**given).sample, expected)
        none = build_step_plan(sites, 3, [RowEdit(2, 1, NoControl().bind(context(SOURCE, SWAP)))], 0)
        assert not none.sites
        assert torch.equal(network(**given, joint_attention_kwargs={"plan": none}).sample, expected)
    assert network.attn_processors == before


def test_the_rows_of_the_text_stay_plain() -> None:
    """A target whose text and pixels are the source's is the source after a swap of all columns."""
    given = {name: tensor[[0, 1, 1]] for name, tensor in inputs(2).items()}
    with folded_attention(transformer()) as sites:
        for controller in (Replace(1.0, 1.0), Refine(1.0, 1.0), Refine(0.5, 0.0)):
            edit = RowEdit(2, 1, controller.bind(context(SOURCE, SOURCE)))
            plan = build_step_plan(sites, 3, [edit], 0, dtype=torch.float64)
            assert plan.sites
            out = transformer()(**given, joint_attention_kwargs={"plan": plan}).sample
            torch.testing.assert_close(out[2], out[1], rtol=0, atol=1e-6)
            torch.testing.assert_close(out, transformer()(**given).sample, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["replace", "refine, then reweight, then masactrl", "masactrl"])
def test_recorded_maps_are_the_edited_text_columns(name: str) -> None:
    recorder = Recorder(RecordSpec((2, 3), fraction=0.5), WIDTH, (8, 8))
    kept: list[Tensor] = []
    with folded_attention(transformer()) as sites:
        for step in range(8):
            recorder.begin(step)
            plan = build_step_plan(
                sites, 4, [RowEdit(3, 2, bound(name))], step, [recorder], dtype=torch.float64
            )
            transformer()(**inputs(4, seed=step), joint_attention_kwargs={"plan": plan})
    for step in range(8):
        saved: dict[str, Tensor] = {}
        with materialised_joint(transformer(), [MapRow(3, 2, CASES[name].chain(setting()))], step, saved):
            transformer()(**inputs(4, seed=step))
        kept += [maps.mean(1) for maps in saved.values()]
    expected = torch.stack(kept).mean(0).mT
    for row in (2, 3):
        torch.testing.assert_close(recorder.maps(row).flatten(1), expected[row], rtol=0, atol=1e-6)


def test_maps_of_the_text_are_not_recorded_at_other_sizes() -> None:
    recorder = Recorder(RecordSpec((2,), fraction=0.25), WIDTH, (8, 8))
    with pytest.raises(ConfigError, match=r"no cross-attention at 0\.25 of the side; the model has 0\.5"):
        build_step_plan(transformer_sites(transformer()), 4, [], 0, [recorder])


@pytest.mark.parametrize(("controller", "terms"), [(Replace(1.0, 1.0), 4), (Refine(1.0, 0.0), 5)])
def test_rows_of_the_fused_call(controller: Any, terms: int) -> None:
    """One term per row, one more only where the target keeps columns of its own; flash attention serves."""
    network = _cast("rms_norm", torch.float32)
    given = {name: tensor.float() for name, tensor in inputs(4).items()}
    edits = [RowEdit(3, 2, controller.bind(context(SOURCE, SWAP)))]
    recorder = Recorder(RecordSpec((2, 3), fraction=0.5), WIDTH, (8, 8))
    plan = build_step_plan(transformer_sites(network), 4, edits, 0, [recorder])
    at = plan.sites["transformer_blocks.0.attn"]
    assert 4 + (0 if at.extra_rows is None else len(at.extra_rows)) == terms
    with folded_attention(network), sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
        network(**given, joint_attention_kwargs={"plan": plan})


def test_the_batch_must_be_the_plans() -> None:
    plan = build_step_plan(
        transformer_sites(transformer()), 2, [RowEdit(1, 0, bound("replace"))], 0, dtype=torch.float64
    )
    with folded_attention(transformer()), pytest.raises(ValueError, match="made for 2 rows, the batch has 3"):
        transformer()(**inputs(3), joint_attention_kwargs={"plan": plan})
