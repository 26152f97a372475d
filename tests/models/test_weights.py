"""Weights are all there, and are those of the network, or nothing is loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from p2p_bench.errors import ConfigError, MissingWeightsError
from p2p_bench.models import UNetCheckpoint
from tests.models.tiny import WIDTH, tiny_checkpoint

State = dict[str, Tensor]
PARTS = {
    "text_encoder": "model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}
HARM: dict[str, Callable[[State, str], None]] = {
    "missing": lambda state, key: state.pop(key),  # type: ignore[dict-item]  # what it returns is of no use
    "of another shape": lambda state, key: state.update({key: torch.cat([state[key]] * 2)}),
    "not finite": lambda state, key: state[key].view(-1)[:1].fill_(torch.nan),  # type: ignore[dict-item]  # in place
    "not of this network": lambda state, key: state.update({f"{key}.more": state[key].clone()}),
    "all zero": lambda state, key: state[key].zero_(),  # type: ignore[dict-item]  # in place
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkpoint that a test may damage."""
    return Path(shutil.copytree(tiny_checkpoint().path, tmp_path / "checkpoint"))


def change(folder: Path, part: str, harm: Callable[[State], State | None]) -> None:
    file = folder / part / PARTS[part]
    state = {key: value.clone() for key, value in load_file(file).items()}
    changed = harm(state)
    save_file(state if changed is None else changed, file, {"format": "pt"})


def change_json(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_layer_of_the_text_encoder_that_is_not_there(copy: Path) -> None:
    def without_layer(state: State) -> State:
        return {key: value for key, value in state.items() if ".layers.1." not in key}

    change(copy, "text_encoder", without_layer)
    with pytest.raises(
        MissingWeightsError, match=r"text_encoder .*missing: .*layers\.1\..* and 12 more"
    ) as caught:
        UNetCheckpoint(copy).load()
    assert caught.value.exit_code == 3


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_subset_of_tensors_that_is_harmed_is_refused(data: st.DataObject) -> None:
    part, kind = data.draw(st.sampled_from(sorted(PARTS))), data.draw(st.sampled_from(sorted(HARM)))
    state = load_file(Path(tiny_checkpoint().path) / part / PARTS[part])
    suited = [key for key, value in sorted(state.items()) if kind != "all zero" or value.ndim > 1]
    keys = data.draw(st.sets(st.sampled_from(suited), min_size=1, max_size=len(suited)))
    with TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(tiny_checkpoint().path, Path(folder) / "checkpoint"))
        change(copy, part, lambda harmed: [HARM[kind](harmed, key) for key in keys] and None)
        with pytest.raises(MissingWeightsError, match=f"{part} .*{kind}: ") as caught:
            UNetCheckpoint(copy).load()
    assert any(key in str(caught.value) for key in keys)


def test_what_published_checkpoints_hold_is_loaded(copy: Path) -> None:
    """Buffers of older releases, their names of attention layers, biases of zero, shards."""
    plain = UNetCheckpoint(copy).load()

    def older(state: State) -> State:
        names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
        for new, old in names.items():
            state = {key.replace(new, old): value for key, value in state.items()}
        assert any("proj_attn" in key for key in state)
        return state

    def prefixed(state: State) -> State:
        state = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in state.items()}
        return state | {"text_model.embeddings.position_ids": torch.arange(WIDTH)[None]}

    change(copy, "vae", older)
    change(copy, "text_encoder", prefixed)
    shutil.rmtree(copy / "unet")
    plain.unet.save_pretrained(copy / "unet", max_shard_size="30KB")
    model = UNetCheckpoint(copy).load()
    for one, other in (
        (plain.unet, model.unet),
        (plain.vae, model.vae),
        (plain.text_encoder, model.text_encoder),
    ):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    change(
        copy, "vae", lambda state: {k: v * (0 if k.endswith("conv_in.bias") else 1) for k, v in state.items()}
    )
    assert UNetCheckpoint(copy).load().vae is not None


