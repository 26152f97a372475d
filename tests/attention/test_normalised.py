"""Rows of edited maps that are normalised again: equal to written-out maps, in every kind of attention."""

from typing import Any

import pytest
import torch
from torch import Tensor

from p2p_bench.attention.columns import as_matrix
from p2p_bench.attention.plan import RowEdit, build_step_plan
from p2p_bench.attention.processor import folded_attention
from p2p_bench.attention.sites import Site, network_sites
from p2p_bench.controllers import (
    Compose,
    Controller,
    InjectWords,
    LocalBlend,
    NoControl,
    Normalised,
    Refine,
    Replace,
    Reweight,
    SelfAttention,
)
from p2p_bench.controllers.bound import BoundP2P
from p2p_bench.errors import ConfigError
from tests.attention import test_flux, test_transformer
from tests.attention.rig import WIDTH, context
from tests.attention.test_joint import inputs as unet_inputs
from tests.attention.test_joint import joint_unet
from tests.controllers.cases import LONG, SOURCE, SWAP
from tests.flux_oracle import MaterialisedFluxProcessor
from tests.oracle import MapRow
from tests.transformer_oracle import MaterialisedJointProcessor

ROWS, SOURCE_ROW = 4, 2
EDITS: dict[str, tuple[str, Controller]] = {
    "replace": (SWAP, Replace(1.0, 0.0)),
    "replace and inject": (SWAP, Replace(1.0, 1.0)),
    "refine": (LONG, Refine(1.0, 0.0)),
    "reweight": (LONG, Reweight({"fog": 3.0}, 1.0, inner=Refine(1.0, 0.0))),
}


def bound(name: str) -> BoundP2P:
    target, controller = EDITS[name]
    made = Normalised(controller).bind(context(SOURCE, target))
    assert isinstance(made, BoundP2P)
    return made


class Edit:
    """Text columns A_s L + A_t R, and those of pixels, of one map, which `divided` divides."""

    def __init__(self, controller: BoundP2P, injected: bool, factor: float = 1.0) -> None:
        self.L, self.R = (factor * as_matrix(part, WIDTH) for part in controller.cross[0])
        self.injected = injected

    def __call__(self, step: int, site: Site, A_s: Tensor, A_t: Tensor) -> Tensor:
        if site.kind == "self":
            return A_s if self.injected else A_t
        return A_s @ self.L + A_t @ self.R


def divided(kind: type[Any]) -> type[Any]:
    """An oracle of transformers whose last row's edited map is divided."""

    class Divided(kind):  # type: ignore[misc]  # whichever it is
        def _edited(self, *arguments: Any) -> Tensor:
            maps: Tensor = super()._edited(*arguments)
            if self.edits:
                maps[-1] = maps[-1] / maps[-1].sum(-1, keepdim=True)
            return maps

    return Divided


def network_and_inputs(name: str) -> tuple[Any, dict[str, Tensor], dict[str, Any]]:
    if name == "sd3":
        return test_transformer.transformer(None), test_transformer.inputs(ROWS), {}
    return test_flux.transformer(), test_flux.inputs(ROWS), {"text_length": WIDTH}


def outputs(name: str, controller: BoundP2P, edit: Edit) -> tuple[Tensor, Tensor]:
    """Folded and written out."""
    network, given, extra = network_and_inputs(name)
    sites = network_sites(network)
    plan = build_step_plan(sites, ROWS, [RowEdit(3, SOURCE_ROW, controller)], 0, dtype=torch.float64)
    with folded_attention(network):
        found = network(**given, joint_attention_kwargs={"plan": plan, **extra}).sample
    places = [MapRow(3, SOURCE_ROW, edit)]
    if name == "sd3":
        oracles = {site.name: divided(MaterialisedJointProcessor)(site, places, 0) for site in sites}
    else:
        oracles = {site.name: divided(MaterialisedFluxProcessor)(site, WIDTH, places, 0) for site in sites}
    before = dict(network.attn_processors)
    network.set_attn_processor({f"{site}.processor": one for site, one in oracles.items()})
    try:
        return found, network(**given).sample
    finally:
        network.set_attn_processor(before)


