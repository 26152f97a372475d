"""FLUX: equal to its diffusers pipeline, guidance as an input or none at all, packing, and the border."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.errors import ConfigError, MissingWeightsError, PromptError
from p2p_bench.inversion.base import unserved
from p2p_bench.models import FluxCheckpoint, LocalCheckpoint
from p2p_bench.models.conditioning import GUIDANCE, POOLED, TEXT
from p2p_bench.models.flux import Flux, packed, positions, unpacked
from p2p_bench.models.layouts import FLUX
from p2p_bench.prompts.words import columns_of
from p2p_bench.sampling import initial_noise
from tests.examples import SOURCE, TARGET
from tests.models.border import Border, distance
from tests.models.small_flux import IMAGE, KINDS, LATENT, T5_WIDTH, small_flux, small_flux_model
from tests.models.tiny import WIDTH

NOISE = initial_noise(3, (4, LATENT, LATENT))


@pytest.fixture(scope="module")
def model() -> Flux:
    return small_flux_model()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkpoint that a test may damage."""
    return Path(shutil.copytree(small_flux().path, tmp_path / "checkpoint"))


def change_json(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


class TestFlux(Border):
    """The family passes what every family has to."""


def pipeline_images(kind: str, output: str, steps: int, **options: Any) -> Tensor:
    """What diffusers makes of `NOISE`, latents unpacked."""
    made = FluxPipeline.from_pretrained(small_flux(kind).path, local_files_only=True)
    made.set_progress_bar_config(disable=True)
    images = made(
        [SOURCE, TARGET], latents=packed(NOISE.expand(2, -1, -1, -1)), num_inference_steps=steps,
        height=IMAGE, width=IMAGE, max_sequence_length=T5_WIDTH, output_type=output, **options,
    ).images  # fmt: skip
    return unpacked(images, LATENT, LATENT) if output == "latent" else images


@pytest.mark.parametrize(("kind", "guidance"), [("dev", 3.5), ("dev", 1.0), ("schnell", 1.0)])
def test_without_control_equals_its_pipeline(kind: str, guidance: float) -> None:
    model = small_flux_model(kind, torch.float32)
    result = p2p.edit(model, SOURCE, TARGET, noise=NOISE, steps=5, guidance=guidance)
    for output, ours in (("latent", result.latents), ("pt", result.images)):
        theirs = pipeline_images(kind, output, 5, guidance_scale=guidance)
        assert distance(ours, theirs) <= 1e-5
        assert distance(ours[0], ours[1]) >= 1e-2
    assert (result.source_rows, result.target_rows) == (5, (5,))


def test_guidance_is_told_to_the_network(model: Flux) -> None:
    one, other = (p2p.edit(model, SOURCE, TARGET, noise=NOISE, steps=3, guidance=g) for g in (1.0, 6.0))
    assert distance(one.latents, other.latents) > 1e-3
    assert model.encode([model.tokenize(SOURCE)])[GUIDANCE].tolist() == [3.5]
    assert small_flux().spec().guidance == 3.5
    by_default = p2p.edit(model, SOURCE, TARGET, noise=NOISE, steps=3)
    told = p2p.edit(model, SOURCE, TARGET, noise=NOISE, steps=3, guidance=3.5)
    assert torch.equal(by_default.latents, told.latents)


@pytest.mark.parametrize("kind", KINDS)
def test_true_guidance_equals_its_pipeline(kind: str) -> None:
    model = small_flux_model(kind, torch.float32, true_cfg=True)
    result = p2p.edit(model, SOURCE, TARGET, noise=NOISE, steps=4, guidance=2.5)
    theirs = pipeline_images(
        kind, "latent", 4, guidance_scale=3.5, true_cfg_scale=2.5, negative_prompt=["", ""]
    )
    assert distance(result.latents, theirs) <= 1e-5
    assert result.source_rows == 8


def test_a_model_distilled_without_guidance_says_so() -> None:
    model = small_flux_model("schnell")
    assert small_flux("schnell").spec().guidance == 1.0
    with pytest.raises(ConfigError, match=r"distilled without .* set sampler\.guidance=1"):
        p2p.edit(model, SOURCE, TARGET, steps=2, guidance=3.5)
    image = torch.rand(3, IMAGE, IMAGE)
    with pytest.raises(p2p.P2PError, match=r"EDICTInversion asks for guidance, .* set inversion\.guidance=1"):
        p2p.edit(model, SOURCE, TARGET, image=image, inversion=p2p.EDICTInversion(), steps=4)
    even = p2p.FlowEdit(source_guidance=1.0, guidance=1.0, strength=1.0)
    assert p2p.edit(model, SOURCE, TARGET, image=image, inversion=even, steps=2).latents.isfinite().all()


def test_methods_that_need_a_pass_without_the_prompt_are_refused(model: Flux) -> None:
    for method in (p2p.NullTextInversion(), p2p.NegativePromptInversion(), p2p.ProximalInversion()):
        fault = unserved(method, model.spec)
        assert fault is not None
        assert "needs passes without the prompt, which model 'dev' of family 'flux'" in str(fault)
        assert unserved(method, small_flux(true_cfg=True).spec()) is None


def test_packing_is_the_pipelines() -> None:
    latents = torch.randn(2, 4, 6, 8)
    tokens = packed(latents)
    assert torch.equal(tokens, FluxPipeline._pack_latents(latents, 2, 4, 6, 8))
    assert torch.equal(unpacked(tokens, 6, 8), latents)
    assert torch.equal(positions(3, 4), FluxPipeline._prepare_latent_image_ids(1, 3, 4, "cpu", torch.float32))


def test_what_is_read_before_weights(model: Flux) -> None:
    spec = small_flux().spec()
    assert (spec.family, spec.image_size, spec.latent_size) == ("flux", (IMAGE, IMAGE), (LATENT, LATENT))
    assert (spec.latent_channels, spec.max_tokens) == (4, T5_WIDTH)
    assert (spec.vae_scaling, spec.vae_shift, spec.guided_by) == (0.3611, 0.1159, "input")
    assert small_flux("schnell").spec().guided_by == "nothing"
    assert small_flux(true_cfg=True).spec().guided_by == "passes"
    assert [site.layer for site in model.sites] == [0, 1, 2, 3]
    assert all(site.joint and site.fraction == 0.5 and site.layers == 4 for site in model.sites)
    found = LocalCheckpoint(small_flux().path, size=IMAGE).spec()
    assert (found.family, found.steps, found.guidance, found.max_tokens) == ("flux", FLUX.steps, 3.5, 512)
    with pytest.raises(ConfigError, match=r"FLUX\.1 leaves no choice of t5"):
        LocalCheckpoint(small_flux().path, t5=False).spec()


def test_the_text_is_t5s_and_the_vector_clips(model: Flux) -> None:
    prompt = model.tokenize("a red fox on grass")
    assert prompt.front == 0
    assert len(prompt.parts) == 1
    assert columns_of(prompt, "red") == (1,)
    assert len(prompt.others[0]) == WIDTH
    encoded = model.encode([prompt, model.tokenize(TARGET)])
    assert (encoded[TEXT].shape, encoded[POOLED].shape) == ((2, T5_WIDTH, 32), (2, 16))
    assert distance(encoded[POOLED][0], encoded[POOLED][1]) > 1e-3


def test_prompts_that_are_too_long_for_one_tokenizer(model: Flux) -> None:
    words = "a red cat on grass in fog and a blue dog on sand in water"
    with pytest.raises(PromptError, match=r"1 token too long: it has 15, its CLIP takes 14"):
        model.tokenize(words)
    assert model.tokenize(words, truncate=True).truncated
    short = FluxCheckpoint(small_flux().path, t5_tokens=8, size=IMAGE).reader()
    with pytest.raises(PromptError, match=r"3 tokens too long: it has 10, its T5 takes 7"):
        short.tokenize("a red cat on grass in fog and a dog")


def test_equal_prompts_under_full_injection_are_the_source(model: Flux) -> None:
    edits = [p2p.Replace(1.0, 1.0), p2p.Refine(1.0, 1.0), p2p.Refine(0.5, 0.0)]
    result = p2p.edit(model, SOURCE, [SOURCE] * 3, edits, steps=3, seed=1)
    assert distance(result.latents[1:], result.latents[:1].expand(3, -1, -1, -1)) <= 1e-6


@pytest.mark.parametrize(
    "file",
    [
        "transformer/diffusion_pytorch_model.safetensors",
        "text_encoder_2/model.safetensors",
        "tokenizer_2/tokenizer.json",
        "tokenizer/vocab.json",
    ],
)
def test_a_missing_file_is_named(copy: Path, file: str) -> None:
    (copy / file).unlink(missing_ok=True)
    if file.startswith("tokenizer/"):
        (copy / "tokenizer/tokenizer.json").unlink(missing_ok=True)
    with pytest.raises(MissingWeightsError, match=file.split("/")[0]) as caught:
        FluxCheckpoint(copy, size=IMAGE).spec()
    assert caught.value.exit_code == 3
    assert "t5=false" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "values", "error", "message"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionPipeline"}, ConfigError, r"expected FLUX\.1"),
        ("transformer/config.json", {"out_channels": 8}, ConfigError, "fill, depth and canny"),
        ("transformer/config.json", {"patch_size": 2}, MissingWeightsError, "patch_size is 2"),
        ("vae/config.json", {"latent_channels": 8}, MissingWeightsError, "latent_channels is 8"),
        ("text_encoder_2/config.json", {"d_model": 17}, MissingWeightsError, "d_model is 17"),
        ("text_encoder/config.json", {"hidden_size": 24}, MissingWeightsError, "hidden_size is 24"),
        ("scheduler/scheduler_config.json", {"shift_terminal": 0.02}, MissingWeightsError, "shift_terminal"),
        ("scheduler/scheduler_config.json", {"use_flow_sigmas": True}, MissingWeightsError, "use_flow_sig"),
        ("scheduler/scheduler_config.json", {"time_shift_type": "x"}, MissingWeightsError, "exponential"),
    ],
)
def test_other_layouts_are_refused(
    copy: Path, file: str, values: dict[str, Any], error: type[Exception], message: str
) -> None:
    change_json(copy / file, **values)
    with pytest.raises(error, match=message):
        FluxCheckpoint(copy, size=IMAGE).spec()


def test_sizes_that_packing_does_not_divide() -> None:
    with pytest.raises(ConfigError, match=r"18 pixels are not cut into patches of 4; take 16 or 20"):
        FluxCheckpoint(small_flux().path, size=18).spec()
