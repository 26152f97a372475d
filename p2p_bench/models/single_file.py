"""Checkpoints of Stable Diffusion in one safetensors file, in the layout of the original code.

Such a file holds neither configurations nor tokenizers: they come from a directory of the same family.
"""

import logging
import shutil
from collections.abc import Collection, Iterator, Mapping
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
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from p2p_bench.errors import ConfigError, MissingWeightsError
from p2p_bench.models.config_values import check_values, faulty_value
from p2p_bench.models.files import checkpoint_directory, read_json
from p2p_bench.models.layouts import INSTRUCT_PIX2PIX, SDXL, STABLE_DIFFUSION, Family, Layout
from p2p_bench.models.part_config import PartConfig
from p2p_bench.models.single_file_claims import check_claims
from p2p_bench.models.single_file_keys import (
    AVERAGED,
    COUNTERS,
    FIRST_LAYER,
    LAST_LAYER,
    REFINER,
    TEXT,
    UNET,
    check_apart,
    foreign_to_open_clip,
    is_idle,
    kind_of_other,
    left_out,
    vae_prefixes,
)
from p2p_bench.weights import load_weights, readable, tensor_keys

log = logging.getLogger(__name__)

_ENCODERS = {kind.__name__: kind for kind in (CLIPTextModel, CLIPTextModelWithProjection)}
_USUAL: Mapping[Family, str] = {
    "sd": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
    "ip2p": "timbrooks/instruct-pix2pix",
}


def layout_of_file(file: Path) -> Layout:
    """The family of a file, by its keys and what its U-Net is given.

    Raises:
        MissingWeightsError: It cannot be read.
        ConfigError: It is of another family, of none, or of two models.
    """
    keys = tensor_keys(file, f"convert: {file.name}")
    if other := kind_of_other(keys):
        raise ConfigError(f"convert: {file} {other}")
    check_apart(keys, f"convert: {file.name}")
    if any(key.startswith(REFINER) for key in keys):
        raise ConfigError(
            f"convert: {file} is the refiner of Stable Diffusion XL (its text encoder is {REFINER}), which "
            "finishes images and edits none; take the base model"
        )
    if any(key.startswith(TEXT["xl"]) and not is_idle(key) for key in keys):
        return SDXL
    return INSTRUCT_PIX2PIX if _given(file, keys) else STABLE_DIFFUSION


def _given(file: Path, keys: Collection[str]) -> bool:
    """Whether a U-Net is given the latents of an image beside those that it denoises.

    Raises:
        ConfigError: It is given something else.
    """
    with safe_open(file, "pt") as tensors:
        first, last = (
            tensors.get_slice(key).get_shape() if key in keys else [] for key in (FIRST_LAYER, LAST_LAYER)
        )
    if len(first) != 4 or len(last) != 4 or first[1] == last[0]:
        return False  # or damaged, which is said when weights are read
    if first[1] == 2 * last[0]:
        return True
    raise ConfigError(
        f"convert: {file}: {FIRST_LAYER} takes {first[1]} channels and {LAST_LAYER} returns {last[0]}; "
        "inpainting, depth and upscaling checkpoints cannot be edited with, take the text-to-image one"
    )


def configs_of_file(file: Path, layout: Layout, given: str | None) -> Path:
    """The directory whose configurations and tokenizers a file needs.

    Args:
        file: The file.
        layout: Its family.
        given: A directory, or `owner/name` in the local cache; None looks for the family's usual one there.

    Raises:
        MissingWeightsError: There is none on this machine; says how to get it.
        ConfigError: It is of another family, or the file says of itself that it was trained otherwise.
    """
    keys = tensor_keys(file, f"convert: {file.name}")
    second = any(key.startswith(TEXT["v2"]) and not is_idle(key) for key in keys)
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
    generation = "xl" if layout == SDXL else "v2" if second else "v1"
    check_claims(file, keys, generation, directory, layout)
    return directory


def networks_of_file(file: Path, configs: Path, layout: Layout) -> Iterator[tuple[str, Any]]:
    """The networks of a file by their folder, one after the other, with all of their weights.

    Args:
        file: The file.
        configs: Directory of the configurations.
        layout: The family.

    Raises:
        MissingWeightsError: Tensors are absent, foreign, misshapen or damaged.
    """
    where = f"convert: {file.name}"
    state = readable(lambda: load_file(file), where, file)
    _warn_of_left_out(state, layout, where)
    state = {key: one for key, one in state.items() if not key.startswith(AVERAGED)}
    PartConfig.read(configs / "unet" / "config.json", "convert").integer("layers_per_block", 2)
    changes = {"unet": convert_ldm_unet_checkpoint, layout.vae: convert_ldm_vae_checkpoint}
    prefixes = {"unet": (UNET,), layout.vae: vae_prefixes(state)}
    for folder, kind in (("unet", UNet2DConditionModel), (layout.vae, AutoencoderKL)):
        part = f"{where}, {folder}"
        network = _of_configuration(kind, configs / folder, part)
        own = {key: one for key, one in state.items() if key.startswith(prefixes[folder])}
        converted = readable(partial(changes[folder], own, network.config), part, file)
        yield folder, _filled(network, converted, part, _not_taken(own, converted))
    for place, (folder, name) in enumerate(layout.encoders.items()):
        part = f"{where}, {folder}"
        network = _of_configuration(_ENCODERS[name], configs / folder, part)
        own, foreign = _text(network, state, layout, place)
        yield folder, _filled(network, own, part, foreign)


