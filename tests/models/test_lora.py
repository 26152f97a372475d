"""LoRA and textual inversion: what their files say is what the weights become, or why not."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.errors import ConfigError, MissingWeightsError
from p2p_bench.models import LocalCheckpoint, UNetCheckpoint
from p2p_bench.models.conditioning import POOLED, TEXT
from p2p_bench.models.lora import _original
from p2p_bench.prompts.words import columns_of
from tests.examples import SOURCE, TARGET
from tests.models.small import small_checkpoint
from tests.models.tiny import tiny_checkpoint, tiny_model

LINEAR = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
CONV = "up_blocks.1.resnets.0.conv1"
TEXT_LAYER = "encoder.layers.1.self_attn.q_proj"
RANK = 2


def weight(model: Any, path: str) -> Tensor:
    return model.get_submodule(path).weight


def factors(shape: torch.Size, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    kernel = (1,) * (len(shape) - 2)
    down, up = (
        torch.randn(RANK, *shape[1:], generator=generator),
        torch.randn(shape[0], RANK, *kernel, generator=generator),
    )
    return down, up


def change(down: Tensor, up: Tensor) -> Tensor:
    return (up.flatten(1) @ down.flatten(1)).reshape(len(up), *down.shape[1:])


def files(folder: Path, layout: str) -> Path:
    """A LoRA of a linear layer, a convolution and a layer of the text encoder."""
    model = tiny_model(torch.float32)
    encoder = model.text_encoder
    full = next(path for path, _ in encoder.named_modules() if path.endswith(TEXT_LAYER))
    shapes = [weight(model.unet, LINEAR).shape, weight(model.unet, CONV).shape, weight(encoder, full).shape]
    pairs = [factors(shape, seed) for seed, shape in enumerate(shapes)]
    text = f"text_model.{TEXT_LAYER}"
    names = {
        "peft": [f"unet.{LINEAR}", f"unet.{CONV}", f"text_encoder.{text}"],
        "diffusers": [f"unet.{LINEAR}".replace(".to_k", ".processor.to_k"), f"unet.{CONV}",
                      f"text_encoder.{text}"],
        "kohya": [f"lora_unet_{LINEAR}", f"lora_unet_{CONV}", f"lora_te_{text}"],
        "original": [f"lora_unet_{_original(LINEAR, model.unet)}", f"lora_unet_{_original(CONV, model.unet)}",
                     f"lora_te1_{text}"],
    }[layout]  # fmt: skip
    state: dict[str, Tensor] = {}
    for name, (down, up) in zip(names, pairs, strict=True):
        if layout in ("kohya", "original"):
            flat = name.replace(".", "_")
            state |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
            state[f"{flat}.alpha"] = torch.tensor(4.0)
        elif layout == "peft":
            state |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
        else:
            ends = ("_lora.down", "_lora.up") if "processor" in name else (".lora.down", ".lora.up")
            state |= {f"{name}{ends[0]}.weight": down, f"{name}{ends[1]}.weight": up}
    head = {"unet.lora_alpha": 4, "unet.r": RANK, "text_encoder.lora_alpha": 4, "text_encoder.r": RANK}
    metadata = {"lora_adapter_metadata": json.dumps(head)} if layout in ("peft", "diffusers") else {}
    path = folder / f"{layout}.safetensors"
    save_file({key: one.contiguous() for key, one in state.items()}, path, metadata=metadata)
    return path


@pytest.mark.parametrize("layout", ["peft", "diffusers", "kohya", "original"])
def test_a_lora_is_added_to_the_weights(tmp_path: Path, layout: str) -> None:
    plain, path = tiny_model(torch.float32), files(tmp_path, layout)
    checkpoint = dataclasses.replace(tiny_checkpoint(), lora=[str(path), 0.5])
    model = checkpoint.load()
    full = next(path for path, _ in model.text_encoder.named_modules() if path.endswith(TEXT_LAYER))
    layers = [("unet", LINEAR), ("unet", CONV), ("text_encoder", full)]
    for seed, (part, name) in enumerate(layers):
        before, after = (weight(getattr(one, part), name) for one in (plain, model))
        expected = before + 0.5 * (4.0 / RANK) * change(*factors(before.shape, seed))
        torch.testing.assert_close(after, expected, atol=1e-6, rtol=0)
    other = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"
    assert torch.equal(weight(model.unet, other), weight(plain.unet, other))
    sums = [
        tiny_checkpoint().spec(),
        checkpoint.spec(),
        dataclasses.replace(checkpoint, lora=[str(path), 0.4]).spec(),
    ]
    assert len({spec.checksum for spec in sums}) == 3, "what decides numbers is told apart"
    assert LocalCheckpoint(checkpoint.path, "tiny", lora=[str(path), 0.5]).spec().checksum == sums[1].checksum
    two = dataclasses.replace(checkpoint, lora=[[str(path), 0.3], [str(path), 0.2]]).load()
    torch.testing.assert_close(weight(two.unet, CONV), weight(model.unet, CONV), atol=1e-6, rtol=0)


def test_a_lora_of_another_model_is_refused(tmp_path: Path) -> None:
    def refused(state: dict[str, Tensor], said: str) -> None:
        save_file(state, tmp_path / "bad.safetensors")
        with pytest.raises(MissingWeightsError, match=said):
            dataclasses.replace(tiny_checkpoint(), lora=[str(tmp_path / "bad.safetensors"), 1.0]).load()

    down, up = torch.ones(RANK, 16), torch.ones(16, RANK)
    pair = {f"unet.{LINEAR}.lora_A.weight": down, f"unet.{LINEAR}.lora_B.weight": up}
    elsewhere = {key.replace("blocks.0", "blocks.7"): one.clone() for key, one in pair.items()}
    refused(elsewhere, "none of its layers are this model's.*blocks.7")
    refused({**pair, **elsewhere}, "1 of 2 of its layers are this model's.*blocks.7")
    refused({**pair, f"unet.{LINEAR}.hada_w1_a": up.clone()}, "hada_w1_a is of a layout that is not known")
    refused({f"unet.{LINEAR}.lora_A.weight": down}, "lacks a factor")
    refused({**pair, f"unet.{LINEAR}.lora_A.weight": torch.ones(RANK, 5)}, "for a weight of")
    refused({**pair, f"unet.{LINEAR}.lora_B.weight": up * float("nan")}, "not finite")
    refused({**pair, f"unet.{LINEAR}.lora_B.weight": up * 0}, "changes nothing")
    (tmp_path / "style.bin").write_bytes(b"pickle")
    for lora, error, said in (
        ([str(tmp_path / "style.bin"), 1.0], MissingWeightsError, "pickle.*safetensors"),
        ([str(tmp_path / "none.safetensors"), 1.0], MissingWeightsError, "no file"),
        (["a.safetensors", "much"], ConfigError, r"expected \[PATH, SCALE\]"),
    ):
        with pytest.raises(error, match=said):
            dataclasses.replace(tiny_checkpoint(), lora=lora).spec()


def test_the_layers_of_the_original_code() -> None:
    unet = tiny_model(torch.float32).unet
    for path, original in (
        ("conv_in", "input_blocks.0.0"),
        ("time_embedding.linear_2", "time_embed.2"),
        ("down_blocks.0.resnets.0.time_emb_proj", "input_blocks.1.0.emb_layers.1"),
        ("down_blocks.0.downsamplers.0.conv", "input_blocks.2.0.op"),
        ("down_blocks.1.attentions.0.proj_in", "input_blocks.3.1.proj_in"),
        ("mid_block.resnets.1.conv2", "middle_block.2.out_layers.3"),
        ("mid_block.attentions.0.proj_out", "middle_block.1.proj_out"),
        ("up_blocks.0.attentions.1.proj_in", "output_blocks.1.1.proj_in"),
        ("up_blocks.0.upsamplers.0.conv", "output_blocks.1.2.conv"),
        ("up_blocks.1.resnets.1.conv_shortcut", "output_blocks.3.0.skip_connection"),
    ):
        assert _original(path, unet) == original


def pair(network: str = "unet.") -> dict[str, Tensor]:
    down, up = factors(weight(tiny_model(torch.float32).unet, LINEAR).shape, 0)
    return {f"{network}{LINEAR}.lora_A.weight": down, f"{network}{LINEAR}.lora_B.weight": up}


def strength(
    file: Path, state: dict[str, Tensor], settings: dict[str, Any] | None = None, **head: Any
) -> float:
    """How much of the product of its two factors a file adds to a layer."""
    save_file(state, file, metadata={"lora_adapter_metadata": json.dumps(head)} if head else None)
    if settings is not None:
        (file.parent / "adapter_config.json").write_text(json.dumps(settings))
    made = dataclasses.replace(tiny_checkpoint(), lora=[str(file), 1.0]).load()
    added = weight(made.unet, LINEAR) - weight(tiny_model(torch.float32).unet, LINEAR)
    product = change(*pair().values())
    factor = float((added * product).sum() / (product**2).sum())
    torch.testing.assert_close(added, factor * product, atol=1e-5, rtol=0)
    return factor


def test_the_scale_that_peft_keeps_beside_the_file(tmp_path: Path) -> None:
    file = tmp_path / "adapter_model.safetensors"
    own = {"peft_type": "LORA", "r": RANK, "lora_alpha": 8, "init_lora_weights": True}
    for network in ("base_model.model.", "base_model.model.unet.", "unet."):
        assert strength(file, pair(network), own) == pytest.approx(8 / RANK)
    before = dataclasses.replace(tiny_checkpoint(), lora=[str(file), 1.0]).spec().checksum
    assert strength(file, pair(), {**own, "lora_alpha": 2}) == pytest.approx(2 / RANK)
    assert dataclasses.replace(tiny_checkpoint(), lora=[str(file), 1.0]).spec().checksum != before
    with pytest.raises(MissingWeightsError, match=r"PEFT's own layout.*adapter_config\.json"):
        strength(tmp_path / "other.safetensors", pair("base_model.model."))
    text = {key.replace(LINEAR, f"text_model.{TEXT_LAYER}"): one for key, one in pair("").items()}
    save_file({f"base_model.model.{key}": one for key, one in text.items()}, file)
    encoder = dataclasses.replace(tiny_checkpoint(), lora=[str(file), 1.0]).load().text_encoder
    full = next(path for path, _ in encoder.named_modules() if path.endswith(TEXT_LAYER))
    assert not torch.equal(weight(encoder, full), weight(tiny_model(torch.float32).text_encoder, full))


@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        ({"lora_alpha": 6, "rank_pattern": {LINEAR: RANK}, "r": 8}, 6 / RANK),
        ({"lora_alpha": 6, "alpha_pattern": {"attn2.to_k": 5, "to_q": 7}}, 5 / RANK),
        ({"lora_alpha": 6, "alpha_pattern": {"^attn2.to_k": 5, r".*\.1\..*": 7}}, 6 / RANK),
        ({"lora_alpha": 6, "use_rslora": True}, 6 / RANK**0.5),
    ],
)
def test_ranks_and_alphas_by_layer(tmp_path: Path, settings: dict[str, Any], factor: float) -> None:
    head = {f"unet.{key}": value for key, value in settings.items()}
    assert strength(tmp_path / "style.safetensors", pair(), **head) == pytest.approx(factor, rel=1e-5)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ({"unet.use_dora": True}, "trained with use_dora"),
        ({"unet.init_lora_weights": "pissa_niter_4"}, "trained with init_lora_weights=pissa"),
        ({"unet.lora_alpha": "x"}, "alpha of unet.*'x', no number"),
        ({"unet.lora_alpha": None}, "alpha of unet.*'None', no number"),
        ({"unet.alpha_pattern": [1]}, "alpha_pattern"),
        ({"unet.alpha_pattern": {"(": 1}}, "alpha_pattern"),
    ],
)
def test_settings_that_cannot_be_heeded(tmp_path: Path, head: dict[str, Any], said: str) -> None:
    with pytest.raises(MissingWeightsError, match=said):
        strength(tmp_path / "style.safetensors", pair(), **head)


def test_a_lora_that_is_damaged_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bad.safetensors"
    down, up = pair().values()
    flat = f"lora_unet_{LINEAR}".replace(".", "_")
    kohya = {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
    empty = {f"{flat}.lora_down.weight": down[:0], f"{flat}.lora_up.weight": up[:, :0]}
    for state, said in (
        ({**kohya, f"{flat}.alpha": torch.ones(2)}, "alpha of .*no number"),
        ({**kohya, f"{flat}.lora_down.weight": torch.tensor(1.0)}, "for a weight of"),
        (empty, "for a weight of"),
        ({key: one.to(torch.int8) for key, one in kohya.items()}, "of whole numbers"),
        ({**kohya, **pair()}, "are the same layer"),
        ({**pair(), f"unet.{LINEAR}.lora.down.weight": down}, "there twice"),
    ):  # fmt: skip
        with pytest.raises(MissingWeightsError, match=said):
            strength(file, {key: one.clone() for key, one in state.items()})
    for text in ("{", "[1]"):
        save_file(pair(), file, metadata={"lora_adapter_metadata": text})
        with pytest.raises(MissingWeightsError, match="lora_adapter_metadata is no"):
            dataclasses.replace(tiny_checkpoint(), lora=[str(file), 1.0]).load()
    with pytest.raises(MissingWeightsError, match=r"it is a folder: give one of its files, bad\.safetensors"):
        dataclasses.replace(tiny_checkpoint(), lora=[str(tmp_path), 1.0]).spec()


def learnt(folder: Path, state: dict[str, Tensor], name: str = "mine") -> str:
    save_file(state, folder / f"{name}.safetensors")
    return str(folder / f"{name}.safetensors")


def test_a_learnt_word_has_columns_and_embeddings(tmp_path: Path) -> None:
    vectors = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    one, two = learnt(tmp_path, {"<cat-toy>": vectors[0]}, "one"), learnt(tmp_path, {"emb_params": vectors})
    checkpoint = dataclasses.replace(tiny_checkpoint(), embeddings=[one, two])
    model = checkpoint.load()
    prompt = model.tokenize("a <cat-toy> and mine on grass")
    assert [len(word.columns) for word in prompt.words] == [1, 1, 1, 2, 1, 1]
    assert (columns_of(prompt, "<cat-toy>"), columns_of(prompt, "mine")) == ((2,), (4, 5))
    assert checkpoint.reader().tokenize("a <cat-toy> and mine on grass") == prompt
    table = model.text_encoder.get_input_embeddings().weight
    assert torch.equal(table[[prompt.ids[column] for column in (2, 4, 5)]], torch.cat([vectors[:1], vectors]))
    plain = tiny_model(torch.float32)
    assert torch.equal(model.encode_prompts([SOURCE]), plain.encode_prompts([SOURCE]))
    edited = p2p.edit(
        model, "a red circle on grass", "a <cat-toy> circle on grass", p2p.Replace(0.5), steps=2
    )
    assert edited.error is None
    assert checkpoint.spec().checksum != tiny_checkpoint().spec().checksum


def test_learnt_words_are_read_whatever_their_case_and_beginning(tmp_path: Path) -> None:
    vectors = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    files = [
        learnt(tmp_path, {"emb_params": vectors[:2]}, "sty"),
        learnt(tmp_path, {"emb_params": vectors[2:]}, "style"),
        learnt(tmp_path, {"<Toy>": vectors[0]}, "toy"),
    ]
    reader = dataclasses.replace(tiny_checkpoint(), embeddings=files).reader()
    prompt = reader.tokenize("a Style and sty and <toy>")
    assert [len(word.columns) for word in prompt.words] == [1, 2, 1, 2, 1, 1]
    known = tiny_checkpoint().reader().tokenize("a").ids[-1]
    assert all(prompt.ids[column] > known for column in (2, 3, 5, 6, 8))
    assert prompt.ids[2:4] == reader.tokenize("style").ids[1:3]
    other = learnt(tmp_path, {"emb_params": vectors[:2]}, "STYLE")
    with pytest.raises(ConfigError, match="two files have the same word"):
        dataclasses.replace(tiny_checkpoint(), embeddings=[*files, other]).reader()


def test_a_learnt_word_is_read_where_it_is_meant(tmp_path: Path) -> None:
    """Not within other words, unless it begins or ends with a mark; composed; by the name of a link."""
    vectors = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    (tmp_path / "blobs").mkdir()
    blob = Path(learnt(tmp_path / "blobs", {"emb_params": vectors}, "0a1b"))
    (tmp_path / "ly.safetensors").symlink_to(blob)
    files = [
        str(tmp_path / "ly.safetensors"),
        learnt(tmp_path, {"emb_params": vectors[:1]}, "zz"),
        learnt(tmp_path, {"<x>": vectors}, "other"),
        learnt(tmp_path, {"emb_params": vectors}, "cafe\u0301"),
    ]
    reader = dataclasses.replace(tiny_checkpoint(), embeddings=files).reader()
    known = max(tiny_checkpoint().reader().tokenize("a red circle").ids)

    def new(prompt: str) -> int:
        return sum(number > known for number in reader.tokenize(prompt).ids)

    assert [new(one) for one in ("ly", "a LY, red", "(ly)", "ly's", "ly-ly")] == [2, 2, 2, 2, 4]
    assert [new(one) for one in ("only", "lyre", "ly2", "zzz", "a pizza")] == [0] * 5
    assert [new(one) for one in ("zz", "zz.", "<x>", "<x>s", "a<x>", "caf\u00e9", "\u017f")] == [
        1,
        1,
        2,
        2,
        2,
        2,
        0,
    ]
    plain = tiny_checkpoint().reader()
    assert reader.tokenize("only a pizza").ids == plain.tokenize("only a pizza").ids


def test_a_word_that_another_file_calls_its_vector_is_refused(tmp_path: Path) -> None:
    vectors = torch.randn(3, 16)
    files = [learnt(tmp_path, {"emb_params": vectors[:2]}, "style"),
             learnt(tmp_path, {"emb_params": vectors[2:]}, "Style_1")]  # fmt: skip
    for order in (files, files[::-1]):
        with pytest.raises(ConfigError, match=r"'style_1' is the word of a file, and .* another"):
            dataclasses.replace(tiny_checkpoint(), embeddings=order).reader()


def test_a_checkpoint_that_was_saved_with_a_word_of_several_tokens(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint().path, tmp_path / "checkpoint"))
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    vectors = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    pipeline.load_textual_inversion(learnt(tmp_path, {"<toy>": vectors}))
    pipeline.save_pretrained(folder)
    model = LocalCheckpoint(folder).load()
    prompt = model.tokenize("a <toy> on grass")
    assert [len(word.columns) for word in prompt.words] == [1, 3, 1, 1]
    wanted, _ = pipeline.encode_prompt("a <toy> on grass", "cpu", 1, False)
    torch.testing.assert_close(model.encode([prompt])[TEXT], wanted)


def test_learnt_words_of_two_text_encoders(tmp_path: Path) -> None:
    state = {"clip_l": torch.randn(1, 16), "clip_g": torch.randn(1, 24)}
    sdxl = small_checkpoint("sdxl")
    model = dataclasses.replace(sdxl, embeddings=learnt(tmp_path, state)).load()
    row, plain = (one.encode([one.tokenize("a mine on grass")]) for one in (model, sdxl.load()))
    assert row[TEXT].shape == plain[TEXT].shape
    same = [one.encode([one.tokenize(TARGET)]) for one in (model, sdxl.load())]
    assert torch.equal(same[0][TEXT], same[1][TEXT])
    assert torch.equal(same[0][POOLED], same[1][POOLED])
    # The pooled vector is that of the end of the text, not of the word with the highest id.
    (other,) = model.tokenize("a mine on grass").others
    hidden = model.encoders[1](torch.tensor([other]), output_hidden_states=True)
    end = other.index(model.reader.second.tokenizer.eos_token_id)
    expected = model.encoders[1].text_projection(hidden.last_hidden_state[0, end])
    torch.testing.assert_close(hidden.text_embeds[0], expected)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"<toy>": torch.ones(24)}, r"text encoders of widths \[24\], this model has \[16\]"),
        ({"clip_l": torch.ones(1, 16), "clip_g": torch.ones(1, 24)}, r"\[16, 24\], this model has \[16\]"),
        ({"a": torch.ones(16), "b": torch.ones(16)}, "layout that is not known"),
        ({"<toy>": torch.full((16,), torch.nan)}, "not finite"),
        ({"<toy>": torch.ones(1, 2, 16)}, r"it holds \(1, 2, 16\) of float32, expected one vector"),
        ({"<toy>": torch.ones(0, 16)}, r"it holds \(0, 16\)"),
        ({"<toy>": torch.ones(1, 16, dtype=torch.int8)}, "of int8"),
    ],
)
def test_a_word_of_another_model_is_refused(tmp_path: Path, state: dict[str, Tensor], said: str) -> None:
    checkpoint = dataclasses.replace(tiny_checkpoint(), embeddings=learnt(tmp_path, state))
    with pytest.raises(MissingWeightsError, match=said):
        checkpoint.spec()


def test_a_word_that_is_known_is_refused(tmp_path: Path) -> None:
    checkpoint: UNetCheckpoint = dataclasses.replace(
        tiny_checkpoint(), embeddings=learnt(tmp_path, {"circle": torch.ones(16)})
    )
    with pytest.raises(ConfigError, match="'circle' is a token already"):
        checkpoint.reader()
