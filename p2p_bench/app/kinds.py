"""What a component of each group has to be, as far as it shows before anything is computed."""

from typing import Any

from p2p_bench.app.instantiate import instantiate
from p2p_bench.errors import ConfigError

_HAS = {
    "model": ("a checkpoint", ("spec", "reader", "load")),
    "dataset": ("a data set", ("name", "pairs", "load")),
    "metrics": ("a metric", ("columns", "check", "__call__")),
}
"""Of groups whose components derive from nothing: what one is called and has."""


def component_of(node: Any, group: str, where: str) -> Any:
    """Builds the component that a node of a group describes.

    Args:
        node: A composed node with a `_target_`.
        group: Such as "controller".
        where: Key of the node, for messages.

    Raises:
        ConfigError: The node does not fit its target, or the target is not of the group.
        P2PError: Whatever else of the kind the target raises.
    """
    component = instantiate(node, where)
    check_kind(component, group, where)
    return component


def check_kind(component: Any, group: str, where: str) -> None:
    """Sees that a component is of its group; groups that are not of this project's kinds always pass.

    Args:
        component: What a `_target_` made.
        group: Such as "controller".
        where: Key of its node, for the message.

    Raises:
        ConfigError: It is not.
    """
    name = type(component).__name__
    words, needed = _HAS.get(group, ("", ()))
    lacking = [one for one in needed if not hasattr(component, one)]
    if lacking:
        raise ConfigError(
            f"{where}: {name} is not {words}, which has {_listed(needed)}; it lacks {_listed(lacking)}"
        )
    base = _base(group)
    if base is not None and not isinstance(component, base):
        raise ConfigError(f"{where}: {name} does not derive from {base.__module__}.{base.__name__}")


def _base(group: str) -> type | None:
    """What components of a group derive from."""
    from p2p_bench.controllers import Controller
    from p2p_bench.editors import EditorSettings
    from p2p_bench.inversion import Inversion

    return {"controller": Controller, "inversion": Inversion, "editor": EditorSettings}.get(group)


def _listed(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)