def test_settings_that_the_library_leaves_out_are_named(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    change_json(copy / "unet/config.json", _note="x", is_new=None)
    UNetCheckpoint(copy).load()
    assert not caplog.records
    change_json(copy / "unet/config.json", rotary_embedding=True, _diffusers_version="99.0.0")
    UNetCheckpoint(copy).load()
    assert "does not know rotary_embedding and leaves it out" in caplog.text


def test_weights_are_not_rounded_to_the_format_that_a_configuration_names(copy: Path) -> None:
    """Of text encoders in float32, whose configuration says float16."""
    plain = UNetCheckpoint(copy).load()
    change_json(copy / "text_encoder/config.json", dtype="float16", torch_dtype="float16")
    pairs = zip(
        plain.text_encoder.parameters(), UNetCheckpoint(copy).load().text_encoder.parameters(), strict=True
    )
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_shard_without_what_its_index_promises(copy: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(copy / "unet", use_safetensors=True, low_cpu_mem_usage=False)
    shutil.rmtree(copy / "unet")
    unet.save_pretrained(copy / "unet", max_shard_size="30KB")
    shard = sorted((copy / "unet").glob("*.safetensors"))[1]
    state = load_file(shard)
    gone = sorted(state)[0]
    del state[gone]
    save_file(state or {"other": torch.ones(1)}, shard, {"format": "pt"})
    with pytest.raises(MissingWeightsError, match=f"unet .*missing: {gone}"):
        UNetCheckpoint(copy).spec()


@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        ("unet/config.json", {"_class_name": "UNet3DConditionModel"}, "_class_name .*expected UNet2D"),
        ("vae/config.json", {"_class_name": "AutoencoderTiny"}, "expected AutoencoderKL; take a"),
        ("text_encoder/config.json", {"architectures": ["T5EncoderModel"]}, "architectures"),
        ("text_encoder/config.json", {"max_position_embeddings": "x"}, 'max_position_embeddings is "x"'),
        ("text_encoder/config.json", {"hidden_size": 24}, "hidden_size is 24, expected the cross_"),
        ("text_encoder/config.json", {"vocab_size": 30}, "they belong to different models"),
        ("text_encoder/config.json", {"vocab_size": 49408}, "they belong to different models"),
        ("text_encoder/config.json", {"num_hidden_layers": 3}, "text_encoder .*missing: "),
        ("text_encoder/config.json", {"num_attention_heads": "two"}, 'num_attention_heads is "two"'),
        ("text_encoder/config.json", {"num_attention_heads": 0}, "num_attention_heads is 0"),
        ("unet/config.json", {"attention_head_dim": -1}, "attention_head_dim is -1"),
        ("vae/config.json", {"norm_num_groups": 0}, "norm_num_groups is 0"),
        ("unet/config.json", {"sample_size": None}, "sample_size is null"),
        ("unet/config.json", {"block_out_channels": [16, 48]}, "unet .*of another shape"),
        ("unet/config.json", {"down_block_types": ["NoBlock", "NoBlock"]}, "unet.* cannot be read"),
        ("unet/config.json", {"cross_attention_dim": [1, "2"]}, "cross_attention_dim"),
        ("vae/config.json", {"block_out_channels": 8.5}, r"block_out_channels is 8\.5"),
        ("vae/config.json", {"block_out_channels": []}, "block_out_channels is"),
        ("vae/config.json", {"scaling_factor": 0}, "scaling_factor is 0, expected a number above 0"),
        ("vae/config.json", {"latent_channels": 16}, "latent_channels"),
        ("scheduler/scheduler_config.json", {"prediction_type": "noise"}, "prediction_type is 'noise'"),
        ("scheduler/scheduler_config.json", {"beta_schedule": 3}, "beta_schedule"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 0}, "num_train_timesteps is 0"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": "1000"}, "num_train_timesteps is '1000'"),
        ("scheduler/scheduler_config.json", {"beta_end": 2}, "beta_end is 2"),
        ("scheduler/scheduler_config.json", {"trained_betas": [0.1, None]}, "trained_betas"),
    ],
)  # fmt: skip
def test_configurations_that_are_wrong(copy: Path, file: str, values: dict[str, object], said: str) -> None:
    change_json(copy / file, **values)
    with pytest.raises(MissingWeightsError, match=said) as caught:
        UNetCheckpoint(copy).load()
    assert file.split("/")[0] in str(caught.value)


