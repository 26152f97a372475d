"""What a single file says of its own training, against the configurations that are given for it.

Weights do not show what a network predicts, nor at which noise levels; buffers of the original code, marks of
trainers and the file's header may (https://github.com/Stability-AI/ModelSpec).
"""

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from p2p_bench.errors import ConfigError
from p2p_bench.models.checkpoint import schedule_of
from p2p_bench.models.layouts import SCHEDULER_FILE, Layout
from p2p_bench.models.part_config import PartConfig
from p2p_bench.models.schedule import NoiseSchedule

_LEVELS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "alphas_cumprod": lambda alphas_cumprod: alphas_cumprod,
    "betas": lambda betas: (1 - betas).cumprod(0),
    "denoiser.sigmas": lambda sigmas: (1 / (1 + sigmas**2)).sort(descending=True).values,
}
"""Buffers of the original code -> alpha_bar of each training timestep."""
_ROUNDED = 1e-4
"""Most that the order of summation makes of a level, rounding of the number format apart."""
_SCALE = "scale_factor"
_PREDICTED = ("modelspec.prediction_type", "modelspec.predict_key")
_PREDICTIONS = {
    **dict.fromkeys(("v", "v_pred", "vpred", "v_prediction", "v-prediction", "velocity"), "v_prediction"),
    **dict.fromkeys(("epsilon", "eps"), "epsilon"),
}
_ARCHITECTURE = "modelspec.architecture"
_VELOCITY = "stable-diffusion-v2-768-v"
"""The one architecture whose name says what it predicts."""
_OTHERS = ("refiner", "inpainting", "unclip")
"""What a name has in it of networks that are not known here."""


def check_claims(file: Path, keys: Collection[str], generation: str, configs: Path, layout: Layout) -> None:
    """Refuses a file that says of itself that it is, or was trained, otherwise than configurations have it.

    Args:
        file: The file.
        keys: Its keys.
        generation: "v1", "v2" or "xl", by its keys.
        configs: Directory of the configurations.
        layout: Its family.

    Raises:
        ConfigError: It does; names the key of the file and the file of the configurations.
        MissingWeightsError: The configurations are of a kind that is not known here.
    """
    where = f"convert: {file.name}"
    foreign = sorted(key for key in keys if key == "ztsnr" or key.startswith("edm_"))
    if foreign:
        raise ConfigError(
            f"{where}: {', '.join(foreign)} in it says that it was trained with other noise levels than "
            "those known here; take another checkpoint"
        )
    schedule = schedule_of(configs, layout, "convert")
    with safe_open(file, "pt") as tensors:
        header = tensors.metadata() or {}
        said = {key: tensors.get_tensor(key) for key in (*_LEVELS, _SCALE) if key in keys}
    _check_architecture(header, generation, where)
    _check_prediction(header, keys, schedule, configs, where)
    for key in _LEVELS.keys() & said.keys():
        if not _same_levels(_LEVELS[key], said[key], schedule.alphas_cumprod):
            raise ConfigError(
                f"{where}: its {key} are not those of {configs / SCHEDULER_FILE}; give --configs DIR of the "
                "model that it was trained from"
            )
    if _SCALE in said:
        _check_scale(said[_SCALE], configs / layout.vae / "config.json", where)


def _check_architecture(header: Mapping[str, str], generation: str, where: str) -> None:
    named = header.get(_ARCHITECTURE, "")
    name, _, added = named.lower().partition("/")
    if added or any(other in name for other in _OTHERS):
        raise ConfigError(
            f"{where}: {_ARCHITECTURE} in its header is {named!r}, expected a whole text-to-image model of "
            "Stable Diffusion 1.x, 2.x or XL; take that"
        )
    own = re.match(r"stable-diffusion-(v1|v2|xl|v?3)|flux", name)
    if own and own[1] != generation:
        raise ConfigError(
            f"{where}: {_ARCHITECTURE} in its header is {named!r}, but its keys are those of "
            f"stable-diffusion-{generation}; get the file again, from who made it"
        )


def _check_prediction(
    header: Mapping[str, str], keys: Collection[str], schedule: NoiseSchedule, configs: Path, where: str
) -> None:
    claims = {f"{key} in its header": header[key] for key in _PREDICTED if header.get(key)}
    if header.get(_ARCHITECTURE, "").lower() == _VELOCITY:
        claims[f"{_ARCHITECTURE} in its header"] = "v"
    if header.get("ss_v_parameterization", "").lower() == "true":
        claims["ss_v_parameterization in its header"] = "v"
    if "v_pred" in keys:
        claims["v_pred in it"] = "v"
    for claim, value in claims.items():
        predicted = _PREDICTIONS.get(value.lower())
        if predicted is None:
            raise ConfigError(
                f"{where}: {claim} says that it predicts {value!r}, expected epsilon or v; other predictions "
                "are not known here"
            )
        if predicted != schedule.prediction_type:
            word = "velocity" if predicted == "v_prediction" else "noise"
            raise ConfigError(
                f"{where}: {claim} says that it predicts {word}, {configs / SCHEDULER_FILE} says "
                f"{schedule.prediction_type}; give --configs DIR of a model whose prediction_type is "
                f"{predicted}"
            )


def _same_levels(levels_of: Callable[[Tensor], Tensor], said: Tensor, own: Tensor) -> bool:
    """Whether levels are equal but for the rounding of the format that the file has them in."""
    levels = levels_of(said.double())
    if levels.shape != own.shape:
        return False
    return bool(((levels - own).abs() <= _most_rounding(said, own) + _ROUNDED).all())


def _check_scale(said: Tensor, vae: Path, where: str) -> None:
    own = torch.tensor(PartConfig.read(vae, "convert").number("scaling_factor", 0.18215)).double()
    if said.numel() != 1 or not bool((said.double() - own).abs() <= _most_rounding(said, own) + _ROUNDED):
        raise ConfigError(
            f"{where}: its {_SCALE} is {said.flatten().tolist()[:4]}, {vae} says scaling_factor "
            f"{float(own):g}; give --configs DIR of the model that it was trained from"
        )


def _most_rounding(said: Tensor, own: Tensor) -> Tensor:
    if not said.is_floating_point():
        return torch.zeros_like(own)
    info = torch.finfo(said.dtype)
    return 2 * info.eps * own + info.smallest_normal * info.eps
