"""Stable Diffusion 3: equal to its diffusers pipeline, words in two blocks of columns, and the border."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

import p2p_bench as p2p
from p2p_bench.controllers import EditContext
from p2p_bench.errors import ConfigError, MissingWeightsError, PromptError
from p2p_bench.models import LocalCheckpoint, SD3Checkpoint
from p2p_bench.models.conditioning import POOLED, TEXT
from p2p_bench.models.flow_levels import flow_layout
from p2p_bench.models.layouts import STABLE_DIFFUSION_3
from p2p_bench.models.sd3 import StableDiffusion3
from p2p_bench.prompts.blocks import phrase_blocks, refinement_blocks, replacement_blocks
from p2p_bench.prompts.words import columns_of
from p2p_bench.sampling import initial_noise
from tests.examples import SOURCE, TARGET
from tests.models.border import Border, distance
from tests.models.small_sd3 import IMAGE, KINDS, LATENT, T5_WIDTH, small_sd3, small_sd3_model
from tests.models.tiny import WIDTH

GUIDANCE = 4.0


@pytest.fixture(scope="module")
def model() -> StableDiffusion3:
    return small_sd3_model()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkpoint that a test may damage."""
    return Path(shutil.copytree(small_sd3().path, tmp_path / "checkpoint"))


def change_json(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


class TestStableDiffusion3(Border):
    """The family passes what every family has to."""


def pipeline(kind: str) -> StableDiffusion3Pipeline:
    absent = {"text_encoder_3": None, "tokenizer_3": None} if kind == "without_t5" else {}
    made = StableDiffusion3Pipeline.from_pretrained(small_sd3(kind).path, local_files_only=True, **absent)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_without_control_equals_its_pipeline(kind: str) -> None:
    noise = initial_noise(3, (4, LATENT, LATENT))
    for guidance in (GUIDANCE, 1.0):
        result = p2p.edit(
            small_sd3_model(kind, torch.float32), SOURCE, TARGET, noise=noise, steps=5, guidance=guidance
        )
        for output, ours in (("latent", result.latents), ("pt", result.images)):
            theirs = pipeline(kind)(
                [SOURCE, TARGET], latents=noise.expand(2, -1, -1, -1).clone(), num_inference_steps=5,
                guidance_scale=guidance, height=IMAGE, width=IMAGE, max_sequence_length=T5_WIDTH,
                output_type=output,
            ).images  # fmt: skip
            assert distance(ours, theirs) <= 1e-5
            assert distance(ours[0], ours[1]) >= 1e-2


def test_t5_that_is_left_out_is_zeros() -> None:
    checkpoint = SD3Checkpoint(small_sd3().path, t5=False, t5_tokens=T5_WIDTH)
    model = checkpoint.load()
    text = model.encode([model.tokenize(SOURCE)])[TEXT]
    assert text.shape == (1, WIDTH + T5_WIDTH, 48)
    assert not text[:, WIDTH:].any()
    assert text[:, :WIDTH, : 16 + 24].any()
    assert not text[:, :WIDTH, 16 + 24 :].any()
    assert (checkpoint.spec().max_tokens, small_sd3().spec().max_tokens) == (WIDTH + T5_WIDTH,) * 2
    assert checkpoint.spec().checksum != small_sd3().spec().checksum
    noise = initial_noise(3, (4, LATENT, LATENT))
    ours = p2p.edit(model, SOURCE, TARGET, noise=noise, steps=3, guidance=GUIDANCE)
    made = StableDiffusion3Pipeline.from_pretrained(
        small_sd3().path, local_files_only=True, text_encoder_3=None, tokenizer_3=None
    )
    made.set_progress_bar_config(disable=True)
    theirs = made(
        [SOURCE, TARGET], latents=noise.expand(2, -1, -1, -1).clone(), num_inference_steps=3,
        guidance_scale=GUIDANCE, height=IMAGE, width=IMAGE, max_sequence_length=T5_WIDTH,
        output_type="latent",
    ).images  # fmt: skip
    assert distance(ours.latents, theirs) <= 1e-5


@pytest.mark.parametrize("steps", [1, 2, 10, 28, 50])
@pytest.mark.parametrize(
    "options",
    [{"shift": 3.0}, {"shift": 1.0}, {"use_dynamic_shifting": True, "max_shift": 1.2}],
)
def test_the_ladder_is_the_schedulers(steps: int, options: dict[str, Any]) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(**options)
    layout = flow_layout(dict(scheduler.config), tokens=1024)
    for from_one in (False, True):
        extra: dict[str, Any] = {"mu": layout.mu} if "use_dynamic_shifting" in options else {}
        if from_one:
            scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / steps, steps).tolist(), **extra)
            layout = flow_layout(dict(scheduler.config), tokens=1024, from_one=True)
        else:
            scheduler.set_timesteps(steps, **extra)
        assert layout.sigmas(steps) == pytest.approx(scheduler.sigmas[:-1].tolist(), abs=2e-7)


