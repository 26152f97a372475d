"""Whether values are of the kinds that annotations ask for, in YAML and in Python alike."""

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from p2p_bench.errors import ConfigError, nearest


def check_fields(component: Any, label: str) -> None:
    """Checks the plain values of a dataclass against its annotations; called first in `__post_init__`.

    Args:
        component: An instance whose fields are set.
        label: What messages call it, such as "reweight".

    Raises:
        ConfigError: A value is of another kind.
    """
    hints = get_type_hints(type(component))
    for field in fields(component):
        value = getattr(component, field.name)
        if not fits(value, hints[field.name]):
            hint = hints[field.name]
            shown = repr(value) if isinstance(value, str | bool | Real | None) else type(value).__name__
            options = [option for option in get_args(hint) if isinstance(option, str)]
            near = f".{nearest(value, options)}" if isinstance(value, str) and options else ""
            raise ConfigError(f"{label}{field.name}: expected {words_of(hint)}, got {shown}{near}")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value can be an argument annotated so; annotations beyond plain values always fit."""
    if isinstance(value, Mapping) and "_target_" in value:
        return True
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in get_args(hint))
    if origin is Literal:
        return any(
            value is option or (type(value) is type(option) and value == option) for option in get_args(hint)
        )
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, Real) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)
    if hint is Path:
        return isinstance(value, str | Path)
    if origin in (tuple, list, Sequence):
        return _fits_sequence(value, origin, get_args(hint))
    if origin in (dict, Mapping):
        return isinstance(value, Mapping)
    return True


def words_of(hint: Any) -> str:
    """An annotation in words, for messages."""
    origin = get_origin(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(words_of, get_args(hint))))
    names = {int: "an integer", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    if origin in (dict, Mapping):
        return "a mapping"
    if origin in (tuple, list, Sequence):
        return "a list"
    return "null" if hint in (None, type(None)) else names.get(hint, getattr(hint, "__name__", str(hint)))


def _fits_sequence(value: Any, origin: Any, args: tuple[Any, ...]) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return False
    if origin is tuple and Ellipsis not in args:
        return len(value) == len(args) and all(map(fits, value, args))
    return not args or all(fits(item, args[0]) for item in value)