def save_network(network: nn.Module, configs: Path, made: Path, stem: str) -> None:
    """Writes a network of a file beside the configuration that it is of, as that was written.

    Libraries would write their own release and defaults into it, from both of which sizes and number formats
    are read.

    Args:
        network: The network.
        configs: Folder of its configuration.
        made: Folder to make.
        stem: How its weight file is called.
    """
    made.mkdir()
    save_file(network.state_dict(), made / f"{stem}.safetensors", metadata={"format": "pt"})
    shutil.copy(configs / "config.json", made)


def _of_configuration(kind: Any, folder: Path, where: str) -> Any:
    """A network of what its configuration says, with weights of no meaning.

    Raises:
        MissingWeightsError: There is none; names the value if it is a single one.
    """

    def made() -> Any:
        if kind in _ENCODERS.values():
            return kind(CLIPTextConfig.from_pretrained(folder))
        return kind.from_config(kind.load_config(folder))

    config = PartConfig.read(folder / "config.json", "convert")
    check_values(kind, config)
    try:
        return readable(made, where, folder)
    except MissingWeightsError as error:
        fault = faulty_value(kind, config)
        raise (error if fault is None else fault) from error


def _not_taken(state: Mapping[str, Tensor], converted: Mapping[str, Tensor]) -> list[str]:
    """Tensors of a network that the translation leaves out, since no configuration asks for them."""
    taken = {tensor.data_ptr() for tensor in converted.values() if tensor is not None}
    return [key for key, one in state.items() if one.data_ptr() not in taken and not is_idle(key)]


def _warn_of_left_out(keys: Collection[str], layout: Layout, where: str) -> None:
    """Says what is not part of the model that is made."""
    averages = [key for key in keys if key.startswith(AVERAGED) and key not in COUNTERS]
    if averages:
        log.warning(
            "%s: it holds averaged weights (%s) beside the plain ones of its U-Net, which are taken, as "
            "diffusers does; published directories of Stable Diffusion 1 hold the averaged ones",
            where,
            averages[0],
        )
    if rest := left_out(keys, layout):
        others = f" and {len(rest) - 1} more" if len(rest) > 1 else ""
        log.warning("%s: %s%s in it is left out, as no part of %s", where, rest[0], others, layout.title)


def _by_transformers(keys: Collection[str], layout: Layout, place: int) -> bool:
    """Whether a text encoder is in the layout of transformers, and not in that of OpenCLIP."""
    if layout == SDXL:
        return place == 0
    return any(key.startswith(TEXT["v1"]) and not is_idle(key) for key in keys)


def _text(
    network: Any, state: Mapping[str, Tensor], layout: Layout, place: int
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a text encoder by their keys in the network, and keys without a place in it."""
    by_transformers = _by_transformers(state, layout, place)
    prefix = TEXT["xl"][place] if layout == SDXL else (TEXT["v1"] if by_transformers else TEXT["v2"])[0]
    own = {key: one for key, one in state.items() if key.startswith(prefix)}
    if by_transformers:
        found, foreign = convert_ldm_clip_checkpoint(own), []
    else:
        found = convert_open_clip_checkpoint(network, own, prefix=prefix)
        foreign = foreign_to_open_clip(own, prefix)
    found = {key: one for key, one in found.items() if not is_idle(key)}
    bare = {key.removeprefix("text_model."): one for key, one in found.items()}
    twice = [
        key for key in found if key.startswith("text_model.") and key.removeprefix("text_model.") in found
    ]
    foreign += [f"{prefix}{key.removeprefix('text_model.')}" for key in twice]
    if not hasattr(network, "text_model"):
        kept = {key: one for key, one in bare.items() if key != "text_projection.weight"}
    else:
        kept = {
            key if key.startswith("text_projection") else f"text_model.{key}": one
            for key, one in bare.items()
        }
    return kept, foreign


def _writable(tensor: Tensor) -> Tensor:
    """Weights of 8 bits in half precision, which holds each of their values; libraries read no such."""
    eight = tensor.is_floating_point() and tensor.element_size() == 1
    return (tensor.half() if eight else tensor).contiguous()


def _filled(
    network: nn.Module, state: Mapping[str, Tensor], where: str, foreign: Collection[str]
) -> nn.Module:
    """A network with its weights; `foreign` are keys of the file that have no place in it."""
    own = set(network.state_dict())
    kept = {key: _writable(one) for key, one in state.items() if one is not None}
    formats = {one.dtype for one in kept.values() if one.is_floating_point()}
    if len(formats) == 1:
        # diffusers' own `to` warns of layers to be kept wide, even of none.
        nn.Module.to(network, next(iter(formats)))
    # What a network computes itself may be missing.
    buffers = {key: one for key, one in network.state_dict().items() if key.endswith("position_ids")}
    load_weights(network, {**{key: buffers[key] for key in own & buffers.keys()}, **kept}, where, foreign)
    return network.eval()
