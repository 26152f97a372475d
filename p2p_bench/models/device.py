"""Devices that networks run on, tried before they are used."""

import resource
import sys

import torch
from torch import Tensor
from torch.nn.functional import conv2d, group_norm, interpolate, scaled_dot_product_attention

from p2p_bench.errors import ConfigError, nearest

_SLACK = {torch.float64: 1e-4, torch.float32: 0.02, torch.float16: 0.02, torch.bfloat16: 0.1}
"""How far values of about 1 may lie from those of the CPU; float32 products may be TF32."""


def usable_device(device: torch.device | str, dtype: torch.dtype) -> torch.device:
    """The device, once it is known to be there and to compute in the number format as the CPU does.

    Raises:
        ConfigError: It is not, or cannot, or computes something else.
    """
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError) as error:
        known = ("cpu", "cuda", "mps")
        raise ConfigError(
            f"device: expected {', '.join(known)} or one with a number such as cuda:0, got {device!r}."
            + nearest(str(device), known)
        ) from error
    try:
        one = torch.ones(2, 2, dtype=dtype, device=place)
        float(conv2d((one @ one)[None, None], one[None, None]))
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise ConfigError(
            f"device {str(place)!r} cannot compute in {str(dtype).removeprefix('torch.')} here ({reason}); "
            "take another device, or another number format (model.dtype)"
        ) from error
    if place.type != "cpu":
        _check_arithmetic(place, dtype)
    return place


def device_of(accelerator: str) -> str:
    """The kind of device that Lightning's trainer takes for an accelerator.

    Args:
        accelerator: Such as "auto" or "gpu"; what is none of a few is given back.
    """
    if accelerator not in ("auto", "gpu"):
        return accelerator
    if torch.backends.mps.is_available():
        return "mps"
    return "cuda" if accelerator == "gpu" or torch.cuda.is_available() else "cpu"


def synchronize(device: torch.device) -> None:
    """Waits until the device has computed what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def free_memory(device: torch.device) -> None:
    """Gives memory that no tensor holds back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def peak_memory_mb(device: torch.device) -> float:
    """Largest memory so far in MB: of the accelerator's allocator, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 1e6 if sys.platform == "darwin" else used * 1024 / 1e6


def _check_arithmetic(place: torch.device, dtype: torch.dtype) -> None:
    """A small part of every kind that networks are made of, on the device and on the CPU.

    Raises:
        ConfigError: They differ by more than rounding.
    """
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(2, 32, 8, 8, generator=draw)
    kernel = torch.randn(32, 32, 3, 3, generator=draw) / 17
    columns = torch.randn(2, 7, 32, generator=draw)
    weights = torch.rand(2, 1, 64, 7, generator=draw).log()
    wanted = _small_parts(images, kernel, columns, weights)
    made = _small_parts(*(one.to(place, dtype) for one in (images, kernel, columns, weights)))
    for name, value in wanted.items():
        off = (made[name].cpu().float() - value).abs().max().item()
        if not off <= _SLACK[dtype]:
            number_format = str(dtype).removeprefix("torch.")
            raise ConfigError(
                f"device {str(place)!r} computes {name} in {number_format} otherwise than "
                f"the CPU (by {off:.2g} where values are about 1), so results would be wrong; take another "
                "release of torch, another number format (model.dtype) or the CPU (trainer.accelerator=cpu)"
            )


def _small_parts(images: Tensor, kernel: Tensor, columns: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """What each part gives; heads lie in memory as networks leave them, which no kernel may overlook."""
    pixels = torch.unflatten(images.flatten(2).transpose(1, 2), -1, (4, 8)).transpose(1, 2)
    text = torch.unflatten(columns, -1, (4, 8)).transpose(1, 2)
    return {
        "convolution": conv2d(images, kernel, padding=1),
        "group normalisation": group_norm(images, 8),
        "enlarging": interpolate(images, scale_factor=2.0, mode="nearest"),
        "self-attention": scaled_dot_product_attention(pixels, pixels, pixels),
        "cross-attention": scaled_dot_product_attention(pixels, text, text),
        "cross-attention with a mask": scaled_dot_product_attention(pixels, text, text, attn_mask=weights),
    }
