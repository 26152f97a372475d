"""The model's border: a family and a stepper that are not ours do their work."""

from typing import Any

import pytest
import torch
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.app.build import build, chosen_options, without_hydra
from p2p_bench.app.compose import compose, group_options
from p2p_bench.bench.task import Task
from p2p_bench.editing import EditRequest, Record, Target, run_edits
from p2p_bench.inversion import NullTextInversion
from p2p_bench.inversion.base import read_sources
from p2p_bench.inversion.recall import pack, unpack
from tests.stubs.flow_edit import FlowEdit
from tests.stubs.flow_family import FlowCheckpoint, FlowModel
from tests.test_contract import NEEDED

SOURCE, TARGET, LONGER = (
    "a red circle on grass",
    "a blue circle on grass",
    "a small red circle on grass in fog",
)
STEPS = 4
EXACT = ("direct", "edict", "edit_friendly")


@pytest.fixture(scope="module")
def model() -> FlowModel:
    return FlowCheckpoint().load()


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(2))


def task(*overrides: str) -> Task:
    config = compose([*overrides, "dataset.limit=1", "logger=none"], keep_hydra=True)
    return build(without_hydra(config), chosen_options(config.hydra)).task


def controller(option: str) -> p2p.Controller:
    return task(f"controller={option}", *NEEDED.get(option, [])).variants[0].controller


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


@pytest.mark.parametrize("option", group_options("controller"))
def test_every_controller_edits_another_family(model: FlowModel, option: str) -> None:
    plain = p2p.edit(model, SOURCE, TARGET, seed=3, steps=STEPS)
    edited = p2p.edit(model, SOURCE, TARGET, controller(option), seed=3, steps=STEPS)
    assert distance(edited.latents[0], plain.latents[0]) <= 1e-10
    change = distance(edited.latents[1], plain.latents[1])
    assert change <= 1e-10 if option == "none" else change > 1e-3


@pytest.mark.parametrize("option", group_options("inversion"))
def test_every_inversion_serves_another_family(model: FlowModel, image: Tensor, option: str) -> None:
    inversion = task(f"inversion={option}").inversion
    edits = [p2p.NoControl(), p2p.Replace(0.8, 0.5)]
    result = p2p.edit(model, SOURCE, [TARGET] * 2, edits, image=image, inversion=inversion, steps=STEPS)
    assert bool(result.latents.isfinite().all())
    assert distance(result.latents[1], result.latents[0]) > 1e-3
    assert distance(result.latents[2], result.latents[1]) > 1e-3
    if option in EXACT:
        assert distance(result.latents[0], model.encode_images(image)) <= 1e-8
    # What is kept for the next run is what was made.
    method = inversion.for_guidance(5.0).for_model(model.spec)
    (replay,) = method.invert(model, read_sources(model, image[None], [SOURCE]), STEPS)
    assert replay.unet_rows == 0 or pack(unpack(pack(replay), method, model.device)) == pack(replay)


def test_ddim_inversion_is_the_euler_step_back(model: FlowModel, image: Tensor) -> None:
    prompt = model.encode([model.tokenize(SOURCE)])
    x = model.encode_images(image[None])
    ladder = model.ladder(STEPS)
    for there, here in zip(ladder[:0:-1], ladder[-2::-1], strict=True):
        velocity = model.predict(x, here, prompt).output
        x = x + (here.sigma - there.sigma) * velocity
    (replay,) = p2p.DDIMInversion().invert(model, read_sources(model, image[None], [SOURCE]), STEPS)
    assert distance(replay.start[0], x[0]) <= 1e-10


def test_null_text_leads_a_flow_back(model: FlowModel, image: Tensor) -> None:
    """The pooled vector of the empty prompt stays; the text columns learn."""
    sources = read_sources(model, image[None], [SOURCE])

    def found(inner_steps: int) -> float:
        method = NullTextInversion(guidance=5.0, inner_steps=inner_steps, learning_rate=0.1, tolerance=0.0)
        (replay,) = method.invert(model, sources, STEPS)
        return replay.distance

    assert found(20) < 0.5 * found(0)


def test_the_tree_of_another_family_equals_solo_edits(model: FlowModel) -> None:
    edits = [
        p2p.Replace(0.5, 0.25), p2p.Replace(1.0, 0.25), p2p.Reweight({"blue": 3.0}), p2p.MasaCtrl(),
        p2p.LocalBlend(p2p.Replace(0.8), words=("circle",), target_words=("circle",)), p2p.NoControl(),
    ]  # fmt: skip
    targets = (*(Target(TARGET, one) for one in edits), Target(LONGER, p2p.Refine(0.8)))
    (together,) = run_edits(model, [EditRequest("x", SOURCE, targets)], steps=STEPS, record=Record())
    assert sum(together.target_rows_spent) < sum(together.target_rows)
    for place, target in enumerate(targets):
        (alone,) = run_edits(model, [EditRequest("x", SOURCE, (target,))], steps=STEPS, record=Record())
        assert distance(together.latents[[0, 1 + place]], alone.latents) <= 1e-10
        assert distance(together.heatmap("circle", 1 + place), alone.heatmap("circle", 1)) <= 1e-5


def test_a_prompt_goes_through_the_text_encoders_once() -> None:
    model = FlowCheckpoint().load()
    model = type(model)(**{**vars(model), "encoded": type(model.encoded)()})
    read: list[int] = []
    handles = [encoder.register_forward_pre_hook(lambda *call: read.append(1)) for encoder in model.encoders]
    edits = [p2p.Replace(cross / 4, 0.0) for cross in range(5)]
    p2p.edit(model, SOURCE, [TARGET] * 5, edits, steps=STEPS)
    p2p.edit(model, TARGET, SOURCE, steps=STEPS, guidance=1.0)
    for handle in handles:
        handle.remove()
    assert len(read) == 2 * len({SOURCE, TARGET, ""})


def test_a_step_that_looks_at_the_source_edits_without_inversion(model: FlowModel, image: Tensor) -> None:
    result = p2p.edit(model, SOURCE, [SOURCE, TARGET], image=image, inversion=FlowEdit(), steps=STEPS)
    start = model.encode_images(image)
    assert distance(result.latents[0], start) <= 1e-12
    assert distance(result.latents[1], start) <= 1e-12, "an edit into itself moves nothing"
    assert distance(result.latents[2], start) > 1e-3
    guided = p2p.edit(model, SOURCE, TARGET, p2p.Replace(0.8), image=image, inversion=FlowEdit(), steps=STEPS)
    assert distance(guided.latents[1], result.latents[2]) > 1e-3


def test_a_model_without_what_a_method_needs_is_refused_before_it_is_loaded(image: Tensor) -> None:
    class Blind(FlowCheckpoint):
        def spec(self) -> Any:
            spec = super().spec()
            return type(spec)(**{**vars(spec), "capabilities": frozenset({"cross"})})

    blind = Blind().load()
    with pytest.raises(p2p.P2PError, match="DDIMInversion needs noise levels"):
        p2p.edit(blind, SOURCE, TARGET, image=image, steps=STEPS)
