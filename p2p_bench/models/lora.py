"""LoRA (Hu et al., arXiv 2106.09685): low-rank changes of weights, read from a file and added to the weights.

Two layouts are read: diffusers' and PEFT's, whose keys are the layers' own paths; and kohya's, whose keys are
the paths with underscores, also by the names that blocks have in the original code of Stable Diffusion.

Notation:
    down, up     factors of the change: r x inputs and outputs x r
    alpha        scale of the change, which is divided by the rank r; r where the file does not say
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from p2p_bench.errors import ConfigError, MissingWeightsError
from p2p_bench.hashing import sha256_file
from p2p_bench.weights import readable

_DOWN = (".lora_A.weight", ".lora.down.weight", "_lora.down.weight", ".lora_linear_layer.down.weight",
         ".lora_down.weight")  # fmt: skip
_UP = (".lora_B.weight", ".lora.up.weight", "_lora.up.weight", ".lora_linear_layer.up.weight",
       ".lora_up.weight")  # fmt: skip
_ENDS = {**dict.fromkeys(_DOWN, "down"), **dict.fromkeys(_UP, "up"), ".alpha": "alpha"}
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
        return {"sha256": sha256_file(self.file), "scale": self.scale}


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
        raise MissingWeightsError(
            f"model {name!r}: there is no file {str(path)!r} for a {kind}; give its path"
        )
    if file.suffix != ".safetensors":
        raise MissingWeightsError(
            f"model {name!r}: {file.name} would be read through pickle, which can run code, and is refused; "
            f"get the {kind} as safetensors"
        )
    return file.resolve()


@torch.no_grad()
def fuse(lora: LoRA, networks: Mapping[str, nn.Module], name: str) -> None:
    """Adds a LoRA to the weights of networks; all of it or nothing.

    Args:
        lora: The file and its scale.
        networks: By the names that the file may have for them: "unet", "text_encoder", "text_encoder_2".
        name: Name of the model, for messages.

    Raises:
        MissingWeightsError: The file cannot be read, is of a layout that is not known here, or changes layers
            that the networks do not have or that have other shapes.
    """
    where = f"model {name!r}, LoRA {lora.file.name}"
    parts, ranks = _parts(lora.file, where)
    layers = dict(_layers(networks))
    unknown = sorted(key for key in parts if key not in layers)
    if unknown:
        some = "none" if len(unknown) == len(parts) else f"{len(parts) - len(unknown)} of {len(parts)}"
        raise MissingWeightsError(
            f"{where}: {some} of its layers are this model's; it lacks {', '.join(unknown[:_SHOWN])}"
            f"{' and others' if len(unknown) > _SHOWN else ''}: take a LoRA of the model's family"
        )
    changes = [(layers[key], _change(part, layers[key], ranks, key, where)) for key, part in parts.items()]
    if lora.scale and not any(bool(change.any()) for _, change in changes):
        raise MissingWeightsError(f"{where}: it changes nothing, all of its factors are 0; get it again")
    for layer, change in changes:
        wide = layer.weight.to(torch.promote_types(layer.weight.dtype, torch.float32))
        layer.weight.copy_(wide + lora.scale * change.to(wide))


def _parts(file: Path, where: str) -> tuple[dict[str, dict[str, Tensor]], dict[str, float]]:
    """Tensors of each layer by what they are, and alpha by network where the file's head says it."""

    def read() -> tuple[dict[str, Tensor], dict[str, str]]:
        with safe_open(file, "pt") as tensors:
            return {key: tensors.get_tensor(key) for key in tensors.keys()}, tensors.metadata() or {}  # noqa: SIM118  # no dict

    state, metadata = readable(read, where, file)
    if broken := [key for key, tensor in state.items() if not bool(tensor.isfinite().all())]:
        raise MissingWeightsError(f"{where}: {', '.join(broken[:_SHOWN])} is not finite; get it again")
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        end = _end(key)
        if end is None:
            raise MissingWeightsError(
                f"{where}: {key} is of a layout that is not known here; diffusers', PEFT's and kohya's are"
            )
        path = key.removesuffix(end).removeprefix("base_model.model.").replace(".processor.", ".")
        path = re.sub(r"\.to_out$", ".to_out.0", path)
        parts.setdefault(path, {})[_ENDS[end]] = tensor.float()
    lacking = sorted(path for path, part in parts.items() if not {"down", "up"} <= part.keys())
    if lacking or not parts:
        raise MissingWeightsError(
            f"{where}: {', '.join(lacking[:_SHOWN]) or 'it'} lacks a factor; get it again"
        )
    return parts, _adapter(metadata, where)


def _end(key: str) -> str | None:
    return next((end for end in _ENDS if key.endswith(end)), None)


def _adapter(metadata: Mapping[str, str], where: str) -> dict[str, float]:
    """Alpha by network, which diffusers keeps in the head of a file."""
    settings = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    for key, value in settings.items():
        if value and key.rpartition(".")[2] in ("use_dora", "use_rslora", "alpha_pattern", "rank_pattern"):
            raise MissingWeightsError(f"{where}: it was trained with {key}, which is not known here")
    return {
        key.removesuffix(".lora_alpha"): float(value)
        for key, value in settings.items()
        if key.endswith(".lora_alpha")
    }


def _change(
    part: Mapping[str, Tensor], layer: Any, alphas: Mapping[str, float], key: str, where: str
) -> Tensor:
    """What is added to a layer's weight."""
    down, up = part["down"], part["up"]
    rank, shape = len(down), layer.weight.shape
    alpha = float(part["alpha"]) if "alpha" in part else alphas.get(key.partition(".")[0], float(rank))
    pointwise = up.flatten(1).shape == (shape[0], rank) and up[0].numel() == rank
    if not pointwise or down[0].numel() != layer.weight[0].numel():
        raise MissingWeightsError(
            f"{where}: {key} has factors {tuple(up.shape)} and {tuple(down.shape)} for a weight of "
            f"{tuple(shape)}; take a LoRA of the model's family"
        )
    return alpha / rank * (up.flatten(1) @ down.flatten(1)).view(shape)


def _layers(networks: Mapping[str, nn.Module]) -> Iterator[tuple[str, Any]]:
    """The layers that a LoRA may change, by every name that a file may have for them."""
    for network, module in networks.items():
        for path, layer in module.named_modules():
            if not isinstance(layer, nn.Linear | nn.Conv2d):
                continue
            names = [path]
            if network != "unet":  # a level of the path came and went between releases of transformers
                bare = path.removeprefix("text_model.")
                names = [bare, f"text_model.{bare}"]
            elif original := _original(path, module):
                names.append(original)
            for one in names:
                yield f"{network}.{one}", layer
                for prefix in _KOHYA.get(network, ()):
                    yield prefix + one.replace(".", "_"), layer


_RESNET = {"conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1",
           "conv_shortcut": "skip_connection"}  # fmt: skip


def _original(path: str, unet: Any) -> str:
    """A layer's path in the original code, whose blocks are counted through; "" if it has none there."""
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
