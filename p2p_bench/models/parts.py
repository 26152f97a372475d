"""The parts of a checkpoint: their networks, with all weights or not at all."""

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from p2p_bench.errors import ConfigError, MissingWeightsError
from p2p_bench.models.config_values import faulty_value
from p2p_bench.models.files import (
    TRANSFORMERS_STEM,
    index_file,
    variant_of,
    weight_files,
    weight_map,
)
from p2p_bench.models.layouts import NETWORK_STEM, Layout
from p2p_bench.models.part_config import PartConfig
from p2p_bench.weights import readable, refuse_damaged, refuse_foreign, refuse_quantized, tensor_formats

log = logging.getLogger(__name__)

_FLOATING = ("F", "BF")
"""How the names of floating-point formats begin in safetensors."""
_COUNTED = "position_ids"
"""How the keys of whole numbers end that are no weights."""


def check_headers(directory: Path, name: str, layout: Layout, variant: str | None) -> None:
    """Sees that no weight file of a checkpoint is cut short, and that shards hold what their index says.

    Raises:
        MissingWeightsError: One is, or holds quantized weights; names it.
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
        formats = {file.name: tensor_formats(file, where) for file in files}
        for file in files:
            held = formats[file.name].items()
            odd = {key: one for key, one in held if not (one.startswith(_FLOATING) or key.endswith(_COUNTED))}
            refuse_quantized(f"{where} ({file.name})", odd)
        keys = {name: set(held) for name, held in formats.items()}
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
            Or no network can be made of the configuration.
    """
    of_transformers = issubclass(kind, PreTrainedModel)
    stem = TRANSFORMERS_STEM if of_transformers else NETWORK_STEM
    own = variant_of(folder.parent, folder.name, stem, variant)
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "variant": own}
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    # Without a word the library takes the format that the configuration names, which rounds wider weights.
    options |= {"dtype": dtype} if of_transformers else {"low_cpu_mem_usage": False, "torch_dtype": dtype}
    where = f"model {name!r}, {folder.name}"
    # Random weights are drawn before the file's take their place; nobody else may notice.
    with _quiet(), torch.random.fork_rng(devices=[]):
        try:
            module, info = readable(lambda: kind.from_pretrained(folder, **options), where, folder)
        except MissingWeightsError as error:
            fault = faulty_value(kind, PartConfig.read(folder / "config.json", name))
            raise (error if fault is None else fault) from error
    if not of_transformers:
        _warn_of_settings(kind, PartConfig.read(folder / "config.json", name))
    refuse_foreign(
        f"{where} ({folder})", info["missing_keys"], info["unexpected_keys"], info["mismatched_keys"]
    )
    # Both libraries leave some networks or layers in another format; the own `to` of diffusers warns of
    # layers to be kept wide, even of none.
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
