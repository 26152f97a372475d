"""Stable Diffusion XL: its own pipeline's pictures, its two tokenizers, its empty prompt, and the border."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from transformers import CLIPTokenizer

import p2p_bench as p2p
from p2p_bench.errors import MissingWeightsError, PromptError
from p2p_bench.models import DiffusionModel, UNetCheckpoint
from p2p_bench.models.conditioning import POOLED, TEXT
from p2p_bench.models.sdxl import TwoClipReader
from p2p_bench.models.tokenizer import TokenizerReader
from p2p_bench.sampling import initial_noise
from tests.models.border import Border
from tests.models.small import padded_with_mark, small_checkpoint, small_model, with_mark

PROMPTS = ("a red circle on grass", "a blue circle on grass")


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    return small_model("sdxl")


class TestStableDiffusionXL(Border):
    """The family passes what every family has to."""


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of diffusers' Euler scheduler
@pytest.mark.parametrize("unprompted", ["zeros", "encoded"])
def test_without_control_equals_its_pipeline(unprompted: str) -> None:
    checkpoint = small_checkpoint("sdxl")
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        checkpoint.path, add_watermarker=False, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    model = UNetCheckpoint(checkpoint.path, unprompted=unprompted).load()
    noise = initial_noise(3, (4, 16, 16)).float()
    result = p2p.edit(model, PROMPTS[0], PROMPTS[1], noise=noise, steps=5, guidance=6.0)
    wanted = pipeline(
        list(PROMPTS),
        negative_prompt=None if unprompted == "zeros" else ["", ""],
        # Euler's scheduler starts from noise at its own scale.
        latents=noise.expand(2, -1, -1, -1).clone(),
        num_inference_steps=5,
        guidance_scale=6.0,
        height=32,
        width=32,
        output_type="pt",
    ).images
    assert float((result.images - wanted).abs().max()) <= 1e-5
    assert float((result.images[0] - result.images[1]).abs().max()) >= 1e-2


def test_what_is_read_before_weights() -> None:
    spec = small_checkpoint("sdxl").spec()
    assert (spec.family, spec.image_size, spec.latent_size) == ("sdxl", (32, 32), (16, 16))
    assert (spec.vae_scaling, spec.unprompted, spec.timesteps.offset) == (0.13025, "zeros", 1)
    assert UNetCheckpoint(small_checkpoint("sdxl").path, unprompted="encoded").spec().unprompted == "encoded"


@pytest.mark.parametrize(
    ("said", "wide"), [({}, True), ({"force_upcast": True}, True), ({"force_upcast": False}, False)]
)
def test_the_vae_is_wide_where_half_precision_overflows(
    tmp_path: Path, said: dict[str, bool], wide: bool
) -> None:
    folder = Path(shutil.copytree(small_checkpoint("sdxl").path, tmp_path / "copy"))
    file = folder / "vae" / "config.json"
    config = json.loads(file.read_text())
    del config["force_upcast"]
    file.write_text(json.dumps(config | said))
    model = UNetCheckpoint(folder).load(dtype=torch.float16)
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False, local_files_only=True)
    assert (model.vae.dtype, model.unet.dtype) == (torch.float32 if wide else torch.float16, torch.float16)
    assert pipeline.vae.config.force_upcast == wide


def test_the_unconditional_pass_is_told_zeros_and_sizes() -> None:
    model = small_model("sdxl")
    empty = model.unconditional()
    assert not empty[TEXT].any()
    assert not empty[POOLED].any()
    assert empty["time_ids"].tolist() == [[32.0, 32.0, 0.0, 0.0, 32.0, 32.0]]


def test_both_encoders_are_given_the_same_columns() -> None:
    reader = small_checkpoint("sdxl").reader()
    prompt = reader.tokenize("a red cat")
    (other,) = prompt.others
    assert other[: prompt.num_tokens + 2] == prompt.encoded
    assert set(other[prompt.num_tokens + 2 :]) == {0}
    assert 0 not in prompt.ids


def test_prompts_that_the_tokenizers_read_apart_are_refused() -> None:
    reader = small_checkpoint("sdxl").reader()
    once = reader.tokenize("a cat!")
    assert (once.ids[3], once.others[0][3]) == (1, 0)
    with pytest.raises(
        PromptError, match=r"target 'wow!! a cat'.* '!' in different numbers of tokens \(6 and 7"
    ):
        reader.tokenize("wow!! a cat", role="target")


def test_tokenizers_that_part_by_word_and_not_in_all_are_refused(tmp_path: Path) -> None:
    """One word of a token less and one of a token more leave as many tokens, in other columns."""
    known = with_mark(tmp_path / "first").get_vocab()
    vocabulary = {**known, "'s</w>": len(known)}
    (tmp_path / "first" / "vocab.json").write_text(json.dumps(vocabulary))
    with (tmp_path / "first" / "merges.txt").open("a") as file:
        file.write("' s</w>\n")
    second = padded_with_mark(tmp_path / "first", tmp_path / "second")
    first = CLIPTokenizer.from_pretrained(tmp_path / "first")
    reader = TwoClipReader(TokenizerReader(first), TokenizerReader(second))
    text = "a cat!'s dog on sand!! star"
    counts = [len(one(text).input_ids) for one in (first, second)]
    assert counts[0] == counts[1]
    with pytest.raises(PromptError, match="two tokenizers cut '!' otherwise, so words have other columns"):
        reader.tokenize(text)
    assert reader.tokenize("a cat's dog on sand! star").others


def test_words_that_one_of_them_cannot_read_are_told() -> None:
    read = small_checkpoint("sdxl").reader().tokenize("a red \u732b on sand")
    assert read.unread == ("\u732b",)


def test_a_folder_that_is_not_whole(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(small_checkpoint("sdxl").path, folder)
    (folder / "text_encoder_2" / "model.safetensors").unlink()
    with pytest.raises(MissingWeightsError, match=r"missing: text_encoder_2/model\.safetensors"):
        UNetCheckpoint(folder).spec()


def test_encoders_that_do_not_fit_the_network(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(small_checkpoint("sdxl").path, folder)
    file = folder / "text_encoder_2" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "hidden_size": 48}))
    with pytest.raises(MissingWeightsError, match="hidden_size is 48"):
        UNetCheckpoint(folder).spec()


def test_every_part_is_in_the_checksum(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(small_checkpoint("sdxl").path, folder)
    before = UNetCheckpoint(folder).spec().checksum
    for file in ("tokenizer_2/tokenizer_config.json", "text_encoder_2/config.json"):
        assert (folder / file).is_file()
    other = folder / "text_encoder_2" / "model.safetensors"
    from safetensors.torch import load_file, save_file

    tensors = load_file(other)
    tensors["text_projection.weight"] += 1
    save_file(tensors, other, metadata={"format": "pt"})
    assert UNetCheckpoint(folder).spec().checksum != before
