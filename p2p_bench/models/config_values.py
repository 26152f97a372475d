"""Whether a network can be made of what its configuration says, and which value it is if it cannot.

The libraries build a network of whatever they are given: a list for a number is an error of the first pass,
when weights have been loaded and images encoded.
"""

import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from p2p_bench.errors import MissingWeightsError
from p2p_bench.models.part_config import PartConfig
from p2p_bench.weights import READ_ERRORS

_MOST = 2**24
"""More than any size in a configuration; a network is not made of such, it would take for ever."""
_MOST_LAYERS = 1000
_LAYERS = "layers"
"""What is in the name of every number of layers."""
_EPSILON = re.compile("(^|_)eps(ilon)?$")
"""What the names of numbers are that keep a norm from dividing by 0."""
_DROPOUT = re.compile("(^|_)dropout(_rate)?$")
"""What those of shares are that are left out in training."""
_TOKEN = "_token_id"
"""How the names of tokens end, which some files have as -1 where there is none."""
_SIGNED = ("latents_mean", "latents_std", "shift_factor")
"""What may be negative, and be written without a point."""
_PADDING = "downsample_padding"
"""With another padding than 0 or 1, halved maps are none of those that are doubled."""
_NAMES: Mapping[Any, str] = {
    bool: "true or false", int: "an integer", float: "a number", str: "a name", tuple: "a list",
}  # fmt: skip


def check_values(kind: Any, config: PartConfig) -> None:
    """Refuses values of other types than a network's class takes. Nothing is built, no weight is read.

    A `null` is taken for false, as older files write it. What the annotations of the class do not tell, and
    keys that it does not know, are left to it.

    Args:
        kind: Class of diffusers or transformers.
        config: Its configuration.

    Raises:
        MissingWeightsError: There is one; names file and key.
    """
    of_transformers = issubclass(kind, PreTrainedModel)
    if of_transformers:
        _check_of_transformers(kind, config)
    known = _annotations(kind)
    for key, value in config.values.items():
        if key.startswith("_") or key not in known:
            continue
        if not _fits(value, known[key]):
            raise config.fault(key, _in_words(known[key]))
        most = _MOST_LAYERS if _LAYERS in key else _MOST
        least = -1 if key.endswith(_TOKEN) else 0
        if key not in _SIGNED and any(not least <= number <= most for number in _integers(value)):
            raise config.fault(key, f"whole numbers from {least} to {most}")
        if key == _PADDING and value not in (0, 1):
            raise config.fault(key, "0 or 1")
        if _EPSILON.search(key) and not (_is_number(value) and value > 0):
            raise config.fault(key, "a number above 0")
        if _DROPOUT.search(key) and value is not None and not (_is_number(value) and 0 <= value <= 1):
            raise config.fault(key, "a number from 0 to 1")
        if key == "eos_token_id" and kind.__name__.startswith("CLIP") and not isinstance(value, int):
            raise config.fault(key, "an integer")


def faulty_value(kind: Any, config: PartConfig) -> MissingWeightsError | None:
    """The value without which (or with 1 in its place) a network could be made, or that its class names.

    None where a network can be made, or it is no single value.

    Args:
        kind: Class of diffusers or transformers.
        config: Its configuration.
    """
    whole = _failure(kind, config.values)
    if whole is None:
        return None
    usual = {name: one.default for name, one in inspect.signature(_maker(kind)).parameters.items()}
    found = []
    for key in config.values:
        rest = {other: value for other, value in config.values.items() if other != key}
        plain = key.startswith("_") or key == "architectures" or _listed(usual.get(key)) == config.values[key]
        if not plain and any(_failure(kind, values) is None for values in (rest, {**rest, key: 1})):
            found.append(key)
    keys = (*config.values, *_annotations(kind))
    found = found or [key for key in keys if re.search(rf"\b{re.escape(key)}\b", whole)][:1]
    if not found:
        return None
    others = f", or {', '.join(found[1:])}" if found[1:] else ""
    return config.fault(found[0], f"what a {kind.__name__} can be made of ({whole}){others}")


