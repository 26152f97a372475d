"""LoRA (Hu et al., arXiv 2106.09685): low-rank changes of weights, read from a file and added to the weights.

Which layer of a model is meant by which key of a file; the files themselves are read in `lora_file`.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from p2p_bench.errors import ConfigError, MissingWeightsError
from p2p_bench.hashing import digest, sha256_file
from p2p_bench.models.lora_file import Adapters, adapter_file, is_consistency_lora, read_lora

_KOHYA = {
    "unet": ("lora_unet_",),
    "text_encoder": ("lora_te_", "lora_te1_"),
    "text_encoder_2": ("lora_te2_",),
}
_SHOWN = 3


@dataclass(frozen=True)
class LoRA:
    """A file and how much of it is added.

    Attributes:
        file: A safetensors file.
        scale: Factor of the change; 1 as it was trained.
    """

    file: Path
    scale: float = 1.0

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the change, as plain values."""
        settings = adapter_file(self.file)
        beside = {} if settings is None else {"settings": sha256_file(settings)}
        return {"sha256": sha256_file(self.file), "scale": self.scale, **beside}


def read_loras(value: Any, name: str) -> tuple[LoRA, ...]:
    """The LoRAs of a setting: a path, `[path, scale]`, or a list of such pairs.

    Args:
        value: The setting; None for none.
        name: Name of the model, for messages.

    Raises:
        ConfigError: It is something else.
        MissingWeightsError: A file is not there, or no safetensors.
    """
    if value is None:
        return ()
    given: list[Any] = [value] if isinstance(value, str | Path) else list(value)
    several = bool(given) and all(isinstance(one, list | tuple) for one in given)
    return tuple(_lora(list(pair), name) for pair in (given if several else [given]))


def with_loras(checksum: str, value: Any, name: str) -> str:
    """The checksum of a checkpoint's files with the LoRAs of a setting; itself where there are none.

    Raises:
        ConfigError: See `read_loras`.
        MissingWeightsError: A file is not there, or no safetensors.
    """
    added = [lora.identity for lora in read_loras(value, name)]
    return digest({"checkpoint": checksum, "lora": added}) if added else checksum


def distilled_by(value: Any, name: str) -> bool | None:
    """Whether LoRAs distil a model for latent consistency; None: one may, and does not say so.

    Raises:
        ConfigError: See `read_loras`.
        MissingWeightsError: A file is not there, or cannot be read.
    """
    used = (lora for lora in read_loras(value, name) if lora.scale)
    said = [is_consistency_lora(lora.file, f"model {name!r}, LoRA {lora.file.name}") for lora in used]
    return True if True in said else None if None in said else False


def _lora(pair: list[Any], name: str) -> LoRA:
    path, scale = (*pair, 1.0)[:2]
    number = isinstance(scale, int | float) and not isinstance(scale, bool) and abs(scale) < float("inf")
    if len(pair) not in (1, 2) or not isinstance(path, str | Path) or not number:
        raise ConfigError(
            "model.lora: expected [PATH, SCALE], such as [style.safetensors,0.8], or a list of such, got "
            f"{pair}"
        )
    return LoRA(weights_file(path, name, "LoRA"), float(scale))


