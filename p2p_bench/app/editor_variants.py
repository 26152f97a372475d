"""The variants of editors that are not told how to edit."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from p2p_bench.errors import ConfigError

if TYPE_CHECKING:
    from p2p_bench.bench.task import Variant
    from p2p_bench.editors import EditorSettings

NO_CONTROL = {
    "controller": {"_target_": "p2p_bench.controllers.NoControl"},
    "tau": {"cross": None, "self_attn": None},
}
"""What is a variant's own where nothing is controlled."""


def variants_of_editor(config: DictConfig, built: Mapping[str, Any]) -> "tuple[Variant, ...]":
    """The variants of an editor that finds images, or has a way of its own to make them; () for others.

    Args:
        config: The composed configuration.
        built: Its components by group.

    Raises:
        ConfigError: Something is set that an editor with a way of its own would not do.
    """
    return _known_variants(built["editor"]) or _own_variant(config, built)


def _known_variants(editor: "EditorSettings") -> "tuple[Variant, ...]":
    """The variants of an editor that finds images instead of making them; none where it makes them."""
    from p2p_bench.bench.task import Variant
    from p2p_bench.controllers import NoControl

    return tuple(
        Variant(one.name, NoControl(), one.controller, one.cross, one.self_attn, dict(NO_CONTROL))
        for one in editor.known_variants()
    )


def _own_variant(config: DictConfig, built: Mapping[str, Any]) -> "tuple[Variant, ...]":
    """The variant of an editor that follows no controller and no inversion; none where it is told those.

    Raises:
        ConfigError: Something is set that such an editor would not do.
    """
    from p2p_bench.bench.task import Variant
    from p2p_bench.controllers import NoControl
    from p2p_bench.inversion import NoInversion

    own = built["editor"].own_variant()
    if own is None:
        return ()
    controlled = [one for one in built["controller"] if not isinstance(one.controller, NoControl)]
    if controlled or not isinstance(built["inversion"], NoInversion):
        raise ConfigError(
            f"editor: {type(built['editor']).__name__} controls no attention and inverts no image; set "
            "controller=none inversion=none"
        )
    if config.run.baseline:
        raise ConfigError("run.baseline: there is nothing but what the editor does; leave it out")
    if config.run.repair == "words":
        raise ConfigError("run.repair=words: this editor keeps no attention; set run.repair=mask or none")
    return (Variant(own.name, NoControl(), own.controller, own.cross, own.self_attn, dict(NO_CONTROL)),)
