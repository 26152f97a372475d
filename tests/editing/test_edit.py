import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

import p2p_bench as p2p
from p2p_bench.editing.run import run_edits
from p2p_bench.errors import NonFiniteLatentError, P2PError, PromptError
from p2p_bench.models import DiffusionModel
from p2p_bench.sampling import initial_noise
from tests.editing.naive import naive_sampling
from tests.models.tiny import tiny_checkpoint, tiny_model
from tests.oracle import MapRow, Published, Refinement, Scaling, Swap, refinement_mapper, swap_mapper

SOURCE = "a red circle on grass"
SWAPPED = "a blue circle on grass"
LONGER = "a small red circle on grass in fog"
OTHER = "a yellow star and a mirror"
SHAPE = (4, 8, 8)


@contextmanager
def counted_rows(model: DiffusionModel) -> Iterator[list[int]]:
    """Sizes of the batches that go through the network."""
    sizes: list[int] = []
    handle = model.unet.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    try:
        yield sizes
    finally:
        handle.remove()


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_without_control_equals_the_diffusers_pipeline(prediction_type: str) -> None:
    model = tiny_model(torch.float32, prediction_type)
    pipeline = StableDiffusionPipeline.from_pretrained(
        tiny_checkpoint(prediction_type).path, local_files_only=True, safety_checker=None
    )
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn((1, *SHAPE), generator=torch.Generator("cpu").manual_seed(7))
    options = {"num_inference_steps": 6, "guidance_scale": 7.5, "latents": noise.repeat(2, 1, 1, 1)}
    expected = pipeline([SOURCE, SWAPPED], output_type="pt", **options).images
    latents = pipeline([SOURCE, SWAPPED], output_type="latent", **options).images
    result = p2p.edit(model, SOURCE, SWAPPED, seed=7, steps=6, guidance=7.5)
    assert float((result.latents - latents).abs().max()) <= 1e-5
    assert float((result.images - expected).abs().max()) <= 1e-5
    given = p2p.edit(model, SOURCE, SWAPPED, noise=noise, steps=6, guidance=7.5)
    assert torch.equal(given.latents, result.latents)


def test_identical_prompts_under_full_injection_give_the_source() -> None:
    model = tiny_model()
    model = dataclasses.replace(model, spec=dataclasses.replace(model.spec, self_fraction=1.0))
    for controller in (p2p.Replace(cross=1.0, self_attn=1.0), p2p.Refine(cross=1.0, self_attn=1.0)):
        latents = p2p.edit(model, SOURCE, SOURCE, controller, steps=4).latents
        assert float((latents[1] - latents[0]).abs().max()) <= 1e-10


def oracle_of(name: str, source: str, target: str, model: DiffusionModel) -> Published:
    """Cross 0.6 and self 0.5 of 5 steps: int(0.6 * 6) = 3 and int(0.5 * 5) = 2."""
    tokenizer, width = model.tokenizer, model.spec.max_tokens
    swap = lambda: Swap(swap_mapper(source, target, tokenizer, width, as_released=False))  # noqa: E731  # a formula
    refine = lambda: Refinement(  # noqa: E731  # a formula
        *refinement_mapper(tokenizer(source).input_ids, tokenizer(target).input_ids, width)
    )
    weights = torch.ones(width, dtype=torch.float64)
    weights[3] = 2.5  # "circle", one token after "a" and the colour
    edits = {
        "replace": swap,
        "refine": refine,
        "reweight": lambda: Scaling(weights),
        "replace and reweight": lambda: Scaling(weights, swap()),
    }
    return Published(edits[name](), 3, 2, model.spec.self_fraction)


