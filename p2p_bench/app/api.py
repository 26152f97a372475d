"""The Python API, where it needs the configuration: models and inversions by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from p2p_bench.app.instantiate import instantiate
from p2p_bench.controllers import Controller
from p2p_bench.editing import EditResult
from p2p_bench.editing import edit as edit_with
from p2p_bench.errors import ConfigError, nearest
from p2p_bench.inversion import Inversion
from p2p_bench.models import DiffusionModel, UNetCheckpoint
from p2p_bench.resources import resource_path


def load_model(
    name: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> DiffusionModel:
    """Loads a model.

    Args:
        name: Name of a file in `conf/model`, such as "world"; or a local directory in
            `StableDiffusionPipeline` format; or `owner/name` in the local Hugging Face cache.
        device: Where to load it.
        dtype: Number format; None is what its configuration says, float32 as a rule.

    Raises:
        MissingWeightsError: The weights are not on this machine.
        ConfigError: There is no model of this name.
    """
    if isinstance(name, str) and name in _options("model"):
        checkpoint = _component("model", name)
    elif Path(name).expanduser().is_dir() or len(Path(name).parts) > 1:
        checkpoint = UNetCheckpoint(path=name, name=Path(name).expanduser().resolve().name)
    else:
        raise _unknown("model", str(name), "; or give a directory that holds model_index.json")
    return checkpoint.load(device, dtype)


def edit(
    model: DiffusionModel,
    source: str,
    targets: str | Sequence[str],
    controller: Controller | Sequence[Controller] | None = None,
    *,
    inversion: Inversion | str | None = None,
    **options: Any,
) -> EditResult:
    """`p2p_bench.editing.edit`, with inversions by name too.

    Args:
        model: A loaded model.
        source: Prompt of the source image.
        targets: Prompts of the edits.
        controller: How the source's attention is used, for all targets or one per target.
        inversion: An inversion, or the name of a file in `conf/inversion`, such as "ddim".
        options: `image`, `noise`, `seed`, `steps`, `guidance` and the others of `p2p_bench.editing.edit`.

    Returns:
        Images, latents, cost and heatmaps, the source first.

    Raises:
        P2PError: An argument cannot be used; the message says what to do.
    """
    if isinstance(inversion, str) and inversion not in _options("inversion"):
        raise _unknown("inversion", inversion)
    method: Inversion | None = _component("inversion", inversion) if isinstance(inversion, str) else inversion
    return edit_with(model, source, targets, controller, inversion=method, **options)


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in resource_path("conf", group).glob("*.yaml"))


def _component(group: str, name: str) -> Any:
    return instantiate(OmegaConf.load(resource_path("conf", group, f"{name}.yaml")), group)


def _unknown(group: str, name: str, otherwise: str = "") -> ConfigError:
    options = _options(group)
    return ConfigError(
        f"{group}: there is no {name!r}, there is {', '.join(options)}{otherwise}." + nearest(name, options)
    )
