import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from p2p_bench.app.api import load_model
from p2p_bench.errors import ConfigError, MissingWeightsError, P2PError, PromptError
from p2p_bench.models import UNetCheckpoint
from tests.models.tiny import WIDTH, tiny_checkpoint, tiny_model


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkpoint that a test may damage."""
    return Path(shutil.copytree(tiny_checkpoint().path, tmp_path / "checkpoint"))


def change_json(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_spec_is_read_from_the_files() -> None:
    spec = tiny_checkpoint().spec()
    assert (spec.name, spec.family, spec.prediction_type) == ("tiny", "sd", "epsilon")
    assert (spec.latent_channels, spec.latent_size, spec.image_size) == (4, (8, 8), (16, 16))
    assert (spec.max_tokens, spec.vae_scaling, spec.steps) == (WIDTH, 0.5, 4)
    assert tiny_checkpoint("v_prediction").spec().prediction_type == "v_prediction"


def test_tokenizer_is_loaded_without_weights(copy: Path) -> None:
    (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    tokenizer = UNetCheckpoint(copy).tokenizer()
    assert tokenizer.model_max_length == WIDTH
    assert len(tokenizer("a red circle").input_ids) == 5


@pytest.mark.parametrize(
    "file",
    [
        "model_index.json",
        "unet/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "scheduler/scheduler_config.json",
    ],
)
def test_a_missing_file_is_named(copy: Path, file: str) -> None:
    (copy / file).unlink()
    with pytest.raises(MissingWeightsError, match=file.replace(".", r"\.")) as caught:
        UNetCheckpoint(copy).spec()
    assert caught.value.exit_code == 3


def test_a_missing_tokenizer_is_named(copy: Path) -> None:
    shutil.rmtree(copy / "tokenizer")
    for call in (UNetCheckpoint(copy).spec, UNetCheckpoint(copy).tokenizer):
        with pytest.raises(MissingWeightsError, match="tokenizer"):
            call()


def test_pickled_weights_are_refused_with_the_remedy(copy: Path) -> None:
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(MissingWeightsError, match=r"unet/diffusion_pytorch_model\.bin.*p2p-bench convert"):
        UNetCheckpoint(copy).load()


def test_damaged_weights_are_named(copy: Path) -> None:
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(MissingWeightsError, match="vae"):
        UNetCheckpoint(copy).load()


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionXLImg2ImgPipeline"}, "names a .*Img2Img"),
        ("unet/config.json", {"in_channels": 9}, "9 channels"),
        ("unet/config.json", {"addition_embed_type": "text_time"}, "addition_embed_type"),
    ],
)
def test_other_layouts_are_refused(copy: Path, file: str, change: dict[str, object], said: str) -> None:
    change_json(copy / file, **change)
    with pytest.raises(ConfigError, match=said):
        UNetCheckpoint(copy).spec()


def test_broken_json_is_named(copy: Path) -> None:
    (copy / "vae" / "config.json").write_text("{")
    with pytest.raises(MissingWeightsError, match=r"config\.json"):
        UNetCheckpoint(copy).spec()


def test_checksum_is_of_the_contents(copy: Path) -> None:
    before = tiny_checkpoint().spec().checksum
    assert UNetCheckpoint(copy).spec().checksum == before
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert UNetCheckpoint(copy).spec().checksum != before


def test_a_tokenizer_that_fails_at_unknown_letters_is_refused(copy: Path) -> None:
    change_json(copy / "tokenizer" / "tokenizer_config.json", unk_token="")
    with pytest.raises(MissingWeightsError, match=r"unk_token in tokenizer_config\.json has to be one"):
        UNetCheckpoint(copy).tokenizer()


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"])
def test_checksum_is_of_the_tokenizer_settings_too(copy: Path, file: str) -> None:
    before = UNetCheckpoint(copy).spec().checksum
    path = copy / "tokenizer" / file
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.is_file() else {}), "pad": "!"}))
    assert UNetCheckpoint(copy).spec().checksum != before


def test_a_changed_padding_token_is_another_model(copy: Path) -> None:
    before = UNetCheckpoint(copy)
    read, checksum = before.reader().tokenize("a red circle").ids, before.spec().checksum
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        if (copy / "tokenizer" / file).is_file():
            change_json(copy / "tokenizer" / file, pad_token="a</w>")
    after = UNetCheckpoint(copy)
    assert after.reader().tokenize("a red circle").ids != read
    assert after.spec().checksum != checksum


def test_half_precision_weights_are_loaded_as_asked(copy: Path) -> None:
    for file in copy.rglob("*.safetensors"):
        save_file({key: value.half() for key, value in load_file(file).items()}, file, {"format": "pt"})
    model = UNetCheckpoint(copy).load()
    kinds = {p.dtype for part in (model.unet, model.vae, model.text_encoder) for p in part.parameters()}
    assert kinds == {torch.float32}
    assert not any(p.requires_grad for p in model.unet.parameters())
    weight = model.unet.conv_in.weight
    assert torch.equal(weight, tiny_model(torch.float32).unet.conv_in.weight.half().float())


def test_variant_names_the_weight_files(copy: Path) -> None:
    for file in copy.rglob("*.safetensors"):
        file.rename(file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))
    with pytest.raises(MissingWeightsError, match=r"unet/diffusion_pytorch_model\.safetensors"):
        UNetCheckpoint(copy).spec()
    assert UNetCheckpoint(copy, variant="fp16").load().dtype == torch.float32


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"dtype": "float8"}, "model.dtype"),
        ({"steps": 0}, "model.steps"),
        ({"guidance": float("nan")}, "model.guidance"),
        ({"self_fraction": 0.0}, "model.self_fraction"),
        ({"record_fraction": 1.5}, "model.record_fraction"),
    ],
)
def test_bad_values_are_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        UNetCheckpoint("nowhere", **values)


def test_absent_checkpoints(tmp_path: Path) -> None:
    for path, said in (
        (tmp_path / "no", "no directory"),
        ("nobody/no-such-model", "hf download nobody/no-such-model"),
    ):
        with pytest.raises(MissingWeightsError, match=said):
            UNetCheckpoint(path).spec()


def test_load_model_by_directory_and_by_name() -> None:
    model = load_model(tiny_checkpoint().path, dtype=torch.float64)
    assert model.dtype == torch.float64
    assert model.spec.checksum == tiny_checkpoint().spec().checksum
    with pytest.raises(ConfigError, match="Did you mean 'world'"):
        load_model("wrld")
    with pytest.raises(MissingWeightsError, match="no directory"):
        load_model("no/such/folder")
    with pytest.raises(P2PError, match=r"model\.path"):
        load_model("local")


def test_embeddings_and_images() -> None:
    model = tiny_model()
    both = model.encode_prompts(["a red circle", ""])
    assert torch.allclose(both[:1], model.encode_prompts(["a red circle"]), atol=1e-12)
    long = "a red circle and a blue square and a green star on grass and sand"
    with pytest.raises(PromptError, match="too long"):
        model.encode_prompts([long])
    assert model.encode_prompts([long], truncate=True).shape == (1, WIDTH, 16)
    images = torch.rand(9, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    latents = model.encode_images(images)
    assert latents.shape == (9, 4, 8, 8)
    decoded = model.decode_latents(latents)
    assert decoded.dtype == torch.float32
    assert 0 <= float(decoded.min()) <= float(decoded.max()) <= 1
    assert torch.allclose(decoded[8:], model.decode_latents(latents[8:]), atol=1e-6)
