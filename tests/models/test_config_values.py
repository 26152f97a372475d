"""Values of configurations that no network can be made of are named before weights are read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import AutoencoderKL, UNet2DConditionModel

from p2p_bench.errors import MissingWeightsError
from p2p_bench.models import Checkpoint, LocalCheckpoint
from p2p_bench.models.config_values import check_values, faulty_value
from p2p_bench.models.part_config import PartConfig
from tests.models.small import small_checkpoint
from tests.models.small_flux import small_flux
from tests.models.small_if import small_if
from tests.models.small_sd3 import small_sd3
from tests.models.tiny import tiny_checkpoint

FAMILIES: dict[str, Callable[[], Any]] = {
    "sd": tiny_checkpoint,
    "ldm": lambda: small_checkpoint("ldm"),
    "if": small_if,
    "sd3": small_sd3,
    "flux": small_flux,
}


def changed(folder: Path, family: str, file: str, key: str, value: Any) -> Checkpoint:
    """A checkpoint one of whose files has another value."""
    shutil.copytree(FAMILIES[family]().path, folder)
    config = json.loads((folder / file).read_text())
    assert key in config
    (folder / file).write_text(json.dumps({**config, key: value}))
    more = {"size": 16, "t5_tokens": 20} if family == "flux" else {}
    return LocalCheckpoint(folder, "junk", **more)


@pytest.mark.parametrize(
    ("family", "part", "key", "value", "said"),
    [
        ("sd", "unet", "norm_eps", [1, 2, 3], r"\[1, 2, 3\], expected a number"),
        ("sd", "unet", "norm_eps", -1e-5, "-1e-05, expected a number above 0"),
        ("sd", "unet", "act_fn", 3, "3, expected a name"),
        ("sd", "unet", "mid_block_type", ["UNetMidBlock2DCrossAttn"], r"\[.*\], expected a name or null"),
        ("sd", "unet", "center_input_sample", "no", '"no", expected true or false'),
        ("sd", "unet", "block_out_channels", [16, "32"], r'\[16, "32"\], expected'),
        ("sd", "unet", "attention_head_dim", -1, "-1, expected whole numbers from 0"),
        ("sd", "unet", "layers_per_block", 10**9, "1000000000, expected whole numbers from 0 to 1000"),
        ("sd", "vae", "act_fn", None, "null, expected a name"),
        ("sd", "text_encoder", "layer_norm_eps", [1, 2], r"\[1, 2\], expected"),
        (
            "sd",
            "text_encoder",
            "num_hidden_layers",
            10**9,
            "1000000000, expected whole numbers from 0 to 1000",
        ),
        ("ldm", "bert", "dropout", "half", '"half", expected a number'),
        ("if", "text_encoder", "layer_norm_epsilon", "small", '"small", expected'),
        ("if", "unet", "resnet_skip_time_act", "yes", '"yes", expected true or false'),
        ("sd3", "transformer", "num_layers", 0.5, "0.5, expected an integer"),
        ("flux", "transformer", "axes_dims_rope", 8, "8, expected a list"),
        ("flux", "transformer", "axes_dims_rope", [1, 2, 3], r"\[1, 2, 3\], expected three even numbers"),
        ("if", "unet", "addition_embed_type_num_heads", 3, "3, expected a divisor of its encoder_hid_dim"),
        ("ldm", "bert", "dropout", 3, "3, expected a number from 0 to 1"),
        ("sd", "text_encoder", "layer_norm_eps", None, "null, expected a number above 0"),
        ("sd", "text_encoder", "eos_token_id", [1, 2], r"\[1, 2\], expected an integer"),
        ("sd", "text_encoder", "num_attention_heads", -1, "-1, expected whole numbers from 0 to"),
        ("sd", "text_encoder", "num_attention_heads", 3, "3, expected what a CLIPTextConfig takes"),
    ],
)
def test_a_value_of_another_kind_is_named_before_weights_are_read(
    tmp_path: Path, family: str, part: str, key: str, value: Any, said: str
) -> None:
    checkpoint = changed(tmp_path / "copy", family, f"{part}/config.json", key, value)
    with pytest.raises(MissingWeightsError, match=rf"'junk': .*{part}/config\.json: {key} is {said}") as told:
        checkpoint.spec()
    assert told.value.exit_code == 3


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("unet", "norm_num_groups", 3),
        ("unet", "act_fn", "junk"),
        ("unet", "block_out_channels", [16, 32, 64]),
        ("text_encoder", "hidden_act", "junk"),
    ],
)
def test_a_value_that_no_network_can_be_made_of_is_named(
    tmp_path: Path, part: str, key: str, value: Any
) -> None:
    checkpoint = changed(tmp_path / "copy", "sd", f"{part}/config.json", key, value)
    with pytest.raises(MissingWeightsError, match=rf"{part}/config\.json: {key} is .*can be made of \("):
        checkpoint.load()


def test_published_ways_to_write_a_value_are_taken() -> None:
    """As in the files of Stable Diffusion XL, of DeepFloyd IF and of the first releases."""
    values = {
        "upcast_attention": None, "attention_head_dim": [5, 10, 20], "norm_eps": 1e-05,
        "class_embed_type": None,
        "transformer_layers_per_block": [0, [2, 2], [10, 10]], "sample_size": 128,
        "mid_block_scale_factor": 1,
        "only_cross_attention": [True, False], "cross_attention_norm": False, "_diffusers_version": [],
        "something_new": [None],
    }  # fmt: skip
    config = PartConfig("published", Path("unet/config.json"), values)
    check_values(UNet2DConditionModel, config)
    vae = PartConfig("published", Path("vae/config.json"), {"latents_mean": [-1, 0.5], "shift_factor": -1})
    check_values(AutoencoderKL, vae)
    assert faulty_value(UNet2DConditionModel, PartConfig("own", Path("config.json"), {})) is None
