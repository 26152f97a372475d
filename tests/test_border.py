"""The model's border: a family and a stepper that are not ours do their work."""

from typing import Any

import pytest
import torch
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.inversion import NullTextInversion
from p2p_bench.inversion.base import read_sources
from tests.examples import SOURCE, TARGET
from tests.models.border import STEPS, Border, distance
from tests.stubs.flow_edit import FlowEdit
from tests.stubs.flow_family import FlowCheckpoint, FlowModel


@pytest.fixture(scope="module")
def model() -> FlowModel:
    return FlowCheckpoint().load(torch.device("cpu"), torch.float64)  # as `p2p.load_model` does


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(2))


class TestFlow(Border):
    """The family passes what every family has to."""


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
        method = NullTextInversion(guidance=5.0, inner_steps=inner_steps, learning_rate=0.03, tolerance=0.0)
        (replay,) = method.invert(model, sources, STEPS)
        return replay.distance

    assert found(20) < 0.5 * found(0)


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
