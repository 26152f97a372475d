"""Which devices a run works on."""

import functools
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning import Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from p2p_bench.errors import ConfigError


def uses_cuda(accelerator: str) -> bool:
    """Whether a trainer of this accelerator works on CUDA devices here."""
    return accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available()


def device_count(accelerator: str, devices: Any) -> int:
    """How many processes `trainer.devices` asks for, one per device.

    Args:
        accelerator: Of the trainer.
        devices: A number, numbers of devices, or "auto" (and -1) for all there are: on a processor one.

    Raises:
        ConfigError: It is none of these, or there are not so many.
    """
    there = torch.cuda.device_count() if uses_cuda(accelerator) else None
    if devices in ("auto", -1, "-1"):
        return there or 1
    number = devices
    if isinstance(devices, Sequence) and not isinstance(devices, str):
        number = len(devices)
    if isinstance(number, str) and number.isdecimal():
        number = int(number)
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ConfigError(
            f"trainer.devices: expected a number of devices, their numbers or auto, got {devices!r}"
        )
    if there is not None and number > there:
        raise ConfigError(f"trainer.devices: {number} devices are asked for, and there are {there}")
    return number


def on_device(trainer: Callable[..., Trainer], index: int) -> Callable[..., Trainer]:
    """The trainer of one of several processes, on a device of its own.

    Args:
        trainer: Makes a trainer; a partial of `lightning.Trainer` names accelerator and devices.
        index: Number of the process on this machine.
    """
    keywords = trainer.keywords if isinstance(trainer, functools.partial) else {}
    # A trainer alone, whatever the variables around it say: it would refuse those of srun.
    one = functools.partial(trainer, strategy="auto", num_nodes=1, plugins=[LightningEnvironment()])
    if not uses_cuda(str(keywords.get("accelerator", "auto"))):
        return functools.partial(one, devices=1)
    devices = keywords.get("devices", "auto")
    listed = list(devices) if isinstance(devices, Sequence) and not isinstance(devices, str) else None
    number = listed[index] if listed is not None else index % max(1, torch.cuda.device_count())
    return functools.partial(one, devices=[number])


_held: list[tuple[int, FileLock]] = []
"""The device of this process and the lock on it, held until the process ends."""


def take_device(folder: Path, count: int) -> int | None:
    """One of this machine's devices that no other process of a sweep has taken; kept until the process ends.

    Args:
        folder: Folder of the sweep, in which the devices of each machine have their locks.
        count: Number of devices.

    Returns:
        Its number; None where all are taken.
    """
    if _held:
        return _held[0][0]
    folder.mkdir(parents=True, exist_ok=True)
    for device in range(count):
        lock = FileLock(folder / f".device-{socket.gethostname()}-{device}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        _held.append((device, lock))
        return device
    return None


def keep_to_one_device(folder: Path) -> None:
    """Lets this process see one of the machine's CUDA devices only, where there are several.

    Called before anything uses one. Where more processes than devices work, those that come late share.

    Args:
        folder: Folder of the sweep whose processes share the machine.
    """
    begun = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch has no types here
    if _held or begun or (count := torch.cuda.device_count()) < 2:
        return
    device = take_device(folder, count)
    number = os.getpid() % count if device is None else device
    seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    os.environ["CUDA_VISIBLE_DEVICES"] = seen[number] if number < len(seen) else str(number)
