"""Guidance in an interval of the steps: a loop written out, the same in trees, refused where it cannot be."""

from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.controllers import LocalBlend, MasaCtrl
from p2p_bench.editing import EditRequest, Target, run_edits
from p2p_bench.editors.instruct import InstructionEditing
from p2p_bench.errors import ConfigError, P2PError
from p2p_bench.guidance import EVERY_STEP, guided_steps, parse_guidance_interval
from p2p_bench.inversion import FlowEdit, UniEdit
from p2p_bench.inversion.base import Inversion, steps_guided
from p2p_bench.models import DiffusionModel, world_flow_checkpoint
from p2p_bench.sampling import DDIMSampler, initial_noise
from p2p_bench.world.training.sheets import sample
from tests.editing.naive import naive_sampling
from tests.editing.test_edit import LONGER, OTHER, SHAPE, SOURCE, SWAPPED, counted_rows, oracle_of
from tests.models.small_flux import small_flux
from tests.models.tiny import tiny_model
from tests.oracle import MapRow

STEPS = 5
INTERVAL = (0.2, 0.8)
GUIDED = range(1, 4)
CONTROLLERS: tuple[tuple[str, p2p.Controller], ...] = (
    (SWAPPED, p2p.NoControl()),
    (SWAPPED, p2p.Replace(0.6, 0.5)),
    (SWAPPED, p2p.Replace(0.9, 0.2)),
    (LONGER, p2p.Refine(0.6, 0.5)),
    (SOURCE, p2p.Reweight({"circle": 2.5}, cross=0.6)),
    (SWAPPED, LocalBlend(p2p.Replace(0.6, 0.5), words=["circle"], threshold=0.6)),
    (OTHER, MasaCtrl(start_step=2, layers=(0.0, 1.0))),
)


def limited(step: int, unconditional: Tensor, conditional: Tensor) -> Tensor:
    """Classifier-free guidance at 7.5 in the interval, the conditional prediction alone outside of it."""
    return unconditional + 7.5 * (conditional - unconditional) if 1 <= step < 4 else conditional


def image_of(model: DiffusionModel) -> Tensor:
    """A picture of the model's size."""
    return torch.rand((3, *model.spec.image_size), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "target"), [("replace", SWAPPED), ("refine", LONGER)])
def test_equals_a_loop_written_out(name: str, target: str) -> None:
    model = tiny_model()
    edits = [MapRow(1, 0, oracle_of(name, SOURCE, target, model))]
    controller = (p2p.Replace if name == "replace" else p2p.Refine)(cross=0.6, self_attn=0.5)
    noise = initial_noise(3, SHAPE).double()
    expected = naive_sampling(model, [SOURCE, target], noise, STEPS, limited, edits=edits)
    sampler = DDIMSampler(STEPS, 7.5, guidance_interval=INTERVAL)
    with counted_rows(model) as sizes:
        result = p2p.edit(model, SOURCE, target, controller, seed=3, sampler=sampler)
    assert float((result.latents - expected).abs().max()) <= 1e-10
    assert sizes == [4 if step in GUIDED else 2 for step in range(STEPS)]
    assert (result.source_rows, result.target_rows[0]) == (8, 8)
    throughout = p2p.edit(model, SOURCE, target, controller, seed=3, steps=STEPS, guidance=7.5)
    assert float((throughout.latents - expected).abs().max()) > 1e-3


def test_the_whole_run_is_what_no_interval_is_and_guidance_1_takes_none() -> None:
    model = tiny_model()
    whole = p2p.edit(model, SOURCE, SWAPPED, sampler=DDIMSampler(STEPS, 7.5, guidance_interval=EVERY_STEP))
    assert torch.equal(whole.latents, p2p.edit(model, SOURCE, SWAPPED, steps=STEPS, guidance=7.5).latents)
    one = p2p.edit(model, SOURCE, SWAPPED, sampler=DDIMSampler(STEPS, 1.0, guidance_interval=INTERVAL))
    assert torch.equal(one.latents, p2p.edit(model, SOURCE, SWAPPED, steps=STEPS, guidance=1.0).latents)


@pytest.mark.parametrize(
    "inversion", [None, p2p.DDIMInversion(), p2p.DirectInversion(), p2p.NegativePromptInversion()]
)
def test_the_tree_equals_solo_runs(inversion: Inversion | None) -> None:
    model = tiny_model()
    image = None if inversion is None else image_of(model)

    def run(targets: tuple[Target, ...]) -> p2p.EditResult:
        request = EditRequest("one", SOURCE, targets, seed=5, image=image, inversion=inversion)
        (result,) = run_edits(model, [request], steps=STEPS, guidance=3.0, guidance_interval=INTERVAL)
        assert not any(result.errors)
        return result

    targets = tuple(Target(prompt, controller) for prompt, controller in CONTROLLERS)
    together = run(targets)
    for index, target in enumerate(targets):
        alone = run((target,))
        assert float((together.latents[1 + index] - alone.latents[1]).abs().max()) <= 1e-10
        assert together.target_rows[index] == alone.target_rows[0] == STEPS + len(GUIDED)
    assert together.unet_rows < sum(together.target_rows) + together.source_rows + together.inversion_rows


