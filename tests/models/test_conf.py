"""The YAML of models, inversions and samplers names arguments that exist."""

from dataclasses import fields
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from p2p_bench.app.instantiate import instantiate, node_faults
from p2p_bench.models.layouts import LAYOUTS
from p2p_bench.models.local import KINDS
from p2p_bench.resources import resource_path
from p2p_bench.sampling import DDIM

FILES = [
    path
    for group in ("model", "inversion", "sampler")
    for path in resource_path("conf", group).glob("*.yaml")
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_option_fits_its_target(path: Path) -> None:
    node = OmegaConf.load(path)
    for key, value in (("path", "somewhere"), ("size", [512, 512])):
        if OmegaConf.is_missing(node, key):
            assert key in str(node_faults(node, path.parent.name)[0])
            node[key] = value
    assert node_faults(node, path.parent.name) == []


def test_the_sampler_makes_its_step_function() -> None:
    node = OmegaConf.load(resource_path("conf", "sampler") / "ddim.yaml")
    node.eta = 0.5
    sampler = instantiate(node, "sampler")
    assert (sampler.steps, sampler.guidance, sampler.max_rows) == (None, None, 80)
    assert sampler.stepper() == DDIM(0.5)


def test_a_family_takes_as_many_steps_by_its_files_as_by_its_class() -> None:
    """What is checked before torch is imported has to know the steps of a checkpoint of any family."""
    for layout in LAYOUTS:
        kind = KINDS[layout.family]
        steps = {field.name: field.default for field in fields(kind)}["steps"]
        assert steps == layout.steps, layout.title