def test_what_is_read_before_weights(model: StableDiffusion3) -> None:
    spec = small_sd3().spec()
    assert (spec.family, spec.image_size, spec.latent_size) == ("sd3", (IMAGE, IMAGE), (LATENT, LATENT))
    assert (spec.vae_scaling, spec.vae_shift, spec.prediction_type) == (1.5305, 0.0609, "flow")
    ladder = model.ladder(4)
    assert [level.timestep for level in ladder[:2]] == [1000.0, pytest.approx(857.6, abs=0.5)]
    assert (ladder[-1].alpha, ladder[-1].sigma) == (1.0, 0.0)
    assert all(level.alpha + level.sigma == pytest.approx(1) for level in ladder)
    spec = LocalCheckpoint(small_sd3().path, t5_tokens=9).spec()
    assert (spec.family, spec.steps, spec.max_tokens) == ("sd3", STABLE_DIFFUSION_3.steps, WIDTH + 9)
    assert isinstance(LocalCheckpoint(small_sd3().path).load(), StableDiffusion3)


def test_images_become_latents_as_in_the_pipeline(model: StableDiffusion3) -> None:
    image = torch.rand(1, 3, IMAGE, IMAGE, generator=torch.Generator().manual_seed(0)).double()
    vae = model.vae
    mean = vae.encode(2 * image - 1).latent_dist.mean
    latents = model.encode_images(image)
    torch.testing.assert_close(latents, (mean - 0.0609) * 1.5305)
    expected = vae.decode(latents / 1.5305 + 0.0609).sample / 2 + 0.5
    torch.testing.assert_close(model.decode_latents(latents), expected.clamp(0, 1).float())


def test_another_size_is_sampled_at_that_size() -> None:
    model = SD3Checkpoint(small_sd3().path, size=24, t5_tokens=T5_WIDTH).load()
    assert model.spec.latent_size == (12, 12)
    result = p2p.edit(model, SOURCE, TARGET, p2p.Replace(1.0, 0.5), steps=2)
    assert result.images.shape == (2, 3, 24, 24)


def test_words_have_columns_in_both_blocks(model: StableDiffusion3) -> None:
    prompt = model.tokenize("a red fox, on grass")
    clip, t5 = prompt.parts
    assert (prompt.width, clip.width, t5.width) == (WIDTH + T5_WIDTH, WIDTH, T5_WIDTH)
    assert prompt.ids == clip.ids + t5.ids
    assert [word.bare for word in prompt.words] == ["a", "red", "fox", "on", "grass"]
    for word in ("red", "fox", "grass"):
        own = columns_of(clip, word), columns_of(t5, word)
        assert columns_of(prompt, word) == (*own[0], *(WIDTH + column for column in own[1]))
    assert len(columns_of(clip, "fox")) != len(columns_of(t5, "fox"))
    assert columns_of(clip, "red") == (2,)
    assert columns_of(t5, "red") == (1,)