def _failure(kind: Any, values: Mapping[str, Any]) -> str | None:
    """Why no network is made of some values, without memory for its weights; None: it is."""
    try:
        with torch.device("meta"):
            if issubclass(kind, PreTrainedModel):
                kind(kind.config_class.from_dict(dict(values)))
            else:
                kind.from_config(dict(values))
    except READ_ERRORS as error:
        return " ".join(str(error).split())[:200] or type(error).__name__
    return None


def _check_of_transformers(kind: Any, config: PartConfig) -> None:
    """As the library judges them, whose configurations check their fields."""
    try:
        kind.config_class.from_dict(dict(config.values))
    except READ_ERRORS as error:
        reason = " ".join(str(error).split())[:200]
        named = next((key for key in config.values if _is_config(kind, config.values, key)), "architectures")
        raise config.fault(named, f"what a {kind.config_class.__name__} takes ({reason})") from error


def _is_config(kind: Any, values: Mapping[str, Any], without: str) -> bool:
    """Whether the library takes a configuration without one of its keys."""
    try:
        kind.config_class.from_dict({key: value for key, value in values.items() if key != without})
    except READ_ERRORS:
        return False
    return True


def _annotations(kind: Any) -> dict[str, Any]:
    """What the arguments of a class are annotated with, or the types of their defaults.

    `Any` where the library judges them: those of transformers.
    """
    if not issubclass(kind, PreTrainedModel):
        return typing.get_type_hints(_maker(kind))
    arguments = inspect.signature(_maker(kind)).parameters
    if not kind.config_class.__module__.startswith("diffusers."):
        return dict.fromkeys(arguments, Any)
    plain = (bool, int, float, str)
    return {name: type(one.default) for name, one in arguments.items() if type(one.default) in plain}


def _maker(kind: Any) -> Any:
    """What takes the values of a configuration."""
    return kind.config_class.__init__ if issubclass(kind, PreTrainedModel) else kind.__init__


def _listed(value: Any) -> Any:
    """A value as JSON has it."""
    return [_listed(one) for one in value] if isinstance(value, tuple) else value


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a value of a JSON file is of an annotated type."""
    origin = typing.get_origin(wanted) or wanted
    if origin in (typing.Union, types.UnionType):
        choices = typing.get_args(wanted)
        if isinstance(value, list):  # those of a level may be one number or several, in one list
            return _are(value, [each for one in choices for each in _elements(one)])
        older = value is False and set(choices) == {str, type(None)}  # false in the place of a name
        return older or any(_fits(value, one) for one in choices)
    if origin in (tuple, list):
        return isinstance(value, list) and _are(value, _elements(wanted))
    if origin is type(None):
        return value is None
    if origin is bool:
        return value is None or isinstance(value, bool) or value in (0, 1)
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is float:
        return _is_number(value)
    return isinstance(value, str) if origin is str else True


def _are(values: list[Any], kinds: list[Any]) -> bool:
    """Whether there is a type and each value is of one."""
    return bool(kinds) and all(any(_fits(value, one) for one in kinds) for value in values)


def _elements(wanted: Any) -> list[Any]:
    """What the elements of an annotated list may be; nothing for what is none."""
    if (typing.get_origin(wanted) or wanted) not in (tuple, list):
        return []
    return [one for one in typing.get_args(wanted) if one is not Ellipsis] or [Any]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _integers(value: Any) -> Iterator[int]:
    if isinstance(value, list):
        for one in value:
            yield from _integers(one)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value


def _in_words(wanted: Any) -> str:
    origin = typing.get_origin(wanted) or wanted
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_in_words(one) for one in typing.get_args(wanted))
    return "null" if origin is type(None) else _NAMES.get(origin, str(origin))
