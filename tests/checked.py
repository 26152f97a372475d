"""Checks of types in a test session: jaxtyping's where a shape is annotated, beartype's own elsewhere.

Both are beartype's. What jaxtyping adds binds the arguments and checks them twice, in order to hold sizes
against each other: nine times the cost of a call's check, which is lost where there are no sizes to hold.
"""

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

_with_shapes = jaxtyping.jaxtyped
_plainly = beartype(conf=BeartypeConf(violation_type=jaxtyping.TypeCheckError))


def install_checks(package: str) -> None:
    """Types and shapes of every annotated function of a package are checked from its import on."""
    jaxtyping.jaxtyped = checked  # type: ignore[assignment]  # what the hook decorates with
    jaxtyping.install_import_hook(package, "beartype.beartype")


def checked(decorated: Any = None, *, typechecker: Callable[..., Any]) -> Any:
    """Stands in for `jaxtyping.jaxtyped`: refuses what it refuses, with the same kind of error."""
    if decorated is None:
        return functools.partial(checked, typechecker=typechecker)
    if not inspect.isclass(decorated):
        return (
            _plainly(decorated) if shapeless(decorated) else _with_shapes(decorated, typechecker=typechecker)
        )
    if dataclasses.is_dataclass(decorated) and shapeless(decorated.__init__):
        decorated.__init__ = _plainly(decorated.__init__)
        return decorated
    return _with_shapes(decorated, typechecker=typechecker)


def shapeless(function: Any) -> bool:
    """Whether a function's annotations are known at once and hold no shape.

    Generators are left out: what they are annotated with is what calling them returns.
    """
    if not inspect.isfunction(function) or inspect.isgeneratorfunction(function):
        return False
    return not any(map(_may_hold_a_shape, function.__annotations__.values()))


def _may_hold_a_shape(hint: Any) -> bool:
    if isinstance(hint, list | tuple):  # the arguments of a callable
        return any(map(_may_hold_a_shape, hint))
    if isinstance(hint, str | typing.ForwardRef | typing.TypeVar | typing.NewType):
        return True
    if inspect.isclass(hint) and hint.__module__.split(".")[0] == "jaxtyping":
        return True
    return any(map(_may_hold_a_shape, typing.get_args(hint)))
