"""The one way from a configuration node to an object, with every fault named before anything is built."""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, get_type_hints

import hydra.utils
from hydra.errors import InstantiationException
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from p2p_bench.app.signatures import source_signature
from p2p_bench.errors import ConfigError, P2PError, nearest
from p2p_bench.fields import fault_of

Signatures = Callable[[str], inspect.Signature | None]
"""From what a `_target_` names to its signature, annotations evaluated; None where it is not known."""

_RESERVED = ("_target_", "_partial_", "_recursive_", "_convert_")


def node_faults(
    node: Any,
    where: str,
    supplied: Sequence[str] = (),
    signature: Signatures | None = None,
    elsewhere: str | None = None,
) -> list[ConfigError]:
    """What is wrong with a component node and the nodes inside it; builds nothing.

    Args:
        node: A composed node; nodes with a `_target_` are bound against its signature.
        where: Key of the node, such as `controller`, for the messages.
        supplied: Arguments that the caller adds when it builds the object.
        signature: Gives the signature of a target without importing it, or None: then the target is left
            out. None imports every target.
        elsewhere: A node whose values are judged where they stand, such as "tau": those that refer to it are
            of the right kind here if they are there.

    Returns:
        One error per fault: a target that cannot be imported, an unknown, missing or wrongly typed key.
    """
    try:
        plain = (
            OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig | ListConfig) else node
        )
    except OmegaConfBaseException as error:
        return [ConfigError(f"{where}: {str(error).splitlines()[0]}")]
    referring = _referring(node, where, elsewhere) if elsewhere and isinstance(node, DictConfig) else ()
    return list(_faults(plain, where, supplied, signature or _imported_signature, frozenset(referring)))


def _referring(node: DictConfig, where: str, elsewhere: str) -> Iterator[str]:
    """Keys of a node, and of those inside it, whose values are references to another node."""
    plain = OmegaConf.to_container(node, resolve=False)
    places: list[tuple[str, Any]] = [(where, plain)]
    for place, value in places:
        if isinstance(value, dict):
            places += [(f"{place}.{key}", inner) for key, inner in value.items()]
        elif isinstance(value, list):
            places += [(f"{place}[{index}]", inner) for index, inner in enumerate(value)]
        elif isinstance(value, str) and value.startswith(f"${{{elsewhere}."):
            yield place


def instantiate(node: Any, where: str, **supplied: Any) -> Any:
    """Builds the object that a component node describes.

    Args:
        node: A composed node with a `_target_`; `_partial_: true` gives a `functools.partial`.
        where: Key of the node, for the messages.
        supplied: Arguments added to those of the node.

    Returns:
        The object; lists and dictionaries among its arguments are plain Python values.

    Raises:
        ConfigError: The node does not fit its target, or the target refuses the values.
        P2PError: Whatever else of the kind the target raises.
    """
    faults = node_faults(node, where, tuple(supplied))
    if faults:
        raise faults[0]
    try:
        return hydra.utils.instantiate(node, _convert_="all", **supplied)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, P2PError):
            raise cause from error
        raise ConfigError(f"{where}: {cause if cause is not None else error}") from error


def signature_of(target: str) -> inspect.Signature:
    """Signature of what a `_target_` names.

    Raises:
        ConfigError: It cannot be imported.
    """
    return source_signature(target) or inspect.signature(_resolve(target))


def _imported_signature(target: str) -> inspect.Signature:
    """The signature with its annotations evaluated."""
    imported = _resolve(target)
    hints = _hints(imported)
    signature = inspect.signature(imported)
    return signature.replace(
        parameters=[one.replace(annotation=hints.get(one.name, Any)) for one in signature.parameters.values()]
    )


def _resolve(target: str) -> Any:
    try:
        return hydra.utils.get_object(target)
    except Exception as error:  # importing foreign code may raise anything; all of it means "cannot be used"
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ConfigError(f"{target!r} cannot be imported: {reason}") from error


def _faults(
    node: Any, where: str, supplied: Sequence[str], signature: Signatures, elsewhere: Collection[str]
) -> Iterator[ConfigError]:
    if node == MISSING:
        yield ConfigError(f"{where}: a value is required; set {where}=VALUE")
    elif isinstance(node, Mapping):
        for key, value in node.items():
            if key not in _RESERVED:
                yield from _faults(value, f"{where}.{key}", (), signature, elsewhere)
        if "_target_" in node:
            yield from _target_faults(node, where, supplied, signature, elsewhere)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _faults(value, f"{where}[{index}]", (), signature, elsewhere)


def _target_faults(
    node: Mapping[str, Any],
    where: str,
    supplied: Sequence[str],
    signature: Signatures,
    elsewhere: Collection[str],
) -> Iterator[ConfigError]:
    try:
        found = signature(node["_target_"])
    except ConfigError as error:
        yield ConfigError(f"{where}._target_: {error}")
        return
    if found is None:
        return
    parameters = found.parameters
    known = [name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    hints = {name: one.annotation for name, one in parameters.items()}
    given = [key for key in node if key not in _RESERVED]
    for key in given:
        if key not in known and not takes_any:
            yield ConfigError(
                f"{where}.{key}: {node['_target_']} takes no such argument.{nearest(key, known)} "
                f"It takes: {', '.join(known) or 'none'}"
            )
        elif key in hints and node[key] != MISSING and f"{where}.{key}" not in elsewhere:
            fault = fault_of(f"{where}.{key}", node[key], hints[key])
            if fault is not None:
                yield fault
    required = [name for name in known if parameters[name].default is inspect.Parameter.empty]
    for name in required:
        if name not in given and name not in supplied and not node.get("_partial_", False):
            yield ConfigError(f"{where}.{name}: a value is required; set {where}.{name}=VALUE")


def hints_of(target: str) -> dict[str, Any]:
    """Annotations of the arguments of what a `_target_` names; none where they cannot be told."""
    return _hints(_resolve(target))


def _hints(target: Any) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError):  # annotations of foreign code that cannot be evaluated: nothing to check
        return {}
