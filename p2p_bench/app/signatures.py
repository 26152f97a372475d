"""Signatures read from source: what a `_target_` takes, without importing it and so without loading torch.

A misspelt argument, or a value that its annotation refuses, is answered at once instead of after the seconds
that an import of torch takes. What the source does not show plainly is left to the import.
"""

import ast
import functools
import importlib
import importlib.util
import inspect
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from p2p_bench.fields import Rule

_KNOWN = {
    **{one.__name__: one for one in (bool, dict, float, int, list, str, tuple, Path, Mapping, Sequence)},
    "Literal": typing.Literal,
    "Any": Any,
}
"""Names in annotations that stand for plain values; other classes fit whatever is given."""

_LIGHT = ("p2p_bench.fields", "p2p_bench.layers", "p2p_bench.guidance", "p2p_bench.tau", "p2p_bench.types")
"""Modules that load no torch, and so are imported for the annotations and rules that they define."""

_Definition = ast.ClassDef | ast.FunctionDef
_Parameter = inspect.Parameter


def source_signature(target: Any) -> inspect.Signature | None:
    """The signature of what a dotted name stands for, annotations of plain values and their rules evaluated.

    Args:
        target: Such as "p2p_bench.controllers.Replace".

    Returns:
        The signature; None if the source does not tell: then the import has to.
    """
    try:
        return _signature(target) if isinstance(target, str) else None
    except (_Untold, AttributeError, OSError, SyntaxError, TypeError, ValueError, RecursionError):
        return None


def source_name(target: Any) -> str:
    """The dotted name under which the source defines what one stands for; "" if it does not tell."""
    try:
        module, definition = _definition(str(target))
    except (_Untold, OSError, SyntaxError, ValueError, RecursionError):
        return ""
    return f"{module}.{definition.name}"


class _Untold(Exception):  # noqa: N818  # no error: the source does not tell
    """The source does not say it in a way that is understood here."""


def _signature(target: str) -> inspect.Signature:
    module, definition = _definition(target)
    if isinstance(definition, ast.FunctionDef):
        return inspect.Signature(_of_function(module, definition))
    for statement in definition.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return inspect.Signature(_of_function(module, statement)[1:])
    fields = {field.name: field for field in _of_dataclass(module, definition)}
    by_need = sorted(fields.values(), key=lambda field: field.default is not _Parameter.empty)
    return inspect.Signature([field.replace(kind=_Parameter.KEYWORD_ONLY) for field in by_need])


