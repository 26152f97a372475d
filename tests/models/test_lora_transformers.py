"""LoRA on flow transformers and their text encoders."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.errors import MissingWeightsError
from p2p_bench.models import LocalCheckpoint
from tests.examples import SOURCE, TARGET
from tests.models.small_flux import small_flux
from tests.models.small_sd3 import small_sd3
from tests.models.test_lora import RANK, change, factors

CHECKPOINTS = {"sd3": small_sd3, "flux": small_flux}
ALPHA = 4.0
OTHER = "none of its layers are this model's"
TEXT = "text_model.encoder.layers.1.self_attn.q_proj"
T5 = "encoder.block.0.layer.0.SelfAttention.q"
LAYERS = {
    "sd3": {
        "transformer": ["transformer_blocks.0.attn.to_q", "transformer_blocks.1.ff.net.0.proj", "proj_out"],
        "text_encoder": [TEXT],
        "text_encoder_2": [TEXT],
        "text_encoder_3": [T5],
    },
    "flux": {
        "transformer": ["transformer_blocks.0.attn.to_out.0", "single_transformer_blocks.0.attn.to_v",
                        "single_transformer_blocks.0.proj_mlp", "x_embedder"],
        "text_encoder": [TEXT],
        "text_encoder_2": [T5],
    },
}  # fmt: skip


def networks(family: str, model: Any) -> dict[str, Any]:
    return dict(zip(LAYERS[family], (model.transformer, *model.encoders), strict=True))


def weight(network: Any, path: str) -> Tensor:
    """By the path with or without the level that came and went between releases of transformers."""
    modules = dict(network.named_modules())
    return modules.get(path, modules.get(path.removeprefix("text_model."))).weight


def written(folder: Path, family: str, model: Any, layout: str) -> Path:
    """A file of factors for each of the layers; PEFT's own holds those of the transformer alone."""
    state, peft = {}, layout == "peft"
    for seed, (network, path) in enumerate(pairs(family)):
        if peft and network != "transformer":
            continue
        down, up = factors(weight(networks(family, model)[network], path).shape, seed)
        name = f"base_model.model.{path}" if peft else f"{network}.{path}"
        state |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    head = {f"{network}.lora_alpha": ALPHA for network in LAYERS[family]}
    file = folder / "adapter_model.safetensors"
    save_file(state, file, metadata=None if peft else {"lora_adapter_metadata": json.dumps(head)})
    if peft:
        (folder / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": ALPHA}))
    return file


def pairs(family: str) -> list[tuple[str, str]]:
    return [(network, path) for network, paths in LAYERS[family].items() for path in paths]


@pytest.mark.parametrize("layout", ["diffusers", "peft"])
@pytest.mark.parametrize("family", CHECKPOINTS)
def test_a_lora_is_added_to_the_weights(tmp_path: Path, family: str, layout: str) -> None:
    checkpoint = CHECKPOINTS[family]()
    plain = checkpoint.load()
    file = str(written(tmp_path, family, plain, layout))
    own = dataclasses.replace(checkpoint, lora=[file, 0.5])
    model = own.load()
    for seed, (network, path) in enumerate(pairs(family)):
        before, after = (weight(networks(family, one)[network], path) for one in (plain, model))
        added = 0.5 * (ALPHA / RANK) * change(*factors(before.shape, seed))
        expected = before if layout == "peft" and network != "transformer" else before + added
        torch.testing.assert_close(after, expected, atol=1e-6, rtol=0)
    lora = {f"{network}.{path}.weight" for network, path in pairs(family)}
    for network, module in networks(family, model).items():
        for name, one in networks(family, plain)[network].state_dict().items():
            if f"{network}.{name}" not in lora and f"{network}.text_model.{name}" not in lora:
                assert torch.equal(module.state_dict()[name], one), name
    edits = [p2p.edit(one, SOURCE, TARGET, p2p.Replace(0.5), steps=2, guidance=1.0) for one in (plain, model)]
    assert all(edit.error is None for edit in edits)
    assert float((edits[0].images[1] - edits[1].images[1]).abs().max()) > 1e-3


@pytest.mark.parametrize("family", CHECKPOINTS)
def test_what_decides_numbers_is_told_apart(tmp_path: Path, family: str) -> None:
    checkpoint = CHECKPOINTS[family]()
    file = str(written(tmp_path, family, checkpoint.load(), "diffusers"))
    made = [dataclasses.replace(checkpoint, lora=lora) for lora in (None, [file, 0.5], [file, 0.4])]
    sums = [one.spec().checksum for one in made]
    assert len(set(sums)) == 3
    local = LocalCheckpoint(
        checkpoint.path, "mine", lora=[file, 0.5], t5_tokens=checkpoint.t5_tokens, size=checkpoint.size
    )
    assert local.spec().checksum == sums[1]


@pytest.mark.parametrize("family", CHECKPOINTS)
@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("lora_unet_double_blocks_0_img_attn_proj.lora_{}.weight", OTHER),
        ("double_blocks.0.processor.proj_lora1.{}.weight", "of a layout that is not known here"),
        ("diffusion_model.double_blocks.0.img_attn.proj.lora_{}.weight", OTHER),
        ("unet.down_blocks.0.attentions.0.proj_in.lora_{}.weight", OTHER),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, family: str, key: str, said: str) -> None:
    ends = ("down", "up") if "unet_" in key or "processor" in key else ("A", "B")
    down, up = factors(torch.Size((8, 8)), 0)
    state = {key.format(end): one for end, one in zip(ends, (down, up), strict=True)}
    save_file(state, tmp_path / "other.safetensors")
    checkpoint = dataclasses.replace(CHECKPOINTS[family](), lora=[str(tmp_path / "other.safetensors"), 1.0])
    with pytest.raises(MissingWeightsError, match=said):
        checkpoint.load()
