"""Every key of the configuration tells runs apart, or is one of those that are known to decide no row."""

from typing import Any

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


def put(config: DictConfig, key: str, value: Any) -> None:
    """Gives a key another value, whatever it means."""
    OmegaConf.update(config, key, value, merge=False, force_add=True)


def value_of(node: Any, key: str) -> Any:
    for part in key.split("."):
        node = node[part]
    return node


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
    plain = OmegaConf.to_container(without_hydra(config))
    settled = OmegaConf.create(plain)
    joined = OmegaConf.create({"hydra": OmegaConf.to_container(config.hydra), **plain})
    before, together = recorded_settings(settled, resolve=False), group_key(joined)
    own = f"{name.partition('=')[0]}."  # of an option its own keys: the others are those of the defaults
    for key in (key for key in leaves(plain) if name == "defaults" or key.startswith(own)):
        put(settled, key, "another value")
        put(joined, key, "another value")
        decides = key not in DECIDES_NONE and not key.startswith(DECIDE_NONE)
        assert (recorded_settings(settled, resolve=False) != before) == decides, key
        shares = key.startswith(SHARED) or key in SHARED_KEYS
        assert (group_key(joined) == together) == shares, key
        put(settled, key, value_of(plain, key))
        put(joined, key, value_of(plain, key))
    assert recorded_settings(settled, resolve=False) == before
