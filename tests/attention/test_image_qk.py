"""The source's queries and keys of the image: the folded processors compute what the published code does.

The oracle replaces projections of the image before one written-out softmax over text and pixels, so that the
rows of the text see the source's image keys too.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from p2p_bench.attention import flux, joint
from p2p_bench.attention.columns import as_matrix
from p2p_bench.attention.plan import RowEdit, build_step_plan
from p2p_bench.attention.processor import folded_attention
from p2p_bench.attention.recorder import Recorder, RecordSpec
from p2p_bench.attention.sites import network_sites
from p2p_bench.controllers import Compose, Controller, ImageQK, MasaCtrl, Refine, Replace, SelfAttention
from p2p_bench.controllers.bound import BoundP2P
from p2p_bench.controllers.self_edit import EVERY_LAYER, NO_LAYER, layer_range, without
from p2p_bench.errors import ConfigError
from tests.attention import test_flux, test_transformer
from tests.attention.rig import WIDTH, context
from tests.controllers.cases import LONG, SOURCE, SWAP
from tests.flux_oracle import turned
from tests.models.tiny import tiny_model

EXACT = 1e-10
SOURCE_ROW, ROWS = 2, 4
"""Two unconditional rows, the source, and the target."""


def bound(controller: Controller, target: str = SWAP) -> BoundP2P:
    made = controller.bind(context(SOURCE, target))
    assert isinstance(made, BoundP2P)
    return made


@dataclass
class Published:
    """Replaces the last row's queries and keys of the image by the source's, and edits its text columns.

    Attributes:
        count: Number of image tokens; 0: all are.
        edit: (L, R) of the text columns, written out; None: nothing.
        text_first: Whether the text's tokens come first.
    """

    count: int
    edit: tuple[Tensor, Tensor] | None = None
    text_first: bool = False

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention of (rows, heads, tokens, channels)."""
        length = query.shape[2]
        first = length - self.count if self.text_first else 0
        image = slice(first, first + self.count)
        plain = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
        query, key = query.clone(), key.clone()
        query[-1, :, image], key[-1, :, image] = query[SOURCE_ROW, :, image], key[SOURCE_ROW, :, image]
        maps = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
        if self.edit is not None:
            L, R = self.edit
            text = slice(0, first) if self.text_first else slice(self.count, None)
            maps[-1, :, image, text] = plain[SOURCE_ROW, :, image, text] @ L + maps[-1, :, image, text] @ R
        return maps @ value


def joint_oracle(published: Published) -> Callable[..., Any]:
    """Joint attention of Stable Diffusion 3; its attention of pixels alone is left as it is."""

    def processor(attn: Any, hidden_states: Tensor, encoder_hidden_states: Any = None, **_: Any) -> Any:
        def heads(states: Tensor, norm: Any = None) -> Tensor:
            split = states.reshape(*states.shape[:2], attn.heads, -1).transpose(1, 2)
            return split if norm is None else norm(split)

        pixels, text = hidden_states, encoder_hidden_states
        parts = [heads(attn.to_q(pixels), attn.norm_q), heads(attn.to_k(pixels), attn.norm_k)]
        parts.append(heads(attn.to_v(pixels)))
        if text is None:
            maps = (parts[0] @ parts[1].mT / parts[0].shape[-1] ** 0.5).softmax(-1)
            return attn.to_out[0]((maps @ parts[2]).transpose(1, 2).flatten(2))
        added = [heads(attn.add_q_proj(text), attn.norm_added_q)]
        added += [heads(attn.add_k_proj(text), attn.norm_added_k), heads(attn.add_v_proj(text))]
        out = published(*(torch.cat(pair, 2) for pair in zip(parts, added, strict=True)))
        seen, read = out.transpose(1, 2).flatten(2).split([pixels.shape[1], text.shape[1]], 1)
        return attn.to_out[0](seen), read if attn.context_pre_only else attn.to_add_out(read)

    return processor


