"""Composes each configuration once: a command checks it, Hydra runs it, and both take a tenth of a second."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from p2p_bench.app.schema import register_schema
from p2p_bench.resources import resource_path

HYDRA_VERSION_BASE = "1.3"
_NAME = "run"
_SHIPPED = ("main", "hydra")
"""Providers of files that do not change: this package and Hydra."""


class Repository(ConfigRepository):
    """Hydra's files of configuration, of which those that are shipped are read once."""

    def load_config(self, config_path: str) -> ConfigResult | None:
        """See `ConfigRepository`. What it returns is the caller's own."""
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None or source.provider not in _SHIPPED:
            return super().load_config(config_path)
        place = (source.path, config_path)
        if place not in _READ:
            _READ[place] = super().load_config(config_path)
        return deepcopy(_READ[place])


_READ: dict[tuple[str, str], ConfigResult | None] = {}
"""What `Repository` has read."""


class Loader(ConfigLoaderImpl):
    """Hydra's loader over the shipped configuration; what it has composed, it hands out as copies.

    Options are composed, which is slow, and remembered; settings of single keys are put into the copy.
    """

    def __init__(self) -> None:
        path = create_config_search_path(str(resource_path("conf")))
        super().__init__(path)
        self.repository = Repository(path)

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """See `ConfigLoaderImpl`. `from_shell` is taken for false: messages show no shell's quotes."""
        if any("hydra.searchpath" in override for override in overrides):  # the user's files may change
            return _loaded.__wrapped__(config_name, tuple(overrides), run_mode, validate_sweep_overrides)
        parsed = [_parsed(text) for text in overrides]
        swept = any(override.is_sweep_override() for override in parsed)
        settings = [] if swept else [override for override in parsed if self._is_setting(override)]
        options = tuple(
            text for text, override in zip(overrides, parsed, strict=True) if override not in settings
        )
        config = deepcopy(_loaded(config_name, options, run_mode, validate_sweep_overrides))
        OmegaConf.clear_cache(config)  # the time of day, which names directories, is each one's own
        self._apply_overrides_to_config(settings, config)
        _note(config, [override for override in parsed if not override.is_hydra_override()])
        return config

    def _is_setting(self, override: Override) -> bool:
        """Whether it sets a single key of the run's own: it chooses no option, and is nothing of Hydra's."""
        if override.is_hydra_override():
            return False
        return isinstance(override.value(), dict) or not self.repository.group_exists(override.key_or_group)


def _note(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Notes in Hydra's node what was asked for, and where: the copy knows the options alone."""
    hydra, form = config.hydra, config.hydra.job.config.override_dirname
    hydra.overrides.task = [override.input_line for override in overrides]
    hydra.job.override_dirname = get_overrides_dirname(
        list(overrides), exclude_keys=form.exclude_keys, item_sep=form.item_sep, kv_sep=form.kv_sep
    )
    hydra.runtime.cwd = os.getcwd()


@functools.lru_cache(maxsize=1024)
def _parsed(override: str) -> Override:
    """An override, to be read only."""
    return _parser().parse_overrides([override])[0]


@functools.lru_cache(maxsize=1)
def _parser() -> OverridesParser:
    return OverridesParser.create()


@functools.lru_cache(maxsize=64)
def _loaded(
    config_name: str | None, overrides: tuple[str, ...], run_mode: RunMode, validate: bool
) -> DictConfig:
    """What Hydra composes."""
    register_schema()
    return ConfigLoaderImpl.load_configuration(
        Loader(), config_name, list(overrides), run_mode, from_shell=False, validate_sweep_overrides=validate
    )


def load(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """The configuration of one job, with Hydra's node.

    Raises:
        HydraException: It cannot be composed.
        OmegaConfBaseException: Likewise.
    """
    with _hydra() as hydra:
        config = hydra.compose_config(config_name, list(overrides), RunMode.RUN, from_shell=False)
    assert isinstance(config, DictConfig)
    return config


def run(config_name: str, overrides: Sequence[str], multirun: bool, job: Callable[[DictConfig], Any]) -> None:
    """What `hydra.main` does with a command line that runs something.

    Args:
        config_name: Name of the root YAML.
        overrides: Settings, known to be good.
        multirun: Whether they describe a sweep.
        job: Called with each job's configuration, where Hydra's launcher has it run.
    """
    words = [*overrides, "hydra.mode=MULTIRUN"] if multirun else list(overrides)
    with _hydra() as hydra:
        (hydra.multirun if multirun else hydra.run)(config_name, job, words)


@contextmanager
def _hydra() -> Iterator[Hydra]:
    """Hydra over the shipped configuration, in the place of one that is there already."""
    version.setbase(HYDRA_VERSION_BASE)
    place = GlobalHydra.instance()
    before = place.hydra
    place.clear()
    hydra = Hydra(_NAME, Loader())
    place.initialize(hydra)
    try:
        yield hydra
    finally:
        place.hydra = before
