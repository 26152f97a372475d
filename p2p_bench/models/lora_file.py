"""Files of LoRA (Hu et al., arXiv 2106.09685), as they are written by those who train them.

Three layouts are read: diffusers', whose keys are the layers' own paths; PEFT's own, whose paths lack the
network and whose settings lie in a file beside; and kohya's, whose keys are the paths with underscores, also
by the names that blocks have in the original code of Stable Diffusion.

Notation:
    down, up     factors of the change: r x inputs and outputs x r
    alpha        scale of the change, which is divided by the rank r; r where nothing says it
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from p2p_bench.errors import MissingWeightsError
from p2p_bench.weights import readable

Parts = dict[str, dict[str, Tensor]]
"""The tensors of each layer by what they are: "down", "up", "alpha"."""

_DOWN = (".lora_A.weight", ".lora.down.weight", "_lora.down.weight", ".lora_linear_layer.down.weight",
         ".lora_down.weight")  # fmt: skip
_UP = (".lora_B.weight", ".lora.up.weight", "_lora.up.weight", ".lora_linear_layer.up.weight",
       ".lora_up.weight")  # fmt: skip
_ENDS = {**dict.fromkeys(_DOWN, "down"), **dict.fromkeys(_UP, "up"), ".alpha": "alpha"}
_PEFT = "base_model.model."
"""How keys begin in PEFT's own layout."""
_HEAD = "lora_adapter_metadata"
"""Where diffusers keeps PEFT's settings in the head of a file, with the network before their names."""
_REFUSED = (
    "use_dora",
    "use_qalora",
    "lora_bias",
    "modules_to_save",
    "layer_replication",
    "target_parameters",
)
"""Settings of PEFT by which a change is more than the product of two factors."""
_LCM = re.compile(r"(?<![a-z])lcm(?![a-z])", re.IGNORECASE)
"""The name of latent consistency models, as a word."""
_TITLES = ("modelspec.title", "ss_output_name")
"""What the head of a file calls it."""
_TEXT = ("text_encoder", "lora_te")
"""How keys of layers of text encoders begin."""
_PLAIN_STARTS = (None, True, False, "gaussian", "eva")
"""Values of `init_lora_weights` that leave the weights to which a LoRA is added as they were."""
_SHOWN = 3


@dataclass(frozen=True)
class Adapters:
    """What PEFT's settings say of how strong a change is.

    Attributes:
        where: Model and file, to begin messages with.
        settings: Those of each network, by their names.
    """

    where: str
    settings: Mapping[str, Mapping[str, Any]]

    def __post_init__(self) -> None:
        """Refuses settings that are not known here.

        Raises:
            MissingWeightsError: There is one; names it.
        """
        for own in self.settings.values():
            named = [key for key in _REFUSED if own.get(key)]
            start = own.get("init_lora_weights")
            if not any(start is one or start == one for one in _PLAIN_STARTS):
                named.append(f"init_lora_weights={start}")
            if str(own.get("peft_type", "LORA")) != "LORA":
                named.append(f"peft_type={own['peft_type']}")
            if named:
                raise MissingWeightsError(
                    f"{self.where}: it was trained with {named[0]}, which is not known here; take another"
                )

    def factor(self, path: str, rank: int, alpha: Tensor | None) -> float:
        """What the product of a layer's factors is multiplied by.

        Args:
            path: The layer with its network.
            rank: Of the factors.
            alpha: What the file has for the layer itself.

        Raises:
            MissingWeightsError: The number is none.
        """
        network, _, layer = path.partition(".")
        own = self.settings.get(network, {})
        value: Any = own.get("lora_alpha", rank)
        patterns = own.get("alpha_pattern") or {}
        if not isinstance(patterns, dict):
            raise self._fault("alpha_pattern", patterns)
        value = next((one for key, one in patterns.items() if self._means(key, layer)), value)
        if alpha is not None:
            value = alpha.item() if alpha.numel() == 1 else alpha.tolist()
        if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value):
            raise self._fault(f"alpha of {path}", value)
        return value / (sqrt(rank) if own.get("use_rslora") else rank)

    def _means(self, key: str, layer: str) -> bool:
        """Whether a pattern of PEFT means a layer: its path, or the end of it."""
        try:
            return re.match(rf"({key})$" if key.startswith("^") else rf"(.*\.)?({key})$", layer) is not None
        except re.error as error:
            raise self._fault("alpha_pattern", key) from error

    def _fault(self, what: str, value: Any) -> MissingWeightsError:
        return MissingWeightsError(f"{self.where}: {what} is {str(value)[:100]!r}, no number; get it again")


def adapter_file(file: Path) -> Path | None:
    """PEFT's settings beside a file of its own layout; None where there are none."""
    beside = file.with_name("adapter_config.json")
    return beside if file.name == "adapter_model.safetensors" and beside.is_file() else None