@pytest.mark.parametrize(
    ("name", "target", "controller"),
    [
        ("replace", SWAPPED, p2p.Replace(cross=0.6, self_attn=0.5)),
        ("replace", "a mirror circle on grass", p2p.Replace(cross=0.6, self_attn=0.5)),
        ("refine", LONGER, p2p.Refine(cross=0.6, self_attn=0.5)),
        ("reweight", SOURCE, p2p.Reweight({"circle": 2.5}, cross=0.6, self_attn=0.5)),
        (
            "replace and reweight",
            SWAPPED,
            p2p.Reweight({"circle": 2.5}, cross=0.6, inner=p2p.Replace(cross=0.6, self_attn=0.5)),
        ),
    ],
)
def test_equals_the_written_out_edit(name: str, target: str, controller: p2p.Controller) -> None:
    model = tiny_model()
    edits = [MapRow(1, 0, oracle_of(name, SOURCE, target, model))]
    noise = initial_noise(3, SHAPE).double()
    expected = naive_sampling(model, [SOURCE, target], noise, 5, edits=edits)
    result = p2p.edit(model, SOURCE, target, controller, seed=3, steps=5, guidance=7.5)
    assert float((result.latents - expected).abs().max()) <= 1e-10
    plain = p2p.edit(model, SOURCE, target, seed=3, steps=5, guidance=7.5)
    assert float((result.latents[1] - plain.latents[1]).abs().max()) > 1e-3


def test_several_targets_with_their_own_controllers_equal_one_at_a_time() -> None:
    model = tiny_model()
    targets = [SWAPPED, LONGER, SOURCE, OTHER]
    controllers = [p2p.Replace(0.6, 0.5), p2p.Refine(0.9, 0.2), p2p.Reweight({"red": -1.0}), p2p.NoControl()]
    together = p2p.edit(model, SOURCE, targets, controllers, steps=4)
    for index, (target, controller) in enumerate(zip(targets, controllers, strict=True), start=1):
        alone = p2p.edit(model, SOURCE, target, controller, steps=4)
        assert torch.allclose(together.latents[0], alone.latents[0], atol=1e-10)
        assert torch.allclose(together.latents[index], alone.latents[1], atol=1e-10)
        assert torch.allclose(together.maps[index], alone.maps[1], atol=1e-6)
        assert together.target_rows[index - 1] == alone.target_rows[0]


def requests() -> list[p2p.EditRequest]:
    replace, refine = p2p.Replace(0.6, 0.5), p2p.Refine(0.6, 0.5)
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1))
    two = (p2p.Target(SWAPPED, replace), p2p.Target(LONGER, refine))
    return [
        p2p.EditRequest("first", SOURCE, two, seed=1),
        p2p.EditRequest("real", SOURCE, two[:1], image=image, inversion=p2p.DDIMInversion()),
        p2p.EditRequest("second", OTHER, (p2p.Target(OTHER, p2p.Reweight({"mirror": 2.0})),), seed=2),
        p2p.EditRequest("real too", OTHER, two[1:], image=image.flip(1), inversion=p2p.DDIMInversion()),
        p2p.EditRequest("unguided", SOURCE, two, seed=3, guidance=1.0),
    ]


def test_results_do_not_depend_on_batches() -> None:
    model = tiny_model()
    with counted_rows(model) as sizes:
        together = run_edits(model, requests(), steps=3, record=True)
    for max_rows in (1, 7, 11):
        with counted_rows(model) as smaller:
            apart = run_edits(model, requests(), steps=3, record=True, max_rows=max_rows)
        assert max(smaller) <= max(max_rows, 4)
        assert sum(smaller) == sum(result.unet_rows for result in apart)
        for one, other in zip(together, apart, strict=True):
            assert one.id == other.id
            assert torch.allclose(one.latents, other.latents, atol=1e-10)
            assert torch.allclose(one.images, other.images, atol=1e-6)
            again = other.source_rows * (other.source_passes - 1)  # a large request is sampled in parts
            assert one.unet_rows == other.unet_rows - again
            assert all(torch.allclose(one.maps[row], other.maps[row], atol=1e-6) for row in one.maps)
    assert max(sizes) > 11
    assert sum(sizes) == sum(result.unet_rows for result in together)


