"""Every shipped YAML composes and fits the class that it names."""

import pytest
from omegaconf import DictConfig, OmegaConf

from p2p_bench.app.build import build, chosen_options, without_hydra
from p2p_bench.app.compose import checked_overrides, compose, config_dir, group_options, one_job_each
from p2p_bench.app.instantiate import node_faults
from p2p_bench.app.schema import COMPONENT_GROUPS, RootConfig
from p2p_bench.errors import ErrorList
from tests.app.command import SWEEP

OPTIONS = [(group, option) for group in COMPONENT_GROUPS for option in group_options(group)]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_options_fit_their_classes(group, option):
    config = compose([f"{group}={option}"])
    node = config[group]
    several = group in ("metrics", "logger")
    nodes = {f"{group}.{name}": node[name] for name in node} if several else {group: node}
    assert all("_target_" in component for component in nodes.values())
    faults = [fault for where, component in nodes.items() for fault in node_faults(component, where)]
    # Only values that nobody but the user can know may be missing.
    assert [fault for fault in faults if "a value is required" not in str(fault)] == []


@pytest.mark.parametrize("option", group_options("experiment"))
def test_experiments_build(option):
    tables = option.startswith("pie_table")
    missing = ["dataset.path=set"] if tables else []
    config = compose([f"experiment={option}", *missing], keep_hydra=True)
    parts = build(without_hydra(config), chosen_options(config.hydra))
    assert parts.name == option
    assert parts.task.variants


@pytest.mark.parametrize("option", group_options("tau"))
def test_schedules_compose(option):
    assert build(compose([f"tau={option}"]), {}).task.variants


def test_nothing_in_conf_is_left_out():
    groups = {path.name for path in config_dir().iterdir() if path.is_dir()}
    assert groups - {"world", "hydra"} == {*COMPONENT_GROUPS, "tau", "experiment"}
    assert set(RootConfig.__dataclass_fields__) == {*COMPONENT_GROUPS, "tau", "run", "seed"}


def test_yaml_states_its_purpose():
    for path in config_dir().rglob("*.yaml"):
        assert path.read_text(encoding="utf-8").startswith("#"), f"{path}: the first line says what it is for"


def variants(*overrides: str) -> list[str]:
    """Names of the variants of a configuration."""
    config = compose(checked_overrides(overrides), keep_hydra=True)
    return [
        variant.name for variant in build(without_hydra(config), chosen_options(config.hydra)).task.variants
    ]


def test_variants_of_a_run():
    assert variants("controller=replace") == ["replace"]
    assert variants(SWEEP, "run.baseline=true", "controller=refine") == [
        "none", "refine 0.2/0.1", "refine 0.5/0.25", "refine 0.8/0.4",
    ]  # fmt: skip
    assert variants("tau.sweep=[{cross: [0.2, 0.8], self_attn: 0.0}]") == ["auto"]
    assert variants("tau.sweep=[{cross: [0.2, 0.8], self_attn: 0.0}, {cross: 1.0}]") == [
        "auto 0.2-0.8/0",
        "auto 1/0.4",
    ]


def test_variants_of_a_wrapped_controller_have_its_schedules_in_their_names():
    points = "tau.sweep=[{cross: 0.2}, {cross: 0.4, self_attn: 0.1}]"
    assert variants("controller=local_blend", points) == ["local_blend 0.2/0.4", "local_blend 0.4/0.1"]


def test_equal_variants_are_measured_once():
    assert variants("controller=none", SWEEP, "run.baseline=true") == ["none"]
    assert variants("tau.sweep=[{cross: 0.2}, {cross: 0.2}]") == ["auto 0.2/0.4"]


def test_values_of_a_class_need_no_plus():
    overrides = checked_overrides(["controller=replace", "controller.preset=paper", "tau.cross=0.3"])
    assert overrides == ["controller=replace", "+controller.preset=paper", "tau.cross=0.3"]
    assert compose(overrides).controller.preset == "paper"


def test_an_empty_mapping_takes_any_key():
    typed = ["world=smoke", "world.unet.steps=7", "world.clip={}", "world.seed=3"]
    assert checked_overrides(typed, config_name="train_world") == typed
    typed = ["world=default", "world.unet.steps=7", "world.unet.batch=3"]
    checked = checked_overrides(typed, config_name="train_world")
    assert compose(checked, "train_world").world.unet == {"steps": 7, "batch": 3}


def test_a_sweep_keeps_the_order_as_typed():
    typed = ["tau.cross=0.2,0.4", "controller=replace,refine", "seed=3"]
    checked = checked_overrides(typed, multirun=True)
    assert checked == typed
    jobs = one_job_each(checked)
    assert jobs == [
        ["tau.cross=0.2", "controller=replace", "seed=3"],
        ["tau.cross=0.4", "controller=replace", "seed=3"],
        ["tau.cross=0.2", "controller=refine", "seed=3"],
    ]


def test_of_ranges_the_ends_are_tried():
    jobs = one_job_each(["tau.cross=range(0,1,step=0.25)", "tau.self_attn=interval(0,2)", "seed=range(3,4)"])
    assert jobs == [
        ["tau.cross=0.0", "tau.self_attn=0.0", "seed=3"],
        ["tau.cross=0.75", "tau.self_attn=0.0", "seed=3"],
        ["tau.cross=0.0", "tau.self_attn=2.0", "seed=3"],
    ]
    with pytest.raises(ErrorList, match="the range is empty"):
        checked_overrides(["seed=range(3,3)"], multirun=True)


def test_lists_are_values_and_not_sweeps():
    assert compose(checked_overrides(["tau.cross=[0.2,0.8]"])).tau.cross == [0.2, 0.8]
    config = compose(checked_overrides(["logger=[csv,wandb]"]))
    assert set(config.logger) == {"csv", "wandb"}


def test_the_root_refuses_what_it_does_not_know():
    with pytest.raises(ErrorList, match="unknown key 'images_'"):
        checked_overrides(["run.images_=3"])
    with pytest.raises(ErrorList, match="run=fast: Invalid type"):
        checked_overrides(["run=fast"])


def test_controllers_follow_tau():
    config = compose(["controller=replace", "tau.cross=0.3", "tau.self_attn=0.1"])
    assert isinstance(config, DictConfig)
    assert OmegaConf.to_container(config.controller, resolve=True)["cross"] == 0.3


def test_results_go_where_they_are_told():
    hydra = compose(["experiment=demo"], keep_hydra=True).hydra
    assert hydra.run.dir.startswith("outputs/demo/2")
    assert hydra.sweep.dir.startswith("outputs/demo/sweep-2")
    assert hydra.runtime.choices["hydra/launcher"] == "shared"
    hydra = compose(["run.dir=here"], keep_hydra=True).hydra
    assert hydra.run.dir == hydra.sweep.dir == "here"