def _definition(target: str) -> tuple[str, _Definition]:
    """The module that defines what a name stands for, and the definition; imports are followed."""
    module, _, name = target.rpartition(".")
    for statement in _statements(_tree(module).body):
        if isinstance(statement, ast.ClassDef | ast.FunctionDef) and statement.name == name:
            return module, statement
        if isinstance(statement, ast.ImportFrom) and statement.level == 0:
            for alias in statement.names:
                if name == (alias.asname or alias.name):
                    return _definition(f"{statement.module}.{alias.name}")
    raise _Untold(target)


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module, also those under `if TYPE_CHECKING`."""
    for statement in body:
        yield from _statements(statement.body) if isinstance(statement, ast.If) else [statement]


@functools.cache
def _tree(module: str) -> ast.Module:
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)  # of a top-level name, which imports nothing
    if spec is None or not spec.submodule_search_locations:
        raise _Untold(module)
    for location in spec.submodule_search_locations:
        place = Path(location, *rest)
        for path in (place / "__init__.py", place.with_suffix(".py")):
            if path.is_file():
                return ast.parse(path.read_text(encoding="utf-8"))
    raise _Untold(module)


def _of_function(module: str, function: ast.FunctionDef) -> list[_Parameter]:
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    without = len(positional) - len(arguments.defaults)
    defaults = [None] * without + list(arguments.defaults)
    found = [
        _parameter(module, argument.arg, argument.annotation, default, _Parameter.POSITIONAL_OR_KEYWORD)
        for argument, default in zip(positional, defaults, strict=True)
    ]
    found += [
        _parameter(module, argument.arg, argument.annotation, default, _Parameter.KEYWORD_ONLY)
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    if arguments.kwarg is not None:
        found.append(_Parameter(arguments.kwarg.arg, _Parameter.VAR_KEYWORD))
    return found


def _of_dataclass(module: str, definition: ast.ClassDef) -> list[_Parameter]:
    """Fields of a dataclass, those of its bases first; a class without fields takes nothing."""
    if definition.keywords:
        raise _Untold(definition.name)
    fields: list[_Parameter] = []
    for base in definition.bases:
        if isinstance(base, ast.Name) and base.id in ("ABC", "object", "Protocol"):
            continue
        name = ast.unparse(base)
        where, parent = _definition(f"{module}.{name}")
        if isinstance(parent, ast.FunctionDef):
            raise _Untold(name)
        if any(isinstance(one, ast.FunctionDef) and one.name == "__init__" for one in parent.body):
            raise _Untold(name)
        fields += _of_dataclass(where, parent)
    if not any("dataclass" in ast.unparse(decorator) for decorator in definition.decorator_list):
        return fields
    for statement in definition.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        written = ast.unparse(statement)
        if "ClassVar" in ast.unparse(statement.annotation) or "init=False" in written:
            continue
        default = statement.value
        if default is not None and "field(" in written and "default" not in written:
            default = None
        name, annotation = statement.target.id, statement.annotation
        fields.append(_parameter(module, name, annotation, default, _Parameter.KEYWORD_ONLY))
    return fields


def _parameter(
    module: str, name: str, annotation: ast.expr | None, default: ast.expr | None, kind: Any
) -> _Parameter:
    """A parameter; a default that is no plain value is None."""
    hint = Any if annotation is None else _evaluated(module, annotation)
    if default is None:
        return _Parameter(name, kind, annotation=hint)
    try:
        return _Parameter(name, kind, default=ast.literal_eval(default), annotation=hint)
    except ValueError:
        return _Parameter(name, kind, default=None, annotation=hint)


def _evaluated(module: str, annotation: ast.expr) -> Any:
    """The annotation as an object, where plain values decide; `Any` for everything else."""
    match annotation:
        case ast.Constant(value=None):
            return None
        case ast.Constant(value=str(text)):
            return _evaluated(module, ast.parse(text, mode="eval").body)
        case ast.Name(id=name):
            return _KNOWN[name] if name in _KNOWN else _named(module, name)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            options = (_evaluated(module, left), _evaluated(module, right))
            return Any if Any in options else options[0] | options[1]
        case ast.Subscript(value=ast.Name(id="Literal"), slice=values):
            return typing.Literal[ast.literal_eval(values)]
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[plain, *rules])):
            found = [rule for rule in (_rule(module, one) for one in rules) if isinstance(rule, Rule)]
            hint = _evaluated(module, plain)
            return typing.Annotated[(hint, *found)] if found else hint
        case ast.Subscript(value=ast.Name(id="tuple" | "list" | "Sequence" | "dict" | "Mapping" as name)):
            return _of_items(module, _KNOWN[name], annotation.slice)
    return Any


def _named(module: str, name: str) -> Any:
    """What a name stands for in an annotation: an alias, wherever it is written."""
    try:
        where, found = _assigned(module, name)
    except _Untold:
        return Any
    return _evaluated(where, found) if isinstance(found, ast.expr) else found


def _assigned(module: str, name: str) -> tuple[str, Any]:
    """The module that gives a name its value, and the expression; for a light module the value itself.

    Raises:
        _Untold: It is not given by one assignment.
    """
    if module in _LIGHT:
        return module, getattr(importlib.import_module(module), name)
    for statement in _statements(_tree(module).body):
        match statement:
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                return module, value
            case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value) if target == name:
                return module, value
            case ast.ImportFrom(module=str(source), names=names, level=0) if _is_near(source, module):
                for alias in names:
                    if name == (alias.asname or alias.name):
                        return _assigned(source, alias.name)
    raise _Untold(name)


def _is_near(source: str, module: str) -> bool:
    """Whether an import is worth to be followed: those of other packages hold no rules, and are long."""
    return source.partition(".")[0] in (module.partition(".")[0], "p2p_bench")


def _rule(module: str, expression: ast.expr) -> Any:
    """A rule of an annotation, and whatever it is made with; None if that is no plain value."""
    match expression:
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords):
            made = _assigned(module, name)[1]
            if not (isinstance(made, type) and issubclass(made, Rule)):
                return None
            named = {one.arg: _plain(module, one.value) for one in keywords if one.arg is not None}
            return made(*(_plain(module, one) for one in arguments), **named)
        case ast.Name(id=name):
            where, found = _assigned(module, name)
            return _rule(where, found) if isinstance(found, ast.expr) else found
    return None


def _plain(module: str, expression: ast.expr) -> Any:
    """A number, a text or a tuple of these, also by name."""
    if isinstance(expression, ast.Name):
        module, found = _assigned(module, expression.id)
        return _plain(module, found) if isinstance(found, ast.expr) else found
    return ast.literal_eval(expression)


def _of_items(module: str, container: Any, items: ast.expr) -> Any:
    parts = items.elts if isinstance(items, ast.Tuple) else [items]
    evaluated = tuple(
        ... if isinstance(part, ast.Constant) and part.value is ... else _evaluated(module, part)
        for part in parts
    )
    return types.GenericAlias(container, evaluated)
