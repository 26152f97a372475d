"""Checks of types in a test session: jaxtyping's where a shape is annotated, beartype's own elsewhere.

Both are beartype's. jaxtyping remembers the sizes of a call, so that they are held against each other. To say
more of what it refuses, it also binds the arguments and checks them twice, nine times the cost of a call's
check: its memory alone is used where that serves.
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
    if inspect.isclass(decorated) and not (
        dataclasses.is_dataclass(decorated) and "__init__" in vars(decorated)
    ):
        return decorated
    function = decorated.__init__ if inspect.isclass(decorated) else decorated
    if shapeless(function):
        held = _plainly(function)
    elif _known(function):
        held = _with_sizes(function)
    else:
        return _with_shapes(decorated, typechecker=typechecker)
    if not inspect.isclass(decorated):
        return held
    decorated.__init__ = held
    return decorated


def shapeless(function: Any) -> bool:
    """Whether a function's annotations are known at once and hold no shape."""
    return _known(function) and not _any_hint(_is_shape, list(function.__annotations__.values()))


def _known(function: Any) -> bool:
    """Whether a function's annotations are known at once.

    Generators are left out: what they are annotated with is what calling them returns.
    """
    if not inspect.isfunction(function) or inspect.isgeneratorfunction(function):
        return False
    return not _any_hint(_is_name, list(function.__annotations__.values()))


def _with_sizes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Checked by beartype, each call with sizes of its own."""
    plainly, sizes = _plainly(function), _with_shapes("context")  # it holds nothing itself

    @functools.wraps(function)
    def held(*arguments: Any, **named: Any) -> Any:
        with sizes:
            return plainly(*arguments, **named)

    held.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # diffusers asks at each call
    return held


def _is_name(hint: Any) -> bool:
    return isinstance(hint, str | typing.ForwardRef | typing.TypeVar | typing.NewType)


def _is_shape(hint: Any) -> bool:
    return inspect.isclass(hint) and hint.__module__.split(".")[0] == "jaxtyping"


def _any_hint(holds: Callable[[Any], bool], hint: Any) -> bool:
    """Whether something holds of a hint or of one in it; a list is the arguments of a callable."""
    parts = hint if isinstance(hint, list | tuple) else typing.get_args(hint)
    return holds(hint) or any(_any_hint(holds, part) for part in parts)
