"""Edits by instruction: the published pipeline's pictures, batches, and what is refused."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionInstructPix2PixPipeline,
)
from diffusers.schedulers import scheduling_euler_ancestral_discrete as ancestral
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.editing import EditRequest, EditResult, Repair, Target
from p2p_bench.editing.instruct import PASSES, guided, run_instructions
from p2p_bench.models import DiffusionModel
from p2p_bench.sampling import DDIM, DPMSolver, Stepper, initial_noise, step_noise
from tests.models.small_ip2p import small_ip2p
from tests.models.tiny import tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
STEPS = 5
ORDERS = ("a blue circle", "a dog in fog")


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    return small_ip2p().load()


def picture(seed: int = 2) -> Tensor:
    return torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(seed))


def request(name: str, *orders: str | None, seed: int = 3, **more: Any) -> EditRequest:
    targets = tuple(Target(f"prompt {place}", instruction=one) for place, one in enumerate(orders))
    return EditRequest(name, "a circle", targets, seed=seed, **{"image": picture(), **more})


def only(results: Sequence[EditResult]) -> EditResult:
    (result,) = results
    return result


@pytest.mark.parametrize(
    ("scheduler", "stepper", "spacing"),
    [
        (DDIMScheduler, DDIM(), "leading"),
        (EulerDiscreteScheduler, DDIM(0.0, "euler"), "leading"),
        (EulerDiscreteScheduler, DDIM(0.0, "euler"), "linspace"),
        (EulerAncestralDiscreteScheduler, DDIM(1.0, "euler"), "linspace"),
        (DPMSolverMultistepScheduler, DPMSolver(), "linspace"),
    ],
)
def test_it_equals_its_pipeline(
    model: DiffusionModel, monkeypatch: pytest.MonkeyPatch, scheduler: Any, stepper: Stepper, spacing: Any
) -> None:
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(
        small_ip2p().path, local_files_only=True, safety_checker=None
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = scheduler.from_config(
        pipeline.scheduler.config, timestep_spacing=spacing, set_alpha_to_one=True, clip_sample=False
    )
    drawn: list[int] = []

    def noise(shape: Sequence[int], **options: Any) -> Tensor:
        drawn.append(len(drawn))
        return step_noise(3, drawn[-1], (4, 8, 8)).expand(*shape)

    monkeypatch.setattr(ancestral, "randn_tensor", noise)
    wanted = pipeline(
        list(ORDERS),
        image=picture().expand(2, -1, -1, -1),
        latents=initial_noise(3, (4, 8, 8)).expand(2, -1, -1, -1).clone(),
        num_inference_steps=STEPS,
        guidance_scale=6.0,
        image_guidance_scale=1.7,
        output_type="pt",
    ).images
    result = only(
        run_instructions(
            model, [request("x", *ORDERS)], image_guidance=1.7, steps=STEPS, guidance=6.0, stepper=stepper,
            spacing=spacing,
        )
    )  # fmt: skip
    assert result.errors == (None, None, None)
    assert float((result.images[1:] - wanted).abs().max()) <= 1e-5
    assert float((result.images[1] - result.images[2]).abs().max()) >= 1e-2
    assert len(drawn) == (STEPS if isinstance(stepper, DDIM) and stepper.eta else 0)


def test_the_scales_weigh_what_they_say() -> None:
    full, image, neither = (torch.randn(1, 4, 2, 2, dtype=torch.float64) for _ in range(3))
    combined = guided(full, image, neither, s_T=7.5, s_I=1.5)
    torch.testing.assert_close(combined, 7.5 * full - 6.0 * image - 0.5 * neither)
    torch.testing.assert_close(guided(full, image, neither, 1.0, 1.0), full)
    torch.testing.assert_close(guided(full, image, neither, 0.0, 1.0), image)


def test_every_scale_acts(model: DiffusionModel) -> None:
    def edited(**options: float) -> Tensor:
        return only(run_instructions(model, [request("x", ORDERS[0])], steps=STEPS, **options)).images[1]

    usual = edited()
    assert torch.equal(edited(guidance=7.5, image_guidance=1.5), usual)
    assert float((edited(guidance=3.0) - usual).abs().max()) > 1e-3
    assert float((edited(image_guidance=3.0) - usual).abs().max()) > 1e-3


@pytest.mark.parametrize("max_rows", [1, 6, 80])
def test_a_batch_is_its_edits_alone(model: DiffusionModel, max_rows: int) -> None:
    requests = [
        request("one", *ORDERS),
        request("two", ORDERS[0], seed=4, image=picture(7), guidance=3.0),
        request("three", "a cat", seed=5),
    ]
    told: list[tuple[int, int]] = []
    stepper = DDIM(1.0, "euler")
    together = run_instructions(
        model, requests, steps=STEPS, stepper=stepper, max_rows=max_rows,
        progress=lambda *step: told.append(step),
    )  # fmt: skip
    assert [result.id for result in together] == ["one", "two", "three"]
    for one, result in zip(requests, together, strict=True):
        alone = only(run_instructions(model, [one], steps=STEPS, stepper=stepper))
        assert float((alone.images - result.images).abs().max()) <= 1e-5
        assert result.target_rows == (PASSES * STEPS,) * len(one.targets)
        assert (result.source_rows, result.inversion_rows) == (0, 0)
    batches = {1: 4, 6: 2, 80: 1}[max_rows]
    assert told == [(step, batches * STEPS) for step in range(1, batches * STEPS + 1)]


def test_rows_are_those_that_go_through_the_network(model: DiffusionModel) -> None:
    sizes: list[int] = []
    handle = model.network.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    result = only(run_instructions(model, [request("x", *ORDERS)], steps=STEPS))
    handle.remove()
    assert sum(sizes) == result.unet_rows == result.unet_rows_spent == 2 * PASSES * STEPS


def test_the_source_is_the_image_and_nothing_is_reconstructed(model: DiffusionModel) -> None:
    result = only(run_instructions(model, [request("x", ORDERS[0])], steps=2))
    assert torch.equal(result.images[0], picture())
    assert result.reconstructions == [None]
    assert result.vae_reconstruction is not None
    through = model.decode_latents(model.encode_images(picture()[None]))[0]
    torch.testing.assert_close(result.vae_reconstruction, through)
    assert result.known[0]["control"] == "told 'a blue circle', image guidance 1.5"


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (request("bad", None), "there is no instruction"),
        (request("bad", "  "), "there is no instruction"),
        (request("bad", "a dog", image=None), "there is no source image"),
        (request("bad", "a dog", "a dog"), "a single instruction for 2 target prompts"),
        (request("bad", "a dog", image=torch.rand(3, 8, 8)), "8 x 8 pixels"),
        (request("bad", "a dog", noise=torch.zeros(4, 2, 2)), "noise: expected the latent shape"),
        (request("bad", "dog " * 20), "instruction"),
        (request("bad", "a dog", guidance=0.0), "guidance: 0"),
    ],
)
def test_what_cannot_be_made_says_why_and_the_rest_is_made(
    model: DiffusionModel, bad: EditRequest, words: str
) -> None:
    good = request("good", ORDERS[0])
    refused, made = run_instructions(model, [bad, good], steps=2)
    assert words in str(refused.error)
    assert refused.images.isnan().all()
    assert made.error is None


def test_a_long_instruction_is_cut_where_it_may_be(model: DiffusionModel) -> None:
    result = only(run_instructions(model, [request("x", "dog " * 20)], steps=2, truncate=True))
    assert result.error is None
    assert result.known[0]["notes"] == "instruction cut after 'dog'"


def test_latents_that_break_name_the_step(model: DiffusionModel) -> None:
    broken = request("x", ORDERS[0], noise=torch.full((4, 8, 8), torch.inf))
    result, other = run_instructions(model, [broken, request("y", ORDERS[0])], steps=2)
    assert "'x' are not finite after step 0" in str(result.error)
    assert other.error is None


def test_memory_that_does_not_suffice_takes_fewer_edits(
    model: DiffusionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [request(str(seed), ORDERS[0], seed=seed) for seed in range(4)]
    wanted = run_instructions(model, requests, steps=2)
    small = replace(model)  # type: ignore[type-var]  # a dataclass
    predict = type(model).predict

    def short(self: Any, latents: Tensor, *rest: Any) -> Any:
        if len(latents) > limit:
            raise torch.OutOfMemoryError("out of memory")
        return predict(self, latents, *rest)

    monkeypatch.setattr(type(model), "predict", short)
    limit = 2 * PASSES
    made = run_instructions(small, requests, steps=2)
    assert all(one.error is None for one in made)
    difference = max(float((a.images - b.images).abs().max()) for a, b in zip(made, wanted, strict=True))
    assert difference <= 1e-5
    limit = PASSES - 1
    assert "does not suffice for a single edit" in str(run_instructions(small, requests, steps=2)[3].error)


def test_a_repair_by_a_mask_keeps_the_image_outside(model: DiffusionModel) -> None:
    mask = torch.zeros(16, 16)
    mask[4:12, 4:12] = 1
    result = only(run_instructions(model, [request("x", ORDERS[0], repair=Repair(mask=mask))], steps=2))
    outside = (result.images[1] - picture()).abs().amax(0) * (1 - mask)
    assert float(outside.max()) == 0
    assert result.known[0]["mask_from"] == "given"


def test_from_python_in_one_call(model: DiffusionModel) -> None:
    result = p2p.instruct(model, picture(), list(ORDERS), seed=3, steps=2)
    wanted = only(run_instructions(model, [request("x", *ORDERS)], steps=2, stepper=DDIM(1.0, "euler")))
    assert torch.equal(result.images, wanted.images)
    assert "3 images of 16 x 16" in repr(result)
    for bad in ({"image_guidance": -1.0}, {"guidance": 0.0}, {"instructions": []}, {"instructions": " "}):
        with pytest.raises(p2p.P2PError, match=next(iter(bad)).rstrip("s")):
            p2p.instruct(model, **{"image": picture(), "instructions": ORDERS[0], **bad})


def test_a_model_that_is_shown_no_image_is_refused() -> None:
    with pytest.raises(p2p.P2PError, match="is shown no image"):
        run_instructions(tiny_model(), [request("x", ORDERS[0])])