@pytest.mark.parametrize("network", ["sd3", "flux"])
@pytest.mark.parametrize("name", EDITS)
def test_it_is_the_written_out_map_divided_by_its_rows(network: str, name: str) -> None:
    controller, injected = bound(name), name == "replace and inject"
    found, expected = outputs(network, controller, Edit(controller, injected))
    # diffusers casts positions to float32, alike on both sides.
    assert float((found - expected).abs().max()) <= (1e-10 if network == "sd3" else 1e-6)
    plain, _ = outputs(
        network, EDITS[name][1].bind(context(SOURCE, EDITS[name][0])), Edit(controller, injected)
    )  # type: ignore[arg-type]  # bound alike
    assert float((plain - found).abs().max()) > 1e-4
    # A row is divided by text and pixels together, so that 1 % more text is seen.
    _, wrong = outputs(network, controller, Edit(controller, injected, 1.01))
    assert float((found - wrong).abs().max()) > 1e-5


def test_separate_attention_and_added_keys() -> None:
    """Sums of rows one by one: with equal values everywhere, a normalised row gives that value."""
    unet = joint_unet()
    sites = network_sites(unet)
    for normalised in (True, False):
        controller = EDITS["reweight"][1]
        made = (Normalised(controller) if normalised else controller).bind(context(SOURCE, LONG))
        plan = build_step_plan(sites, ROWS, [RowEdit(3, SOURCE_ROW, made)], 0, dtype=torch.float64)
        seen: list[float] = []

        def ones(module: Any, inputs: Any, output: Tensor) -> Tensor:
            return torch.ones_like(output)

        def watch(module: Any, inputs: tuple[Tensor, ...], seen: list[float] = seen) -> None:
            seen.append(float((inputs[0] - 1).abs().max()))

        hooks = []
        for site in sites:
            layer = unet.get_submodule(site.name)
            for name in ("to_v", "add_v_proj"):
                projection = getattr(layer, name, None)
                hooks += [projection.register_forward_hook(ones)] if projection is not None else []
            hooks.append(layer.to_out[0].register_forward_pre_hook(watch))
        try:
            with folded_attention(unet):
                unet(*unet_inputs(ROWS), cross_attention_kwargs={"plan": plan})
        finally:
            for hook in hooks:
                hook.remove()
        assert seen
        assert (max(seen) <= 1e-10) == normalised


def test_what_it_does_not_go_with() -> None:
    pair = context(SOURCE, LONG)
    with pytest.raises(ConfigError, match="a weight below 0 can leave a row"):
        Normalised(Reweight({"fog": -1.0}, 1.0, inner=NoControl())).bind(pair)
    with pytest.raises(ConfigError, match="put local_blend around it"):
        Normalised(LocalBlend(Refine(), words="circle")).bind(pair)
    for inner, outer in ((Normalised(Refine()), 3.0), (Normalised(Refine()), -1.0)):
        with pytest.raises(ConfigError, match="put normalised around all of them"):
            Reweight({"fog": outer}, 1.0, inner=inner).bind(pair)
    for order in (
        [Normalised(Refine()), InjectWords("circle")],
        [Reweight({"fog": -1}, inner=NoControl()), Normalised(Refine())],
    ):
        with pytest.raises(ConfigError, match="put normalised around all of them"):
            Compose(order).bind(pair)
    with_pixels = Compose([Normalised(Refine(1.0, 0.0)), SelfAttention(0.5)]).bind(pair)
    assert with_pixels.signature(0) == Normalised(Refine(1.0, 0.5)).bind(pair).signature(0)
    around = LocalBlend(Normalised(Refine(1.0, 0.0)), words="circle").bind(pair)
    assert "normalised" in str(around.signature(0))
    idle = Normalised(SelfAttention(0.5)).bind(pair)
    assert idle.signature(0) == SelfAttention(0.5).bind(pair).signature(0)
    assert bound("refine").signature(0) != Refine(1.0, 0.0).bind(pair).signature(0)