def test_unet_rows_are_what_went_through_the_network() -> None:
    model = tiny_model()
    with counted_rows(model) as sizes:
        results = run_edits(model, requests(), steps=3)
    assert sum(result.unet_rows for result in results) == sum(sizes)
    costs = [(result.inversion_rows, result.source_rows, result.target_rows) for result in results]
    assert costs == [(0, 6, (6, 6)), (3, 6, (6,)), (0, 6, (6,)), (3, 6, (6,)), (0, 3, (3, 3))]


def test_guidance_one_takes_no_unconditional_pass_and_changes_nothing_else() -> None:
    model = tiny_model()
    result = p2p.edit(model, SOURCE, SWAPPED, p2p.Replace(0.6, 0.5), guidance=1.0, steps=5, seed=3)
    edits = [MapRow(1, 0, oracle_of("replace", SOURCE, SWAPPED, model))]
    expected = naive_sampling(model, [SOURCE, SWAPPED], initial_noise(3, SHAPE), 5, combine=1.0, edits=edits)
    assert float((result.latents - expected).abs().max()) <= 1e-10
    assert (result.source_rows, result.target_rows) == (5, (5,))


def test_eta_adds_the_samples_own_noise() -> None:
    model = tiny_model()
    first = p2p.edit(model, SOURCE, SOURCE, eta=1.0, steps=3, seed=5)
    assert torch.allclose(first.latents[0], first.latents[1], atol=1e-10)
    assert torch.equal(first.latents, p2p.edit(model, SOURCE, SOURCE, eta=1.0, steps=3, seed=5).latents)
    noise = initial_noise(5, SHAPE)
    other = p2p.edit(model, SOURCE, SOURCE, eta=1.0, steps=3, seed=6, noise=noise)
    assert not torch.allclose(first.latents, other.latents, atol=1e-3)


def test_heatmaps_are_maps_of_the_words() -> None:
    model = tiny_model()
    result = p2p.edit(model, SOURCE, [SWAPPED, LONGER], [p2p.Replace(), p2p.Refine(0.3)], steps=3)
    assert torch.allclose(result.maps[0].sum(0), torch.ones(4, 4), atol=1e-5)
    circle = result.heatmap("circle")
    assert circle.shape == (4, 4)
    assert circle.dtype == torch.float32
    assert float(circle.max()) == pytest.approx(1.0)
    assert torch.allclose(circle, result.maps[0][3] / result.maps[0][3].max())
    assert torch.equal(result.heatmap("blue"), result.heatmap("blue", index=1))
    assert not torch.allclose(result.heatmap("circle", 2), circle, atol=1e-3)
    with pytest.raises(PromptError, match="Did you mean 'circle'"):
        result.heatmap("circel")
    with pytest.raises(PromptError, match="blue"):
        result.heatmap("blue", index=0)
    with pytest.raises(P2PError, match="0 to 2"):
        result.heatmap("circle", index=3)
    with pytest.raises(P2PError, match="record=True"):
        p2p.edit(model, SOURCE, SWAPPED, steps=1, record=False).heatmap("circle")