def flux_oracle(published: Published) -> Callable[..., Any]:
    """Joint attention of FLUX."""

    def processor(
        attn: Any, hidden_states: Tensor, encoder_hidden_states: Any = None,
        attention_mask: Any = None, image_rotary_emb: Any = None,
    ) -> Any:  # fmt: skip
        def split(states: Tensor) -> Tensor:
            return states.reshape(*states.shape[:2], attn.heads, attn.head_dim)

        own = [attn.norm_q(split(attn.to_q(hidden_states))), attn.norm_k(split(attn.to_k(hidden_states)))]
        parts, text = [*own, split(attn.to_v(hidden_states))], encoder_hidden_states
        if text is not None:
            added = [attn.norm_added_q(split(attn.add_q_proj(text)))]
            added += [attn.norm_added_k(split(attn.add_k_proj(text))), split(attn.add_v_proj(text))]
            parts = [torch.cat(pair, 1) for pair in zip(added, parts, strict=True)]
        query, key = (turned(part, image_rotary_emb).transpose(1, 2) for part in parts[:2])
        out = published(query, key, parts[2].transpose(1, 2)).transpose(1, 2).flatten(2)
        if text is None:
            return out
        width = text.shape[1]
        return attn.to_out[0](out[:, width:]), attn.to_add_out(out[:, :width])

    return processor


@dataclass(frozen=True)
class Rig:
    """A transformer and its oracle."""

    network: Any
    inputs: dict[str, Tensor]
    oracle: Callable[[Published], Callable[..., Any]]
    count: int
    text_first: bool
    extra: dict[str, Any]


def rigs(name: str) -> Rig:
    if name == "sd3":
        inputs = test_transformer.inputs(ROWS)
        return Rig(test_transformer.transformer(), inputs, joint_oracle, 16, False, {})
    return Rig(test_flux.transformer(), test_flux.inputs(ROWS), flux_oracle, 16, True, {"text_length": WIDTH})


def output(rig_: Rig, controller: BoundP2P, step: int = 0) -> Tensor:
    with folded_attention(rig_.network) as sites:
        plan = build_step_plan(sites, ROWS, [RowEdit(3, SOURCE_ROW, controller)], step, dtype=torch.float64)
        found: Tensor = rig_.network(
            **rig_.inputs, joint_attention_kwargs={"plan": plan, **rig_.extra}
        ).sample
    return found