def test_maps_are_those_of_each_tokenizer(model: StableDiffusion3) -> None:
    source, target, longer = (
        model.tokenize(text) for text in ("a red fox on grass", "a blue cat on grass", "a cat on soft grass")
    )
    named = {"red fox": "cat"}
    cases = (
        (target, replacement_blocks, {}),
        (longer, refinement_blocks, {}),
        (longer, phrase_blocks, {"phrases": named}),
    )
    for other, of_blocks, options in cases:
        matrix, aligned = of_blocks(source, other, **options)
        own = [of_blocks(*pair, **options) for pair in zip(source.parts, other.parts, strict=True)]
        assert torch.equal(matrix, torch.block_diag(*(one for one, _ in own)))
        assert torch.equal(aligned, torch.cat([one for _, one in own]))
        assert not torch.equal(own[0][0], own[1][0][:WIDTH, :WIDTH])
    # A word that one tokenizer cuts into more pieces than the other.
    matrix, _ = replacement_blocks(source, target)
    for start, old, new in zip((0, WIDTH), source.parts, target.parts, strict=True):
        fox, (cat,) = columns_of(old, "fox"), columns_of(new, "cat")
        assert matrix[:, start + cat].nonzero().flatten().tolist() == [start + column for column in fox]
    edit = p2p.InjectWords(["grass"], 1.0).bind(EditContext(source, longer, 4, 0.5)).cross[0]
    for start, old, new in zip((0, WIDTH), source.parts, longer.parts, strict=True):
        (row,), (column,) = columns_of(old, "grass"), columns_of(new, "grass")
        assert edit.L.values[start + row, start + column] == 1
        assert edit.R.values[start + column] == 0
    assert float(edit.L.values.sum()) == 2


def test_a_timetable_names_the_columns_of_both_blocks(model: StableDiffusion3) -> None:
    source, target = model.tokenize(SOURCE), model.tokenize(TARGET)
    table = str(p2p.Replace(1.0, 0.0).bind(EditContext(source, target, 4, 0.5)))
    (line,) = [line for line in table.splitlines() if line.split()[:1] == ["blue"]]
    assert line.split()[1:4] == ["2,", f"{WIDTH + 1}", "red"]


def test_without_t5_its_columns_are_padding() -> None:
    model = small_sd3_model("without_t5")
    source, target = model.tokenize(SOURCE), model.tokenize(TARGET)
    for matrix, aligned in (replacement_blocks(source, target), refinement_blocks(source, target)):
        assert torch.equal(matrix[WIDTH:, WIDTH:], torch.eye(T5_WIDTH, dtype=torch.float64))
        assert aligned[WIDTH:].all()
    assert columns_of(target, "blue") == (2,)
    result = p2p.edit(model, SOURCE, [TARGET, SOURCE], p2p.Replace(1.0, 1.0), steps=3, seed=1)
    assert distance(result.latents[2], result.latents[0]) <= 1e-10
    assert distance(result.latents[1], result.latents[0]) > 1e-3


@pytest.mark.parametrize("kind", ["sd3_medium", "sd35_medium"])
def test_equal_prompts_under_full_injection_are_the_source(kind: str) -> None:
    model = small_sd3_model(kind)
    edits = [p2p.Replace(1.0, 1.0), p2p.Refine(1.0, 1.0), p2p.Refine(0.5, 0.0)]
    result = p2p.edit(model, SOURCE, [SOURCE] * 3, edits, steps=3, seed=1)
    assert distance(result.latents[1:], result.latents[:1].expand(3, -1, -1, -1)) <= 1e-10


def test_prompts_that_are_too_long_for_one_tokenizer(model: StableDiffusion3) -> None:
    words = "a red cat on grass in fog and a blue dog on sand"
    long_for_clip = f"{words} in water"
    with pytest.raises(PromptError, match=r"1 token too long: it has 15, its CLIP takes 14"):
        model.tokenize(long_for_clip)
    cut = model.tokenize(long_for_clip, truncate=True)
    assert [part.truncated for part in cut.parts] == [True, False]
    assert columns_of(cut, "water") == (WIDTH + 14,)
    assert cut.words[-1].bare == "water"
    short = SD3Checkpoint(small_sd3().path, t5_tokens=8).reader()
    with pytest.raises(PromptError, match=r"6 tokens too long: it has 13, its T5 takes 7"):
        short.tokenize(words)
    assert [part.truncated for part in short.tokenize(words, truncate=True).parts] == [False, True]