def test_heatmaps_over_steps_layers_and_heads_and_of_several_sizes() -> None:
    model = tiny_model()
    record = p2p.Record(fractions=(0.5, 1.0), apart=("steps", "heads"), self_images=(1,))
    controllers = [p2p.Replace(), p2p.Refine(0.3)]
    result = p2p.edit(model, SOURCE, [SWAPPED, LONGER], controllers, steps=3, record=record)
    plain = p2p.edit(model, SOURCE, [SWAPPED, LONGER], controllers, steps=3)
    assert torch.equal(plain.latents, result.latents)
    assert torch.allclose(result.heatmap("circle", 2), plain.heatmap("circle", 2), atol=1e-6)
    over_steps = result.heatmaps("circle", 2, "steps")
    assert over_steps.shape == (3, 4, 4)
    assert float(over_steps.max()) == pytest.approx(1.0)
    mean = over_steps.mean(0)
    assert torch.allclose(mean / mean.max(), plain.heatmap("circle", 2), atol=1e-6)
    assert not torch.allclose(over_steps[0], over_steps[2], atol=1e-3)
    assert result.heatmaps("circle", 2, "heads").shape == (2, 4, 4)
    assert result.heatmap("circle", 2, fraction=1.0).shape == (8, 8)
    assert result.heatmaps("circle", 2, "steps", fraction=1.0).shape == (3, 8, 8)
    refusals: list[tuple[Any, str]] = [
        (
            lambda: result.heatmaps("circle", 2, "layers"),
            r"apart=\['steps', 'layers', 'heads'\]",
        ),
        (lambda: result.heatmap("circle", fraction=0.25), r"recorded at 0.5, 1.0 .* not at 0.25"),
        (lambda: plain.heatmaps("circle", over="steps"), r"record=Record\(apart=\['steps'\]\)"),
        (lambda: plain.self_components(), r"record=Record\(self_images=\[0\]\)"),
        (lambda: result.self_components(0), "self-attention was recorded of image 1, not of 0"),
        (lambda: result.self_components(1, 17), "expected 1 to 16 components, got 17"),
        (lambda: p2p.Record(apart=("rows",)), "expected any of steps, layers, heads"),
    ]
    for call, said in refusals:
        with pytest.raises(P2PError, match=said):
            call()


def test_self_components_are_those_of_the_written_out_map() -> None:
    model = tiny_model()
    record = p2p.Record(self_images=(0, 1), self_fraction=0.5)
    result = p2p.edit(model, SOURCE, SWAPPED, p2p.Replace(0.6, 0.5), steps=2, record=record, seed=3)
    maps: dict[str, torch.Tensor] = {}
    sums: list[torch.Tensor] = []

    def after(step: int, x: torch.Tensor) -> torch.Tensor:
        kept = [site.name for site in model.sites if site.kind == "self" and site.fraction == 0.5]
        sums.append(torch.stack([maps[name][-2:].mean(1) for name in kept]).mean(0))
        return x

    tokenizer, width = model.tokenizer, model.spec.max_tokens
    swap = Swap(swap_mapper(SOURCE, SWAPPED, tokenizer, width, as_released=False))
    edit = Published(swap, 1, 1, model.spec.self_fraction)
    naive_sampling(
        model, [SOURCE, SWAPPED], initial_noise(3, SHAPE).double(), 2,
        edits=[MapRow(1, 0, edit)], after=after, saved=maps,
    )  # fmt: skip
    for image in (0, 1):
        attention = torch.stack(sums).mean(0)[image]
        parts = torch.linalg.svd(attention - attention.mean(1, keepdim=True))[2][:3]
        found = result.self_components(image).flatten(1)
        assert found.shape == (3, 16)
        for part, component in zip(parts, found, strict=True):
            part = part * part[part.abs().argmax()].sign()
            scaled = (part - part.min()) / (part.max() - part.min())
            assert torch.allclose(component, scaled.float(), atol=1e-3)


def test_a_non_finite_latent_is_named_and_other_samples_survive() -> None:
    model = tiny_model()
    bad = torch.full(SHAPE, torch.inf)
    targets = (p2p.Target(SWAPPED, p2p.Replace(0.6, 0.5)),)
    good = p2p.EditRequest("good", SOURCE, targets, seed=1)
    broken = p2p.EditRequest("broken", SOURCE, targets, noise=bad)
    results = run_edits(model, [good, broken, dataclasses.replace(good, id="too")], steps=3)
    error = results[1].error
    assert isinstance(error, NonFiniteLatentError)
    assert (error.model, error.sample, error.step) == ("tiny", "broken", 0)
    assert bool(results[1].images.isnan().all())
    alone = run_edits(model, [good], steps=3)[0]
    for result in (results[0], results[2]):
        assert result.error is None
        assert torch.allclose(result.latents, alone.latents, atol=1e-10)
    with pytest.raises(P2PError, match="noise: expected finite values"):
        p2p.edit(model, SOURCE, SWAPPED, noise=bad, steps=2)


