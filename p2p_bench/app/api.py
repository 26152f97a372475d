"""Models, controllers and inversions by name, as the Python API takes them."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from p2p_bench.app.instantiate import instantiate
from p2p_bench.errors import ConfigError, nearest
from p2p_bench.models import DiffusionModel, LocalCheckpoint
from p2p_bench.models.settings import DTYPES
from p2p_bench.raster import shortened
from p2p_bench.resources import resource_path


def load_model(
    name: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | str | None = None
) -> DiffusionModel:
    """Loads a model.

    Args:
        name: Name of a file in `conf/model`, such as "world"; or a local directory with a
            `model_index.json`; or `owner/name` in the local Hugging Face cache.
        device: Where to load it.
        dtype: Number format, such as `torch.bfloat16` or "bfloat16"; None is what its configuration says,
            float32 as a rule.

    Raises:
        MissingWeightsError: The weights are not on this machine.
        ConfigError: There is no model of this name, or no such device or number format here.
    """
    if not isinstance(name, str | Path) or not str(name).strip():
        shown = repr(name) if isinstance(name, str) else type(name).__name__
        raise ConfigError(f"name: expected the name or the directory of a model, got {shown}")
    place, number_format = _device(device), _dtype(dtype)
    if isinstance(name, str) and name in _options("model"):
        checkpoint = _component("model", name)
    elif (directory := _directory(name)) is not None or len(Path(name).parts) > 1:
        checkpoint = LocalCheckpoint(name, Path(name).name if directory is None else directory.name)
    else:
        raise _unknown("model", str(name), "; or give a directory that holds model_index.json")
    model: DiffusionModel = checkpoint.load(place, number_format)
    return model


def named(group: str, value: Any) -> Any:
    """The component of a name, or of each of several; whatever is no name as it is.

    Args:
        group: Config group, such as "controller".
        value: Name of a file in `conf/GROUP`, a list of such, or something else.

    Raises:
        ConfigError: There is no such file, or it leaves something for the user to say.
    """
    if isinstance(value, list | tuple):
        return [named(group, item) for item in value]
    if not isinstance(value, str):
        return value
    if value not in _options(group):
        raise _unknown(group, value)
    return _component(group, value)


def _device(device: Any) -> torch.device:
    """A device that this machine has.

    Raises:
        ConfigError: It has none, or there is none of this name.
    """
    wanted: torch.device | None = None
    if isinstance(device, str | torch.device):
        with suppress(RuntimeError):
            wanted = torch.device(device)
    if wanted is None or wanted.type not in ("cpu", "cuda", "mps"):
        kinds = ("cpu", "cuda", "mps")
        hint = " Did you mean 'cuda'?" if device == "gpu" else nearest(str(device)[:20], kinds)
        raise ConfigError(
            f"device: expected {', '.join(kinds)} or a torch.device, got {shortened(repr(device))}.{hint}"
        )
    there = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }[wanted.type]
    if (wanted.index or 0) >= there:
        raise ConfigError(f"device: {str(wanted)!r} is not on this machine, it has {there} of {wanted.type}")
    return wanted


def _dtype(dtype: Any) -> torch.dtype | None:
    """A number format that models run in.

    Raises:
        ConfigError: It is none.
    """
    if dtype is None or (isinstance(dtype, torch.dtype) and dtype in DTYPES.values()):
        return dtype
    if isinstance(dtype, str) and dtype in DTYPES:
        return DTYPES[dtype]
    raise ConfigError(
        f"dtype: expected one of {', '.join(DTYPES)}, or torch's, got {shortened(repr(dtype))}."
        + nearest(str(dtype)[:20], DTYPES)
    )


def _directory(name: str | Path) -> Path | None:
    """The folder of this name, if there is one."""
    with suppress(OSError, RuntimeError, ValueError):  # no path at all, or one that no system could hold
        path = Path(name).expanduser()
        if path.is_dir():
            return path.resolve()
    return None


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in resource_path("conf", group).glob("*.yaml"))


def _component(group: str, name: str) -> Any:
    """The component of a file in `conf`; where it wants a schedule, with that of `conf/tau/default.yaml`."""
    tau = OmegaConf.load(resource_path("conf", "tau", "default.yaml"))
    node = OmegaConf.create({"tau": tau, group: OmegaConf.load(resource_path("conf", group, f"{name}.yaml"))})
    missing = sorted(key.removeprefix(f"{group}.") for key in OmegaConf.missing_keys(node[group]))
    if group == "controller" and missing:
        raise ConfigError(
            f"controller: {name!r} needs {', '.join(missing)} too; make the object, such as "
            "p2p_bench.Reweight({'red': 3.0})"
        )
    return instantiate(node[group], group)


def _unknown(group: str, name: str, otherwise: str = "") -> ConfigError:
    options = _options(group)
    return ConfigError(
        f"{group}: there is no {shortened(repr(name))}, there is {', '.join(options)}{otherwise}."
        + nearest(name[:100], options)
    )