def test_the_pooled_vector_stays_the_targets_own(model: StableDiffusion3) -> None:
    pooled = model.encode([model.tokenize(SOURCE), model.tokenize(TARGET)])[POOLED]
    assert pooled.shape == (2, 32)
    assert distance(pooled[0], pooled[1]) > 1e-3


def test_spacing_is_refused(model: StableDiffusion3) -> None:
    with pytest.raises(ConfigError, match="no 'trailing' spacing; leave it at null"):
        p2p.edit(model, SOURCE, TARGET, steps=3, spacing="trailing")
    with pytest.raises(ConfigError, match=r"steps: expected 1 to 1000 .* got 1001"):
        model.ladder(1001)


@pytest.mark.parametrize(
    "file",
    [
        "transformer/diffusion_pytorch_model.safetensors",
        "text_encoder_2/model.safetensors",
        "text_encoder_3/config.json",
        "tokenizer_3/tokenizer.json",
        "vae/config.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_a_missing_file_is_named(copy: Path, file: str) -> None:
    (copy / file).unlink()
    with pytest.raises(MissingWeightsError, match=file.replace(".", r"\.")) as caught:
        SD3Checkpoint(copy).spec()
    assert caught.value.exit_code == 3
    of_t5 = file.startswith(("text_encoder_3", "tokenizer_3"))
    assert ("model.t5=false does without T5" in str(caught.value)) == of_t5
    if of_t5:
        assert SD3Checkpoint(copy, t5=False).spec().family == "sd3"


@pytest.mark.parametrize(
    ("file", "values", "error", "message"),
    [
        (
            "model_index.json",
            {"_class_name": "StableDiffusionPipeline"},
            ConfigError,
            "expected Stable Diffusion 3",
        ),
        ("transformer/config.json", {"out_channels": 3}, MissingWeightsError, "out_channels is 3"),
        ("transformer/config.json", {"patch_size": 3}, MissingWeightsError, "patch_size is 3"),
        (
            "transformer/config.json",
            {"sample_size": 9},
            ConfigError,
            "18 pixels are not cut into patches",
        ),
        ("vae/config.json", {"latent_channels": 8}, MissingWeightsError, "latent_channels is 8"),
        ("text_encoder_3/config.json", {"d_model": 17}, MissingWeightsError, "d_model is 17"),
        ("text_encoder_2/config.json", {"hidden_size": 400}, MissingWeightsError, "hidden_size is 400"),
        ("text_encoder_2/config.json", {"projection_dim": 8}, MissingWeightsError, "projection_dim is 8"),
        ("scheduler/scheduler_config.json", {"use_karras_sigmas": True}, MissingWeightsError, "karras"),
        ("scheduler/scheduler_config.json", {"_class_name": "DDIM"}, MissingWeightsError, "FlowMatchEuler"),
        ("scheduler/scheduler_config.json", {"shift": -1}, MissingWeightsError, "shift is -1"),
    ],
)
def test_other_layouts_are_refused(
    copy: Path, file: str, values: dict[str, Any], error: type[Exception], message: str
) -> None:
    change_json(copy / file, **values)
    with pytest.raises(error, match=message):
        SD3Checkpoint(copy).spec()


def test_sizes_that_cannot_be() -> None:
    path = small_sd3().path
    with pytest.raises(ConfigError, match=r"15 pixels are not cut into patches of 4; take 12 or 16"):
        SD3Checkpoint(path, size=15).spec()
    with pytest.raises(ConfigError, match="expected 48 pixels at most"):
        SD3Checkpoint(path, size=52).spec()