def test_the_models_own_interval_holds_unless_a_run_or_a_method_says_otherwise() -> None:
    model = tiny_model()
    own = replace(model, spec=replace(model.spec, guidance_interval=INTERVAL))
    assert p2p.edit(own, SOURCE, SWAPPED, steps=STEPS).source_rows == STEPS + len(GUIDED)
    everywhere = DDIMSampler(STEPS, guidance_interval=[0, 1])
    assert p2p.edit(own, SOURCE, SWAPPED, sampler=everywhere).source_rows == 2 * STEPS
    image = image_of(model)
    for method in (p2p.NullTextInversion(inner_steps=2), p2p.EDICTInversion()):
        given = {"image": image, "inversion": method, "steps": STEPS}
        expected = p2p.edit(model, SOURCE, SWAPPED, **given).latents
        assert torch.equal(p2p.edit(own, SOURCE, SWAPPED, **given).latents, expected)


@pytest.mark.parametrize(
    "method",
    [
        p2p.NullTextInversion(),
        p2p.EDICTInversion(guidance=None),
        p2p.EditFriendlyInversion(target_guidance=9.0),
    ],
)
def test_methods_that_scale_every_step_are_refused(method: Inversion) -> None:
    model = tiny_model()
    sampler = DDIMSampler(STEPS, guidance_interval=INTERVAL)
    with pytest.raises(ConfigError, match=rf"{type(method).__name__} is made for one guidance scale"):
        p2p.edit(model, SOURCE, SWAPPED, image=image_of(model), inversion=method, sampler=sampler)


def test_editors_of_flows_are_refused_where_the_scale_is_theirs() -> None:
    spec = world_flow_checkpoint().spec()
    for method in (FlowEdit(), UniEdit()):
        with pytest.raises(ConfigError, match="one guidance scale"):
            steps_guided(spec, 10, INTERVAL, method)
        assert steps_guided(spec, 10, EVERY_STEP, method) == range(10)
    assert steps_guided(spec, 10, INTERVAL, UniEdit(guidance=None)) == range(2, 8)


def test_edits_by_instruction_are_refused() -> None:
    model, request = tiny_model(), EditRequest("one", SOURCE, (Target(SWAPPED),))
    with pytest.raises(ConfigError, match="are guided at every step"):
        InstructionEditing().check(request, True, model, model.spec, DDIMSampler(guidance_interval=INTERVAL))


@pytest.mark.parametrize("kind", ["dev", "schnell"])
def test_models_without_a_second_pass_are_refused(kind: str) -> None:
    spec = small_flux(kind).spec()
    with pytest.raises(ConfigError, match="takes no pass without the prompt"):
        steps_guided(spec, 4, INTERVAL)
    assert steps_guided(spec, 4, None) == steps_guided(spec, 4, EVERY_STEP) == range(4)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([0.5], "interval of two numbers"),
        ([0.2, 1.5], r"values in \[0, 1\]"),
        ([0.8, 0.2], "ends before it starts"),
        ([0.5, 0.5], "is empty"),
    ],
)
def test_what_is_no_interval_is_refused(given: object, said: str) -> None:
    with pytest.raises(P2PError, match=rf"sampler.guidance_interval: .*{said}"):
        DDIMSampler(guidance_interval=given)  # type: ignore[arg-type]  # what is tested


def test_an_interval_between_two_steps_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"none of 5 steps lies in \[0.41, 0.59\]"):
        p2p.edit(tiny_model(), SOURCE, SWAPPED, sampler=DDIMSampler(5, guidance_interval=(0.41, 0.59)))


def test_steps_are_counted_as_diffusers_counts_them() -> None:
    assert guided_steps((0.15, 1.0), 28) == range(4, 28)
    assert guided_steps((4 / 28, 1.0), 28) == range(4, 28)
    assert guided_steps((0.29, 0.58), 100) == range(29, 58)
    assert parse_guidance_interval([0, 1]) == EVERY_STEP


def test_the_flow_worlds_pipeline_draws_the_same_under_a_callback() -> None:
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        world_flow_checkpoint().path, text_encoder_3=None, tokenizer_3=None, use_safetensors=True
    ).to(torch.float32)
    model = world_flow_checkpoint().load("cpu", torch.float32)
    for interval in (INTERVAL, (0.0, 0.6)):
        theirs = sample(pipeline, [SOURCE, SWAPPED], [3, 3], STEPS, 4.0, interval=interval)
        sampler = DDIMSampler(STEPS, 4.0, guidance_interval=interval)
        assert (
            float((p2p.edit(model, SOURCE, SWAPPED, seed=3, sampler=sampler).images - theirs).abs().max())
            <= 1e-4
        )
    everywhere = sample(pipeline, [SOURCE, SWAPPED], [3, 3], STEPS, 4.0)
    assert float((everywhere - theirs).abs().max()) > 1e-2
