"""The parts of a checkpoint: their configuration files, and their networks with all weights or not at all."""

import inspect
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from p2p_bench.errors import ConfigError, MissingWeightsError
from p2p_bench.models.files import (
    TRANSFORMERS_STEM,
    index_file,
    read_json,
    variant_of,
    weight_files,
    weight_map,
)
from p2p_bench.models.layouts import NETWORK_STEM, Layout
from p2p_bench.weights import readable, refuse_damaged, refuse_foreign, tensor_keys

log = logging.getLogger(__name__)

_REQUIRED = object()


@dataclass(frozen=True)
class PartConfig:
    """A configuration file of a checkpoint, whose values are what they should be when they are asked for.

    Attributes:
        model: Name of the model, for messages.
        file: The file.
        values: What it holds.
    """

    model: str
    file: Path
    values: Mapping[str, Any]

    @classmethod
    def read(cls, file: Path, model: str) -> "PartConfig":
        """Reads a file.

        Raises:
            MissingWeightsError: It is not there, or holds no JSON object.
        """
        return cls(model, file, read_json(file, model))

    def integer(self, key: str, default: Any = _REQUIRED) -> int:
        """An integer above 0."""
        value = self.values.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.fault(key, "an integer above 0")
        return value

    def number(self, key: str, default: Any = _REQUIRED) -> float:
        """A finite number above 0."""
        value = self.values.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise self.fault(key, "a number above 0")
        return float(value)

    def offset(self, key: str) -> float:
        """A finite number, of any sign."""
        value = self.values.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value):
            raise self.fault(key, "a finite number")
        return float(value)

    def integers(self, key: str) -> tuple[int, ...]:
        """One integer above 0, or a list of some."""
        value = self.values.get(key)
        listed = value if isinstance(value, list) else [value]
        if not listed or any(not isinstance(one, int) or isinstance(one, bool) or one < 1 for one in listed):
            raise self.fault(key, "integers above 0")
        return tuple(listed)

    def check_class(self, expected: str) -> None:
        """Refuses the configuration of a network of another class.

        Raises:
            MissingWeightsError: It is.
        """
        named = self.values.get("_class_name", self.values.get("architectures"))
        if named is not None and expected not in (named if isinstance(named, list) else [named]):
            key = "_class_name" if "_class_name" in self.values else "architectures"
            raise self.fault(key, expected, "take a checkpoint that has one")

    def fault(self, key: str, expected: str, remedy: str = "get the checkpoint again") -> MissingWeightsError:
        """The error that a value is not what it should be."""
        found = json.dumps(self.values[key])[:100] if key in self.values else "absent"
        return MissingWeightsError(
            f"model {self.model!r}: {self.file}: {key} is {found}, expected {expected}; {remedy}"
        )


def check_headers(directory: Path, name: str, layout: Layout, variant: str | None) -> None:
    """Sees that no weight file of a checkpoint is cut short, and that shards hold what their index says.

    Raises:
        MissingWeightsError: One is; names it.
        ConfigError: Weights are quantized.
    """
    for part, stem in layout.weights.items():
        config = PartConfig.read(directory / part / "config.json", name)
        if config.values.get("quantization_config"):
            raise ConfigError(
                f"model {name!r}: {config.file}: quantization_config: quantized weights are not read here; "
                "take the checkpoint as it was before, and model.dtype=bfloat16 or float16 for less memory"
            )
        files = weight_files(directory, part, stem, variant)
        where = f"model {name!r}, {part}"
        keys = {file.name: set(tensor_keys(file, where)) for file in files}
        # diffusers looks no further than the index, and fills what a shard lacks with random numbers.
        index = index_file(directory, part, stem, variant_of(directory, part, stem, variant))
        placed = weight_map(index) if index.is_file() else {}
        if set(keys) == set(placed.values()):
            absent = [key for key, file in placed.items() if key not in keys[file]]
            refuse_foreign(f"{where} ({index.name})", absent, set().union(*keys.values()) - set(placed))


def load_part(
    kind: Any, folder: Path, name: str, device: torch.device, dtype: torch.dtype, variant: str | None
) -> Any:
    """One network of a checkpoint with its weights, frozen.

    Keys are compared after the library has translated those of older releases, and without buffers that it
    computes itself (`position_ids`).

    Args:
        kind: Class of diffusers or transformers.
        folder: Its files.
        name: Name of the model, for messages.
        device: Where to.
        dtype: Number format.
        variant: Infix of the weight files.

    Raises:
        MissingWeightsError: Weights are absent, foreign, misshapen, not finite or all zero; names the keys.
    """
    of_transformers = issubclass(kind, PreTrainedModel)
    stem = TRANSFORMERS_STEM if of_transformers else NETWORK_STEM
    own = variant_of(folder.parent, folder.name, stem, variant)
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "variant": own}
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    if not of_transformers:
        options |= {"low_cpu_mem_usage": False, "torch_dtype": dtype}
    where = f"model {name!r}, {folder.name}"
    # Random weights are drawn before the file's take their place; nobody else may notice.
    with _quiet(), torch.random.fork_rng(devices=[]):
        module, info = readable(lambda: kind.from_pretrained(folder, **options), where, folder)
    if not of_transformers:
        _warn_of_settings(kind, PartConfig.read(folder / "config.json", name))
    refuse_foreign(
        f"{where} ({folder})", info["missing_keys"], info["unexpected_keys"], info["mismatched_keys"]
    )
    # The keyword for the number format differs between the releases of transformers, and diffusers leaves
    # some networks in the format of their file; its own `to` warns of layers to be kept wide, even of none.
    module = nn.Module.to(module, dtype)
    refuse_damaged(f"{where} ({folder})", chain(module.named_parameters(), module.named_buffers()))
    return module.to(device).eval().requires_grad_(False)


def _warn_of_settings(kind: Any, config: PartConfig) -> None:
    """Warns of settings that the library leaves out: those of a later release may change what is computed."""
    known = inspect.signature(kind.__init__).parameters
    unread = [
        key
        for key, value in config.values.items()
        if key not in known and not key.startswith("_") and value not in (None, False)
    ]
    if unread:
        log.warning(
            "model %r: %s: diffusers %s does not know %s and leaves it out; if the checkpoint needs it, "
            "install a later release",
            config.model,
            config.file,
            diffusers.__version__,
            ", ".join(unread),
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no tables of keys: what is wrong is said by an error of ours."""
    before = {library: library.get_verbosity() for library in (transformers_logging, diffusers_logging)}
    shown = {library: library.is_progress_bar_enabled() for library in before}
    for library in before:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, level in before.items():
            library.set_verbosity(level)
            if shown[library]:
                library.enable_progress_bar()