def weights_file(path: Path | str, name: str, kind: str) -> Path:
    """A safetensors file.

    Raises:
        MissingWeightsError: It is not there, or of another kind.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        there = sorted(one.name for one in file.glob("*.safetensors"))
        remedy = f"it is a folder: give one of its files, {', '.join(there[:_SHOWN])}"
        raise MissingWeightsError(
            f"model {name!r}: there is no file {str(path)!r} for a {kind}; "
            f"{remedy if there else 'give its path'}"
        )
    if file.suffix != ".safetensors":
        raise MissingWeightsError(
            f"model {name!r}: {file.name} would be read through pickle, which can run code, and is refused; "
            f"get the {kind} as safetensors"
        )
    return file.absolute()  # not where a link leads: the name, and what lies beside it, have a meaning


@torch.no_grad()
def fuse(lora: LoRA, networks: Mapping[str, nn.Module], name: str) -> None:
    """Adds a LoRA to the weights of networks; all of it or nothing.

    Args:
        lora: The file and its scale.
        networks: By the names that the file may have for them: "unet" or "transformer", "text_encoder",
            "text_encoder_2", "text_encoder_3".
        name: Name of the model, for messages.

    Raises:
        MissingWeightsError: The file cannot be read, is of a layout that is not known here, or changes layers
            that the networks do not have or that have other shapes.
    """
    where = f"model {name!r}, LoRA {lora.file.name}"
    layers = dict(_layers(networks))
    parts, adapters = read_lora(lora.file, where, list(layers))
    unknown = sorted(key for key in parts if key not in layers)
    if unknown:
        some = "none" if len(unknown) == len(parts) else f"{len(parts) - len(unknown)} of {len(parts)}"
        raise MissingWeightsError(
            f"{where}: {some} of its layers are this model's; it lacks {', '.join(unknown[:_SHOWN])}"
            f"{' and others' if len(unknown) > _SHOWN else ''}: take a LoRA of the model's family"
        )
    if twice := [key for key, one in Counter(layers[key] for key in parts).items() if one > 1]:
        named = [key for key in parts if layers[key] is twice[0]]
        raise MissingWeightsError(
            f"{where}: {' and '.join(named)} are the same layer; it was written twice, get the file again"
        )
    changes = [(layers[key], _change(part, adapters, layers[key], key, where)) for key, part in parts.items()]
    if lora.scale and not any(bool(change.any()) for _, change in changes):
        raise MissingWeightsError(f"{where}: it changes nothing, all of its factors are 0; get it again")
    for layer, change in changes:
        wide = layer.weight.to(torch.promote_types(layer.weight.dtype, torch.float32))
        layer.weight.copy_(wide + lora.scale * change.to(wide))


def _change(part: Mapping[str, Tensor], adapters: Adapters, layer: Any, key: str, where: str) -> Tensor:
    """What is added to a layer's weight."""
    down, up, shape = part["down"], part["up"], layer.weight.shape
    rank = len(down) if down.ndim else 0
    fits = rank and up.ndim > 1 and up.flatten(1).shape == (shape[0], rank) and up[0].numel() == rank
    if not fits or down[0].numel() != layer.weight[0].numel():
        raise MissingWeightsError(
            f"{where}: {key} has factors {tuple(up.shape)} and {tuple(down.shape)} for a weight of "
            f"{tuple(shape)}; take a LoRA of the model's family"
        )
    factor = adapters.factor(key, rank, part.get("alpha"))
    return factor * (up.flatten(1) @ down.flatten(1)).view(shape)


def _layers(networks: Mapping[str, nn.Module]) -> Iterator[tuple[str, Any]]:
    """The layers that a LoRA may change, by every name that a file may have for them."""
    for network, module in networks.items():
        for path, layer in module.named_modules():
            if not isinstance(layer, nn.Linear | nn.Conv2d):
                continue
            names = [path]
            if network.startswith("text"):
                # A level of the path came and went between releases of transformers.
                bare = path.removeprefix("text_model.")
                names = [bare, f"text_model.{bare}"]
            elif network == "unet" and (original := _original(path, module)):
                names.append(original)
            for one in names:
                yield f"{network}.{one}", layer
                for prefix in _KOHYA.get(network, ()):
                    yield prefix + one.replace(".", "_"), layer


_TOP = {
    "conv_in": "input_blocks.0.0", "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip
_RESNET = {"conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1",
           "conv_shortcut": "skip_connection"}  # fmt: skip


def _original(path: str, unet: Any) -> str:
    """A layer's path in the original code, whose blocks are counted through; "" if it has none there."""
    if path in _TOP:
        return _TOP[path]
    stride = unet.config.layers_per_block
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", path)
    if match is None:
        middle = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", path)
        if middle is None or not isinstance(stride, int):
            return ""
        place = 1 if middle[1] == "attentions" else 2 * int(middle[2])
        return f"middle_block.{place}.{_RESNET.get(middle[3], middle[3])}"
    if not isinstance(stride, int):
        return ""
    down, block, kind, layer, rest = match[1] == "down", int(match[2]), match[3], int(match[4]), match[5]
    first = 1 + block * (stride + 1) if down else block * (stride + 1)
    if kind == "downsamplers":
        return f"input_blocks.{first + stride}.0.op"
    if kind == "upsamplers":
        attends = hasattr(unet.up_blocks[block], "attentions")
        return f"output_blocks.{first + stride}.{1 + attends}.conv"
    places = {"resnets": 0, "attentions": 1}
    if kind not in places:
        return ""
    return f"{'input' if down else 'output'}_blocks.{first + layer}.{places[kind]}.{_RESNET.get(rest, rest)}"
