"""Checks of types in a test session: jaxtyping's where a shape is annotated, beartype's own elsewhere.

Both are beartype's. jaxtyping remembers the sizes of a call, so that they are held against each other. To say
more of what it refuses, it also binds the arguments and checks them twice, nine times the cost of a call's
check: its memory alone is used where that serves.

Not every call is checked, which took a sixth of the session: the first ones of each test are, and few of the
later ones, as in loops over steps and blocks. What checks a function is made when it is first asked for.
"""

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from types import CodeType
from typing import Any

import jaxtyping
import torch
from beartype import BeartypeConf, beartype

FIRST, EVERY = 3, 50
"""A function's calls that are checked: so many of each test's first ones, then one of so many."""

_with_shapes = jaxtyping.jaxtyped
_is_compiling = torch.compiler.is_compiling
_plainly = beartype(conf=BeartypeConf(violation_type=jaxtyping.TypeCheckError))


class _Count:
    """Calls of a function, in the test that runs.

    Of one that is made within another they are counted through all tests, as it is made anew, and so is what
    checks it, which costs more than the calls.
    """

    tests = 0

    def __init__(self, function: Any) -> None:
        self.calls, self.test = 0, -1
        self.within = "<locals>" in function.__qualname__

    def one_more(self) -> int:
        """Counts a call; returns which it is, from 1."""
        if self.test != _Count.tests and not self.within:
            self.calls, self.test = 0, _Count.tests
        self.calls += 1
        return self.calls


_counts: dict[CodeType, _Count] = {}


def install_checks(package: str) -> None:
    """Types and shapes of every annotated function of a package are checked from its import on."""
    jaxtyping.jaxtyped = checked  # type: ignore[assignment]  # what the hook decorates with
    jaxtyping.install_import_hook(package, "beartype.beartype")


def begin_test() -> None:
    """Counts calls anew."""
    _Count.tests += 1


def checked(decorated: Any = None, *, typechecker: Callable[..., Any]) -> Any:
    """Stands in for `jaxtyping.jaxtyped`: refuses what it refuses, with the same kind of error."""
    if decorated is None:
        return functools.partial(checked, typechecker=typechecker)
    if inspect.isfunction(decorated):
        return _at_times(decorated, typechecker)
    if not inspect.isclass(decorated):
        return _with_shapes(decorated, typechecker=typechecker)
    if not (dataclasses.is_dataclass(decorated) and "__init__" in vars(decorated)):
        return decorated
    if not _known(decorated.__init__):
        return _with_shapes(decorated, typechecker=typechecker)
    decorated.__init__ = _at_times(decorated.__init__, typechecker)  # type: ignore[method-assign]
    return decorated


def _at_times(function: Any, typechecker: Callable[..., Any]) -> Any:
    """Some of its calls are checked, see `FIRST`."""
    if not function.__annotations__:
        return function
    count = _counts.setdefault(function.__code__, _Count(function))
    held: Callable[..., Any] | None = None

    @functools.wraps(function)
    def at_times(*arguments: Any, **named: Any) -> Any:
        nonlocal held
        if _is_compiling():  # counting would break a graph
            return function(*arguments, **named)
        number = count.one_more()
        if number > FIRST and number % EVERY:
            return function(*arguments, **named)
        if held is None:
            held = _held(function, typechecker)
        return held(*arguments, **named)

    if not count.within:
        at_times.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # diffusers asks often
    return at_times


def _held(function: Any, typechecker: Callable[..., Any]) -> Callable[..., Any]:
    """A function each of whose calls is checked."""
    if shapeless(function):
        return _plainly(function)
    if _known(function):
        return _with_sizes(function)
    held: Callable[..., Any] = _with_shapes(function, typechecker=typechecker)
    return held


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

    return held


def _is_name(hint: Any) -> bool:
    return isinstance(hint, str | typing.ForwardRef | typing.TypeVar | typing.NewType)


def _is_shape(hint: Any) -> bool:
    return inspect.isclass(hint) and hint.__module__.split(".")[0] == "jaxtyping"


def _any_hint(holds: Callable[[Any], bool], hint: Any) -> bool:
    """Whether something holds of a hint or of one in it; a list is the arguments of a callable."""
    parts = hint if isinstance(hint, list | tuple) else typing.get_args(hint)
    return holds(hint) or any(_any_hint(holds, part) for part in parts)
