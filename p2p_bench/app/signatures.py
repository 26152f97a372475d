"""Signatures read from source: what a `_target_` takes, without importing it and so without loading torch.

A misspelt argument is answered at once instead of after the seconds that an import of torch takes. What the
source does not show plainly is left to the import.
"""

import ast
import functools
import importlib.util
import inspect
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_KNOWN = {
    **{one.__name__: one for one in (bool, dict, float, int, list, str, tuple, Path, Mapping, Sequence)},
    "Literal": typing.Literal,
    "Any": Any,
}
"""Names in annotations that stand for plain values; any other fits whatever is given."""

_Definition = ast.ClassDef | ast.FunctionDef
_Parameter = inspect.Parameter


def source_signature(target: Any) -> inspect.Signature | None:
    """The signature of what a dotted name stands for, with annotations of plain values evaluated.

    Args:
        target: Such as "p2p_bench.controllers.Replace".

    Returns:
        The signature; None if the source does not tell: then the import has to.
    """
    try:
        return _signature(target) if isinstance(target, str) else None
    except (_Untold, OSError, SyntaxError, ValueError, RecursionError):
        return None


class _Untold(Exception):  # noqa: N818  # no error: the source does not tell
    """The source does not say it in a way that is understood here."""


def _signature(target: str) -> inspect.Signature:
    module, definition = _definition(target)
    if isinstance(definition, ast.FunctionDef):
        return inspect.Signature(_of_function(definition))
    for statement in definition.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return inspect.Signature(_of_function(statement)[1:])
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


def _of_function(function: ast.FunctionDef) -> list[_Parameter]:
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    without = len(positional) - len(arguments.defaults)
    defaults = [None] * without + list(arguments.defaults)
    found = [
        _parameter(argument.arg, argument.annotation, default is not None, _Parameter.POSITIONAL_OR_KEYWORD)
        for argument, default in zip(positional, defaults, strict=True)
    ]
    found += [
        _parameter(argument.arg, argument.annotation, default is not None, _Parameter.KEYWORD_ONLY)
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
        has_default = (statement.value is not None and "field(" not in written) or "default" in written
        fields.append(
            _parameter(statement.target.id, statement.annotation, has_default, _Parameter.KEYWORD_ONLY)
        )
    return fields


def _parameter(name: str, annotation: ast.expr | None, has_default: bool, kind: Any) -> _Parameter:
    return _Parameter(
        name, kind, default=None if has_default else _Parameter.empty, annotation=_evaluated(annotation)
    )


def _evaluated(annotation: ast.expr | None) -> Any:
    """The annotation as an object, where plain values decide; `Any` for everything else."""
    match annotation:
        case ast.Constant(value=None):
            return None
        case ast.Name(id=name):
            return _KNOWN.get(name, Any)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            options = (_evaluated(left), _evaluated(right))
            return Any if Any in options else options[0] | options[1]
        case ast.Subscript(value=ast.Name(id="Literal"), slice=values):
            return typing.Literal[ast.literal_eval(values)]
        case ast.Subscript(value=ast.Name(id="tuple" | "list" | "Sequence" | "dict" | "Mapping" as name)):
            return _of_items(_KNOWN[name], annotation.slice)
    return Any


def _of_items(container: Any, items: ast.expr) -> Any:
    parts = items.elts if isinstance(items, ast.Tuple) else [items]
    evaluated = tuple(
        ... if isinstance(part, ast.Constant) and part.value is ... else _evaluated(part) for part in parts
    )
    return types.GenericAlias(container, evaluated)