def read_lora(file: Path, where: str, layers: Sequence[str]) -> tuple[Parts, Adapters]:
    """The tensors of a file by the layers that they change, and how strong the changes are.

    Args:
        file: A safetensors file.
        where: Model and file, to begin messages with.
        layers: The layers of the model, each with its network, for files that do not name the network.

    Raises:
        MissingWeightsError: The file cannot be read, or is of a layout that is not known here.
    """

    def read() -> tuple[dict[str, Tensor], dict[str, str]]:
        with safe_open(file, "pt") as tensors:
            return {key: tensors.get_tensor(key) for key in tensors.keys()}, tensors.metadata() or {}  # noqa: SIM118  # no dict

    state, head = readable(read, where, file)
    parts = _parts(state, where)
    settings = adapter_file(file)
    if settings is None:
        if any(key.startswith(_PEFT) for key in state):
            raise MissingWeightsError(
                f"{where}: it is of PEFT's own layout, whose scale is in its adapter_config.json; put that "
                "beside it, and name it adapter_model.safetensors, as PEFT saved them"
            )
        return parts, Adapters(where, _by_network(_object(head.get(_HEAD, "{}"), f"{where}: {_HEAD}")))
    text = readable(lambda: settings.read_text(encoding="utf-8"), where, settings)
    own = _object(text, f"{where}: {settings.name}")
    if network := _network(parts, layers, where):
        parts = {f"{network}.{path}": part for path, part in parts.items()}
    return parts, Adapters(where, {path.partition(".")[0]: own for path in parts})


def is_consistency_lora(file: Path, where: str) -> bool | None:
    """Whether a file was distilled for latent consistency: it changes a U-Net, and is called "LCM".

    Nothing in its tensors tells it from other LoRAs. What it is called stands in its own name, that of its
    folder or repository, and the titles that those who train write into its head. None: it changes a U-Net
    and is called otherwise, so nothing is known.

    Args:
        file: A safetensors file.
        where: Model and file, to begin messages with.

    Raises:
        MissingWeightsError: The file cannot be read.
    """

    def read() -> tuple[list[str], dict[str, str]]:
        with safe_open(file, "pt") as tensors:
            return list(tensors.keys()), tensors.metadata() or {}

    keys, head = readable(read, where, file)
    folder = file.parent
    # In the Hugging Face cache it lies in models--OWNER--NAME/snapshots/COMMIT.
    held = folder.parent.parent.name if folder.parent.name == "snapshots" else folder.name
    named = any(_LCM.search(text) for text in (file.stem, held, *(head.get(key, "") for key in _TITLES)))
    if all(key.removeprefix(_PEFT).startswith(_TEXT) for key in keys):
        return False
    return True if named else None


def _parts(state: Mapping[str, Tensor], where: str) -> Parts:
    parts: Parts = {}
    for key, tensor in state.items():
        end = next((end for end in _ENDS if key.endswith(end)), None)
        if end is None:
            raise MissingWeightsError(
                f"{where}: {key} is of a layout that is not known here; diffusers', PEFT's and kohya's are"
            )
        if not tensor.is_floating_point() and _ENDS[end] != "alpha":
            raise MissingWeightsError(f"{where}: {key} is of whole numbers; take the file as it was before")
        if not bool(tensor.float().isfinite().all()):
            raise MissingWeightsError(f"{where}: {key} is not finite; get it again")
        path = key.removesuffix(end).removeprefix(_PEFT).replace(".processor.", ".")
        path = re.sub(r"\.to_out$", ".to_out.0", path)
        part = parts.setdefault(path, {})
        if _ENDS[end] in part:
            raise MissingWeightsError(f"{where}: {path} is there twice, also as {key}; get it again")
        part[_ENDS[end]] = tensor.float()
    lacking = sorted(path for path, part in parts.items() if not {"down", "up"} <= part.keys())
    if lacking or not parts:
        raise MissingWeightsError(
            f"{where}: {', '.join(lacking[:_SHOWN]) or 'it'} lacks a factor; get it again"
        )
    return parts


def _network(parts: Parts, layers: Sequence[str], where: str) -> str:
    """The network whose paths these are; "" where they name it themselves, or are those of none.

    Raises:
        MissingWeightsError: They are those of two.
    """
    known = set(layers)
    networks = sorted({layer.partition(".")[0] for layer in layers if "." in layer})
    fitting = [one for one in networks if all(f"{one}.{path}" in known for path in parts)]
    if len(fitting) > 1:
        raise MissingWeightsError(
            f"{where}: its layers are those of {' and '.join(fitting)}; save it with diffusers, which names "
            "the network"
        )
    return fitting[0] if fitting else ""


def _object(text: str, where: str) -> dict[str, Any]:
    """A JSON object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MissingWeightsError(f"{where} is not JSON ({error}); get the LoRA again") from error
    if not isinstance(value, dict):
        raise MissingWeightsError(f"{where} is no JSON object; get the LoRA again")
    return value


def _by_network(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings whose names have the network before them, by network."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        network, _, name = key.rpartition(".")
        found.setdefault(network, {})[name] = value
    return found
