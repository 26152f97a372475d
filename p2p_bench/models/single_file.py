"""Checkpoints of Stable Diffusion in one safetensors file, in the layout of the original code.

Such a file holds neither configurations nor tokenizers: they come from a directory of the same family.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from p2p_bench.errors import ConfigError, MissingWeightsError
from p2p_bench.models.config_values import check_values
from p2p_bench.models.files import checkpoint_directory, read_json
from p2p_bench.models.layouts import SCHEDULER_FILE, SDXL, STABLE_DIFFUSION, Layout
from p2p_bench.models.part_config import PartConfig
from p2p_bench.models.schedule import schedule_from_config
from p2p_bench.weights import load_weights, readable, refuse_foreign, tensor_keys

_UNET = "model.diffusion_model."
_TRANSFORMERS = ("joint_blocks.", "double_blocks.", "transformer_blocks.")
"""How keys of other networks begin, Stable Diffusion 3's and FLUX's."""
_LEVELS = "alphas_cumprod"
_ROUNDED = 1e-3
"""Most that half precision makes of a level."""
_FIRST = {"sd": "cond_stage_model.transformer.", "sdxl": "conditioner.embedders.0.transformer."}
_OPEN_CLIP = {"sd": "cond_stage_model.model.", "sdxl": "conditioner.embedders.1.model."}
_ENCODERS = {kind.__name__: kind for kind in (CLIPTextModel, CLIPTextModelWithProjection)}
_USUAL = {
    "sd": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
}


def layout_of_file(file: Path) -> Layout:
    """The family of a file, by its keys.

    Raises:
        MissingWeightsError: It cannot be read.
        ConfigError: It is of another family.
    """
    keys = tensor_keys(file, f"convert: {file.name}")
    if transformer := [key for key in keys if key.removeprefix(_UNET).startswith(_TRANSFORMERS)]:
        raise ConfigError(
            f"convert: {file} is no checkpoint of Stable Diffusion 1.x, 2.x or XL but of a transformer "
            f"({transformer[0]}); get the model as a directory in diffusers' format"
        )
    if not any(key.startswith(_UNET) for key in keys):
        raise ConfigError(
            f"convert: {file} is no whole checkpoint of Stable Diffusion in the original layout: no key "
            f"starts with {_UNET}"
        )
    return SDXL if any(key.startswith("conditioner.") for key in keys) else STABLE_DIFFUSION


def configs_of_file(file: Path, layout: Layout, given: str | None) -> Path:
    """The directory whose configurations and tokenizers a file needs.

    Args:
        file: The file.
        layout: Its family.
        given: A directory, or `owner/name` in the local cache; None looks for the family's usual one there.

    Raises:
        MissingWeightsError: There is none on this machine; says how to get it.
        ConfigError: It is of another family.
    """
    second = any(key.startswith(_OPEN_CLIP["sd"]) for key in tensor_keys(file, f"convert: {file.name}"))
    usual = "" if layout == STABLE_DIFFUSION and second else _USUAL[layout.family]
    remedy = f", or fetch them once with `hf download {usual} --include '*.json' '*.txt'`" if usual else ""
    why = "" if usual else "; of Stable Diffusion 2 no file says whether it predicts noise or velocity"
    said = MissingWeightsError(
        f"convert: {file.name} holds no configuration and no tokenizer{why}; give those of its family with "
        f"--configs DIR, a directory in diffusers' format whose weights are not read{remedy}"
    )
    if given is None and not usual:
        raise said
    try:
        directory = checkpoint_directory(given or usual, "convert")
    except MissingWeightsError as error:
        raise said from error
    index = read_json(directory / "model_index.json", "convert")
    if index.get("_class_name") not in layout.pipelines:
        raise ConfigError(
            f"convert: {file.name} is of {layout.title}, but {directory} is of a {index.get('_class_name')}"
        )
    _check_levels(file, directory, layout)
    return directory


def _check_levels(file: Path, configs: Path, layout: Layout) -> None:
    """Refuses a file that says of itself that it was trained otherwise than a scheduler's file has it.

    Raises:
        ConfigError: It does.
    """
    where = f"convert: {file.name}"
    keys = tensor_keys(file, where)
    foreign = sorted(key for key in keys if key == "ztsnr" or key.startswith("edm_"))
    if foreign:
        raise ConfigError(
            f"{where}: {', '.join(foreign)} in it says that it was trained with other noise levels than "
            "those known here; take another checkpoint"
        )
    schedule = schedule_from_config(read_json(configs / SCHEDULER_FILE, "convert"), layout.steps_offset)
    if "v_pred" in keys and schedule.prediction_type != "v_prediction":
        raise ConfigError(
            f"{where}: v_pred in it says that it predicts velocity, {configs / SCHEDULER_FILE} says "
            f"{schedule.prediction_type}; give --configs DIR of a model whose prediction_type is v_prediction"
        )
    if _LEVELS not in keys:
        return
    with safe_open(file, "pt") as tensors:
        levels = tensors.get_tensor(_LEVELS).double()
    own = schedule.alphas_cumprod
    if levels.shape != own.shape or float((levels - own).abs().max()) > _ROUNDED:
        raise ConfigError(
            f"{where}: its {_LEVELS} are not those of {configs / SCHEDULER_FILE}; give --configs DIR of the "
            "model that it was trained from"
        )


def networks_of_file(file: Path, configs: Path, layout: Layout) -> Iterator[tuple[str, Any]]:
    """The networks of a file by their folder, one after the other, with all of their weights.

    Args:
        file: The file.
        configs: Directory of the configurations.
        layout: The family.

    Raises:
        MissingWeightsError: Tensors are absent, foreign, misshapen or damaged.
    """
    state = readable(lambda: load_file(file), f"convert: {file.name}", file)
    changes = {"unet": convert_ldm_unet_checkpoint, layout.vae: convert_ldm_vae_checkpoint}
    for folder, kind in (("unet", UNet2DConditionModel), (layout.vae, AutoencoderKL)):
        where = f"convert: {file.name}, {folder}"
        check_values(kind, PartConfig.read(configs / folder / "config.json", "convert"))
        network = readable(partial(_of_config, kind, configs / folder), where, configs / folder)
        converted = readable(partial(changes[folder], dict(state), network.config), where, file)
        if folder == "unet":
            _check_all_taken(state, converted, where)
        yield folder, _filled(network, converted, where)
    for place, (folder, name) in enumerate(layout.encoders.items()):
        where = f"convert: {file.name}, {folder}"
        check_values(_ENCODERS[name], PartConfig.read(configs / folder / "config.json", "convert"))
        config = readable(partial(CLIPTextConfig.from_pretrained, configs / folder), where, configs / folder)
        network = _ENCODERS[name](config)
        yield folder, _filled(network, _text(network, state, layout, place), where)


def _of_config(kind: Any, folder: Path) -> Any:
    return kind.from_config(kind.load_config(folder))


def _check_all_taken(state: Mapping[str, Tensor], converted: Mapping[str, Tensor], where: str) -> None:
    """Refuses tensors of a U-Net that the translation leaves out, since no configuration asks for them."""
    taken = {tensor.data_ptr() for tensor in converted.values()}
    left = [key for key, one in state.items() if key.startswith(_UNET) and one.data_ptr() not in taken]
    refuse_foreign(where, unexpected=left)


def _text(network: Any, state: Mapping[str, Tensor], layout: Layout, place: int) -> dict[str, Tensor]:
    prefix = _OPEN_CLIP[layout.family]
    written_by_open_clip = place == 1 or not any(key.startswith(_FIRST[layout.family]) for key in state)
    if written_by_open_clip:
        found = convert_open_clip_checkpoint(network, dict(state), prefix=prefix)
    else:
        found = convert_ldm_clip_checkpoint(dict(state))
    bare = {key.removeprefix("text_model."): one for key, one in found.items() if "position_ids" not in key}
    if not hasattr(network, "text_model"):
        return {key: one for key, one in bare.items() if key != "text_projection.weight"}
    return {
        key if key.startswith("text_projection") else f"text_model.{key}": one for key, one in bare.items()
    }


def _writable(tensor: Tensor) -> Tensor:
    """Weights of 8 bits in half precision, which holds each of their values; libraries read no such."""
    eight = tensor.is_floating_point() and tensor.element_size() == 1
    return (tensor.half() if eight else tensor).contiguous()


def _filled(network: nn.Module, state: Mapping[str, Tensor], where: str) -> nn.Module:
    own = set(network.state_dict())
    kept = {key: _writable(one) for key, one in state.items() if one is not None}
    formats = {one.dtype for one in kept.values() if one.is_floating_point()}
    if len(formats) == 1:
        network.to(next(iter(formats)))
    # What a network computes itself may be missing.
    buffers = {key: one for key, one in network.state_dict().items() if key.endswith("position_ids")}
    load_weights(network, {**{key: buffers[key] for key in own & buffers.keys()}, **kept}, where)
    return network.eval()
