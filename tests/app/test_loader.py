"""A configuration is composed once, and what was composed is handed out as copies."""

from pathlib import Path

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from p2p_bench.app.compose import compose, composed
from p2p_bench.app.loader import Loader, _loaded, load
from tests.app.command import Command


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[str, ...], RunMode]]:
    """Overrides and mode of everything that Hydra composes."""
    _loaded.cache_clear()
    whole, seen = ConfigLoaderImpl.load_configuration, []

    def counted(self, config_name, overrides, run_mode, from_shell=True, validate_sweep_overrides=True):
        seen.append((tuple(overrides), run_mode))
        return whole(self, config_name, overrides, run_mode, from_shell, validate_sweep_overrides)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counted)
    return seen


def test_a_run_is_composed_once(command: Command, made: list[tuple[tuple[str, ...], RunMode]]) -> None:
    assert command.bench("run.images=0", "logger=none", "run.dir=out").code == 0
    assert [mode for _, mode in made] == [RunMode.RUN]


def test_of_a_sweep_nothing_is_composed_twice(
    command: Command, made: list[tuple[tuple[str, ...], RunMode]]
) -> None:
    swept = command.bench("-m", "tau.cross=0.2,0.8", "run.images=0", "logger=none", "run.dir=out")
    assert swept.code == 0
    assert len(made) == len(set(made))
    assert sum(mode == RunMode.MULTIRUN for _, mode in made) == 1


def test_settings_of_single_keys_compose_nothing_anew(made: list[tuple[tuple[str, ...], RunMode]]) -> None:
    for steps in range(2, 6):
        config = load("config", [f"sampler.steps={steps}", "controller=replace", "+sampler.kind=x"])
        assert (config.sampler.steps, config.sampler.kind) == (steps, "x")
    assert [overrides for overrides, _ in made] == [("controller=replace",)]


ASKED: dict[str, list[str]] = {
    "nothing": [],
    "options and keys": ["sampler=euler", "sampler.steps=7", "controller=replace", "seed=4", "seed=5"],
    "a mapping for an option": ["sampler={steps: 3}", "metrics=[default,pixel]", "~metrics.lpips"],
    "keys added and removed": ["+sampler.kind=1", "++sampler.kind=2", "~dataset.limit", "~metrics"],
    "texts": ["run.name='a=b,c'", "run.dir=${run.name}", "run.objectives=[a,b]"],
    "Hydra's own": ["hydra.job.config.override_dirname.exclude_keys=[seed]", "seed=3", "hydra.run.dir=x"],
    "a sweep": ["seed=1,2", "sampler.steps=3"],
    "an unknown key": ["sampler.nosuch=1"],
    "an unknown option": ["seed=3", "sampler=nosuch"],
    "a wrong type": ["seed=x"],
    "a group that is none": ["sampler/x=1"],
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_it_composes_what_hydra_composes(asked: list[str]) -> None:
    mode = RunMode.MULTIRUN if "seed=1,2" in asked else RunMode.RUN
    found = []
    for loader in (Loader.load_configuration, ConfigLoaderImpl.load_configuration):
        try:
            found.append(OmegaConf.to_yaml(loader(Loader(), "config", asked, mode, from_shell=False)))
        except (HydraException, OmegaConfBaseException) as error:
            found.append(f"{type(error)}: {error}")
    assert found[0] == found[1]


def test_what_is_changed_or_resolved_in_one_is_not_in_the_next() -> None:
    first = load("config", ["seed=3"])
    assert OmegaConf.select(first, "hydra.run.dir")
    first.run.name = "another"
    second = load("config", ["seed=3"])
    assert (second.seed, second.run.name) == (3, "run")
    assert second._metadata.resolver_cache.keys().isdisjoint({"now"})


def test_shipped_files_are_read_once_and_what_they_hold_is_each_ones_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, read = OmegaConf.load, []
    monkeypatch.setattr(OmegaConf, "load", lambda file: read.append(file) or whole(file))
    before = load("config", ["seed=4", "controller=local_blend", "hydra.verbose=a"])
    wanted = OmegaConf.to_yaml(load("config", ["seed=5", "controller=local_blend", "hydra.verbose=b"]))
    read.clear()
    before.controller._target_ = "nowhere"
    before.tau.cross = 0.125
    again = OmegaConf.to_yaml(load("config", ["seed=6", "controller=local_blend", "hydra.verbose=c"]))
    assert again == wanted.replace("seed: 5", "seed: 6").replace("seed=5", "seed=6").replace(
        "verbose: b", "verbose: c"
    ).replace("verbose=b", "verbose=c")
    assert not read


def test_a_hydra_that_is_there_already_is_left_as_it_was() -> None:
    before = GlobalHydra.instance().hydra
    load("config", [])
    assert GlobalHydra.instance().hydra is before


def test_a_users_own_files_may_change_between_two_calls(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    file = tmp_path / "dataset" / "mine.yaml"
    overrides = (f"hydra.searchpath=[file://{tmp_path}]", "dataset=mine")
    for path in ("a.jsonl", "b.jsonl"):
        file.write_text(f"_target_: p2p_bench.data.JsonlPairs\npath: {path}\nlimit: null\n")
        assert compose(overrides).dataset.path == path
        assert composed(overrides).dataset.path == path
