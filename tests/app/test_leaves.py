"""Every key of the configuration tells runs apart, or is one of those that are known to decide no row."""

import pytest
from omegaconf import DictConfig, OmegaConf

from p2p_bench.app.build import recorded_settings, without_hydra
from p2p_bench.app.compose import compose, group_options
from p2p_bench.app.sweep import group_key

GROUPS = ("model", "controller", "tau", "inversion", "editor", "dataset", "sampler", "metrics", "trainer")

DECIDES_NONE = {
    "run.name", "run.dir", "run.output", "run.batch_size", "run.images", "run.heatmaps", "run.cache",
    "run.cache_gb", "run.resume", "run.timeout", "run.max_errors", "run.plan", "run.objectives", "run.trust",
    "run.optional", "sampler.max_rows", "model.offload",
}  # fmt: skip
"""Where results go, what is kept of them, and how much is done at a time or at most."""

DECIDE_NONE = ("trainer.", "logger.")
"""Who runs batches, which `trainer_faults` keeps from leaving any out, and who is told of finished rows."""

SHARED = ("tau.", "controller.", "logger.")
SHARED_KEYS = {"run.baseline", "run.name", "run.dir", "run.images", "run.heatmaps", "run.optional"}
"""What jobs may differ in that share a pass: each has variants and pictures of its own. What
`run.optional` leaves out is no longer in the settings."""


def leaves(node: object, where: str = "") -> list[str]:
    """Keys of everything that is no node with keys of its own."""
    if isinstance(node, dict) and node:
        return [
            leaf for key, value in node.items() for leaf in leaves(value, f"{where}.{key}" if where else key)
        ]
    return [where]


def changed(config: DictConfig, key: str) -> DictConfig:
    """The configuration with another value of a key, whatever it means."""
    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)
    node = plain
    *parents, last = key.split(".")
    for parent in parents:
        node = node[parent]
    node[last] = "another value"
    return OmegaConf.create(plain)


def configurations() -> dict[str, list[str]]:
    """Overrides that choose each option once."""
    found = {"defaults": []}
    for group in GROUPS:
        for option in group_options(group):
            found[f"{group}={option}"] = [f"{group}={option}"]
    return found


CONFIGURATIONS = configurations()


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_key_tells_runs_apart_or_decides_nothing(name: str) -> None:
    config = compose(CONFIGURATIONS[name], keep_hydra=True)
    settled, hydra = without_hydra(config), config.hydra
    plain = OmegaConf.to_container(settled)
    before, together = recorded_settings(settled, resolve=False), group_key(config)
    own = f"{name.partition('=')[0]}."  # of an option its own keys: the others are those of the defaults
    for key in (key for key in leaves(plain) if name == "defaults" or key.startswith(own)):
        other = changed(settled, key)
        decides = key not in DECIDES_NONE and not key.startswith(DECIDE_NONE)
        assert (recorded_settings(other, resolve=False) != before) == decides, key
        joined = OmegaConf.merge({"hydra": OmegaConf.to_container(hydra, resolve=False)}, other)
        shares = key.startswith(SHARED) or key in SHARED_KEYS
        assert (group_key(joined) == together) == shares, key