def test_a_non_finite_image_is_an_error() -> None:
    model = tiny_model()
    vae = copy.deepcopy(model.vae)
    vae.decoder.conv_out.bias[0] = torch.nan
    with pytest.raises(P2PError, match="VAE of model 'tiny'"):
        p2p.edit(dataclasses.replace(model, vae=vae), SOURCE, SWAPPED, steps=1)


def test_a_broken_target_leaves_the_others() -> None:
    model = tiny_model()
    huge = p2p.Reweight({"circle": 1e308}, inner=p2p.Replace())
    request = p2p.EditRequest("x", SOURCE, (p2p.Target(SWAPPED, huge), p2p.Target(SWAPPED, p2p.Replace())))
    (result,) = run_edits(model, [request], steps=3)
    assert result.errors[0] is None
    assert isinstance(result.errors[1], NonFiniteLatentError)
    assert result.errors[2] is None
    assert torch.allclose(
        result.latents[::2], p2p.edit(model, SOURCE, SWAPPED, p2p.Replace(), steps=3).latents
    )


def test_a_controller_that_does_not_suit_leaves_the_other_targets() -> None:
    model = tiny_model()
    targets = (p2p.Target(SWAPPED, p2p.Replace()), p2p.Target(LONGER, p2p.Replace()), p2p.Target(LONGER))
    (result,) = run_edits(model, [p2p.EditRequest("x", SOURCE, targets)], steps=3, record=True)
    assert [type(error) for error in result.errors] == [type(None), type(None), PromptError, type(None)]
    assert result.target_rows == (6, 0, 6)
    assert sorted(result.maps) == [0, 1, 3]
    assert bool(result.images[2].isnan().all())
    fine = p2p.edit(model, SOURCE, [SWAPPED, LONGER], [p2p.Replace(), p2p.NoControl()], steps=3)
    assert torch.allclose(result.latents[[0, 1, 3]], fine.latents, atol=1e-10)
    assert torch.allclose(result.images[[0, 1, 3]], fine.images, atol=1e-6)


def test_a_request_that_cannot_be_carried_out_has_its_error() -> None:
    model = tiny_model()
    fine = p2p.EditRequest("fine", SOURCE, (p2p.Target(SWAPPED),))
    bad = p2p.EditRequest("bad", SOURCE, (p2p.Target(LONGER, p2p.Replace()), p2p.Target(" ")))
    with counted_rows(model) as sizes:
        refused, done = run_edits(model, [bad, fine], steps=2)
    assert isinstance(refused.error, PromptError)
    assert (refused.unet_rows, refused.images.shape) == (0, (3, 3, 16, 16))
    assert done.error is None
    assert sum(sizes) == done.unet_rows


def test_half_precision_keeps_latents_in_float32() -> None:
    model = tiny_checkpoint().load(dtype=torch.bfloat16)
    result = p2p.edit(model, SOURCE, [SWAPPED, LONGER], [p2p.Replace(0.6, 0.5), p2p.Refine()], steps=3)
    assert result.latents.dtype == torch.float32
    exact = p2p.edit(tiny_model(), SOURCE, [SWAPPED, LONGER], [p2p.Replace(0.6, 0.5), p2p.Refine()], steps=3)
    assert float((result.images - exact.images).abs().max()) < 0.05


def test_a_result_says_what_was_done() -> None:
    controllers = [p2p.ByEdit(), p2p.ByEdit(), p2p.NoControl()]
    result = p2p.edit(tiny_model(), SOURCE, [SWAPPED, SOURCE + " in fog", SWAPPED], controllers, steps=1)
    assert result.controls == ("replace", "refine", "none")


def test_progress_counts_inversion_and_sampling() -> None:
    seen: list[tuple[int, int]] = []
    run_edits(tiny_model(), requests(), steps=3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 9) for done in range(1, 10)]
