"""Checks of what a caller in Python hands over: harmless kin are taken, all else is refused by name."""

import operator
from collections.abc import Collection, Iterable
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from p2p_bench.controllers import Controller, NoControl
from p2p_bench.errors import ConfigError
from p2p_bench.raster import shortened

_SEEDS = 2**64


def wrong(name: str, expected: str, value: Any) -> ConfigError:
    """The error of an argument of the wrong type or range."""
    got = shortened(repr(value), most=80) if _is_short(value) else f"{type(value).__name__}"
    return ConfigError(f"{name}: expected {expected}, got {got}")


def instance(name: str, value: Any, kind: type[Any], expected: str) -> Any:
    """A value of a class.

    Raises:
        ConfigError: It is not.
    """
    if not isinstance(value, kind):
        raise wrong(name, expected, value)
    return value


def text(name: str, value: Any) -> str:
    """A text, NumPy's too.

    Raises:
        ConfigError: It is none.
    """
    return str(instance(name, value, str, "text"))


def whole(name: str, value: Any) -> int:
    """An integer, NumPy's or a tensor's too; truth values are none.

    Raises:
        ConfigError: It is none.
    """
    try:
        if isinstance(value, bool | np.bool_) or (isinstance(value, Tensor) and value.dtype == torch.bool):
            raise TypeError
        return operator.index(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise wrong(name, "an integer", value) from error


def seed(value: Any) -> int:
    """A seed that a generator of torch takes.

    Raises:
        ConfigError: It is none.
    """
    number = whole("seed", value)
    if not 0 <= number < _SEEDS:
        raise wrong("seed", "an integer in [0, 2**64)", number)
    return number


def number(name: str, value: Any) -> float:
    """A number, NumPy's or a tensor of one too; truth values are none.

    Raises:
        ConfigError: It is none, or too large.
    """
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        value = value.item()
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise wrong(name, "a number", value)
    try:
        return float(value)
    except OverflowError as error:
        raise wrong(name, "a finite number", value) from error


def flag(name: str, value: Any) -> bool:
    """A truth value, NumPy's too.

    Raises:
        ConfigError: It is none.
    """
    if not isinstance(value, bool | np.bool_):
        raise wrong(name, "true or false", value)
    return bool(value)


def one_of(name: str, value: Any, options: Collection[str]) -> Any:
    """A text that is one of some options; None stays.

    Raises:
        ConfigError: It is another.
    """
    if value is not None and (not isinstance(value, str) or value not in options):
        raise wrong(name, f"one of {', '.join(options)}", value)
    return value


def texts(name: str, value: Any) -> list[str]:
    """A text, or several.

    Raises:
        ConfigError: It is something else.
    """
    if isinstance(value, str):
        return [str(value)]
    expected = "a text or a list of texts"
    if isinstance(value, bytes | dict) or not isinstance(value, Iterable):
        raise wrong(name, expected, value)
    return [text(f"{name}[{index}]", item) for index, item in enumerate(value)]


def controllers(value: Any, count: int) -> list[Controller]:
    """A controller per target: the same for all, or those of a sequence; None is plain generation.

    Raises:
        ConfigError: It is something else, or of another number.
    """
    if value is None or isinstance(value, Controller):
        return [value or NoControl()] * count
    expected = "a controller, such as Replace(), or a sequence of one per target"
    if isinstance(value, str | bytes | dict) or not isinstance(value, Iterable):
        raise wrong("controller", expected, value)
    given = list(value)
    for index, item in enumerate(given):
        instance(f"controller[{index}]", item, Controller, "a controller, such as Replace()")
    if len(given) != count:
        raise ConfigError(f"controller: expected one, or one per target ({count}), got {len(given)}")
    return given


def noise(value: Any) -> Tensor:
    """Start noise (c, h, w), or (1, c, h, w).

    Raises:
        ConfigError: It is something else.
    """
    expected = "a float tensor (c, h, w) or (1, c, h, w)"
    tensor: Tensor = instance("noise", value, Tensor, expected)
    if tensor.layout != torch.strided or tensor.is_meta:
        raise wrong("noise", f"{expected} with values", value)
    single = tensor[0] if tensor.ndim == 4 and len(tensor) == 1 else tensor
    if single.ndim != 3 or not single.is_floating_point():
        raise ConfigError(f"noise: expected {expected}, got {tensor.dtype} {tuple(tensor.shape)}")
    if not bool(single.isfinite().all()):
        raise ConfigError(f"noise: expected finite values, {int((~single.isfinite()).sum())} of them are not")
    return single


def _is_short(value: Any) -> bool:
    """Whether a value says more than its type."""
    return value is None or (
        isinstance(value, str | bool | int | float | np.generic)
        and not (isinstance(value, int) and abs(value) > _SEEDS**2)
    )