def expected(rig_: Rig, edit: tuple[Tensor, Tensor] | None = None) -> Tensor:
    network = rig_.network
    before = dict(network.attn_processors)
    oracle = rig_.oracle(Published(rig_.count, edit, rig_.text_first))
    network.set_attn_processor({f"{site.name}.processor": oracle for site in network_sites(network)})
    try:
        found: Tensor = network(**rig_.inputs).sample
    finally:
        network.set_attn_processor(before)
    return found


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_it_is_the_published_replacement(name: str) -> None:
    one = rigs(name)
    difference = (output(one, bound(ImageQK(0.5))) - expected(one)).abs()
    # Positions and norms are cast to float32 by diffusers, alike on both sides.
    assert float(difference.max()) <= 1e-6
    plain = output(one, bound(ImageQK(0.5)), step=9)
    moved = (plain - expected(one)).abs().flatten(1).amax(1)
    assert float(moved[:3].max()) <= 1e-6
    assert float(moved[3]) > 1e-3


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_it_goes_with_edits_of_columns(name: str) -> None:
    """Refinement around it, written out; a factor of 1.01 on either map is seen."""
    one = rigs(name)
    controller = bound(Compose([Refine(1.0, 0.0), ImageQK(1.0)]), LONG)
    L, R = (as_matrix(part, WIDTH) for part in controller.cross[0])
    assert R.abs().sum() > 0
    found = output(one, controller)
    assert float((found - expected(one, (L, R))).abs().max()) <= 1e-6
    for wrong in ((1.01 * L, R), (L, 1.01 * R)):
        assert float((found - expected(one, wrong)).abs().max()) > 1e-5


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_one_fused_call_serves(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many calls as plain generation, of as many rows; a recorder asks for its columns besides."""
    one = rigs(name)
    rows: list[int] = []
    asked = {"sd3": (joint, "scaled_dot_product_attention"), "flux": (flux, "dispatch_attention_fn")}
    module, call = asked[name]
    real = getattr(module, call)

    def counted(query: Tensor, *rest: Any, **options: Any) -> Tensor:
        rows.append(len(query))
        found: Tensor = real(query, *rest, **options)
        return found

    monkeypatch.setattr(module, call, counted)
    output(one, bound(ImageQK(1.0)))
    joint_sites = [site for site in network_sites(one.network) if site.joint]
    assert rows == [ROWS] * len(joint_sites)
    rows.clear()
    output(one, bound(Replace(1.0, 0.0)))
    assert len(rows) > len(joint_sites)


def test_recorded_columns_are_those_of_the_replaced_queries() -> None:
    """With the target's text in the source's place they are the source's."""
    one = rigs("sd3")
    text = {name: tensor.clone() for name, tensor in one.inputs.items()}
    for name in ("encoder_hidden_states", "pooled_projections"):
        text[name][3] = text[name][SOURCE_ROW]
    recorder = Recorder(RecordSpec((2, 3), fraction=0.5), WIDTH, (8, 8))
    with folded_attention(one.network) as sites:
        edits = [RowEdit(3, SOURCE_ROW, bound(ImageQK(1.0), SOURCE))]
        plan = build_step_plan(sites[:1], ROWS, edits, 0, [recorder], dtype=torch.float64)
        recorder.begin(0)
        one.network(**text, joint_attention_kwargs={"plan": plan})
    torch.testing.assert_close(recorder.maps(3), recorder.maps(2), rtol=0, atol=EXACT)


def test_in_a_unet_it_is_injection_and_the_sources_queries() -> None:
    made = bound(ImageQK(0.5, layers=0))
    whole = bound(SelfAttention(0.5, fraction=1.0))
    sites = tiny_model().sites
    for site in sites:
        if site.kind == "self":
            assert made.site_edit(0, site) == whole.site_edit(0, site)
        else:
            (term,) = made.site_edit(0, site) or ()
            assert (term.query, term.key, term.value) == ("source", "target", "target")
        assert made.site_edit(9, site) is None


def test_layers_and_compositions() -> None:
    sites = network_sites(test_transformer.transformer())
    some = bound(ImageQK(1.0, layers=[1, 3]))
    joint = [site for site in sites if site.joint]
    assert [some.site_edit(0, site) is not None for site in joint] == [False, True, True, False]
    assert all(some.site_edit(0, site) is None for site in sites if not site.joint)
    both = bound(Compose([MasaCtrl(0, layers=[0, 4]), ImageQK(1.0, layers=[1, 3])]))
    done = [both.self_edits[0].pixels(site) for site in joint]
    assert done == ["mutual", "queries", "queries", "mutual"]
    after = bound(Compose([ImageQK(1.0, layers=[1, 3]), MasaCtrl(0, layers=[2, 4])]))
    assert [after.self_edits[0].pixels(site) for site in joint] == ["own", "queries", "mutual", "mutual"]
    last = bound(Compose([ImageQK(1.0), SelfAttention(1.0, fraction=1.0)]))
    assert {last.self_edits[0].pixels(site) for site in joint} == {"injected"}
    with pytest.raises(ConfigError, match="give both by number or both as shares"):
        bound(Compose([MasaCtrl(0, layers=[0, 4]), ImageQK(1.0, layers=[0.25, 0.5])]))
    assert "source's queries and keys of the image at layers 1..2" in str(some)
    assert without(EVERY_LAYER, NO_LAYER) == EVERY_LAYER
    assert without(layer_range(0.0, 4.0, False), layer_range(1.0, 2.0, False)).indices == ((0, 1), (2, 4))


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_flash_attention_serves(name: str) -> None:
    one = rigs(name)
    single = torch.nn.Module.to(copy.deepcopy(one.network), torch.float32)
    given = {key: tensor.float() for key, tensor in one.inputs.items()}
    plan = build_step_plan(network_sites(single), ROWS, [RowEdit(3, SOURCE_ROW, bound(ImageQK(1.0)))], 0)
    holding: AbstractContextManager[Any] = sdpa_kernel([SDPBackend.FLASH_ATTENTION])
    with folded_attention(single), holding:
        single(**given, joint_attention_kwargs={"plan": plan, **one.extra})