@pytest.mark.parametrize("text", ["[1, 2]", "null", '"text"', "{", "\xff", "[" * 100_000])
@pytest.mark.parametrize("file", ["unet/config.json", "scheduler/scheduler_config.json", "model_index.json"])
def test_json_that_is_no_object(copy: Path, file: str, text: str) -> None:
    (copy / file).write_bytes(text.encode("latin-1"))
    with pytest.raises(MissingWeightsError, match=file.split("/")[-1]):
        UNetCheckpoint(copy).load()


@pytest.mark.parametrize("text", ["{}", "[]", "not json"])
@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.json", "tokenizer_config.json"])
def test_tokenizers_that_cannot_be_read(copy: Path, file: str, text: str) -> None:
    (copy / "tokenizer" / file).write_text(text)
    if file == "vocab.json":
        (copy / "tokenizer" / "tokenizer.json").unlink()
    try:
        UNetCheckpoint(copy).tokenizer()
    except MissingWeightsError as error:
        assert "tokenizer" in str(error)  # noqa: PT017  # the library makes do with some of these


def test_a_directory_in_the_place_of_a_file(copy: Path) -> None:
    for file in ("unet/config.json", "vae/diffusion_pytorch_model.safetensors", "tokenizer/tokenizer.json"):
        damaged = Path(shutil.copytree(copy, copy.parent / file.replace("/", "-")))
        (damaged / file).unlink()
        (damaged / file).mkdir()
        if file.startswith("tokenizer"):
            (damaged / "tokenizer" / "vocab.json").unlink()
        with pytest.raises(MissingWeightsError, match=file):
            UNetCheckpoint(damaged).spec()


@pytest.mark.parametrize("length", [0, 4, 200, 3000])
def test_a_file_that_is_cut_short_shows_before_anything_is_loaded(copy: Path, length: int) -> None:
    file = copy / "unet" / PARTS["unet"]
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(MissingWeightsError, match="unet"):
        UNetCheckpoint(copy).spec()


@pytest.mark.parametrize(
    ("device", "said"),
    [("gpu", "expected cpu, cuda"), ("meta", "cannot compute"), ("cuda:99", "cannot compute in float32")],
)
def test_devices_that_are_not_there(device: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tiny_checkpoint().load(device)


def test_values_too_large_for_the_number_format(copy: Path) -> None:
    change(copy, "unet", lambda state: state | {"conv_in.weight": state["conv_in.weight"] * 1e7})
    assert UNetCheckpoint(copy).load().dtype == torch.float32
    with pytest.raises(MissingWeightsError, match=r"not finite: conv_in\.weight"):
        UNetCheckpoint(copy).load(dtype=torch.float16)


def test_loading_draws_nothing_from_the_global_generator() -> None:
    before = torch.random.get_rng_state()
    tiny_checkpoint().load()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_merges_that_are_not_there_are_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_checkpoint().path, tmp_path / "model")
    (folder / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)
    whole = UNetCheckpoint(folder, name="tiny").tokenizer()
    assert whole("a red cat").input_ids == tiny_checkpoint().tokenizer()("a red cat").input_ids
    merges = folder / "tokenizer" / "merges.txt"
    lines = merges.read_text().splitlines()
    for kept in (0, 1, len(lines) - 1):
        merges.write_text("\n".join(lines[:kept]))
        with pytest.raises(MissingWeightsError, match=r"merges\.txt lacks the merges of"):
            UNetCheckpoint(folder, name="tiny").tokenizer()


@pytest.mark.parametrize("part", PARTS)
def test_weights_that_are_no_floating_point_numbers_are_refused(copy: Path, part: str) -> None:
    """Libraries take quantized weights without their scale for numbers."""
    keys: list[str] = []

    def quantized(state: State) -> State:
        keys.append(next(key for key in sorted(state) if state[key].ndim > 1))
        return state | {
            keys[0]: (50 * state[keys[0]]).to(torch.int8),
            "embeddings.position_ids": torch.arange(3),
        }

    change(copy, part, quantized)
    with pytest.raises(
        MissingWeightsError, match=rf"{part} .*floating-point numbers: {keys[0]} \(I8\); quant"
    ):
        UNetCheckpoint(copy).spec()
