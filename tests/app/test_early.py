"""Faults that are told before torch is imported are those that a run would tell, in the same words.

That nothing heavy is imported for them is held by `tests/test_imports.py`.
"""

import functools
import inspect
from pathlib import Path
from typing import Any, get_args

import hydra.utils
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from p2p_bench.app.build import build, chosen_options, without_hydra
from p2p_bench.app.compose import checked_overrides, compose, composing
from p2p_bench.app.early import refuse_early
from p2p_bench.app.signatures import source_name, source_signature
from p2p_bench.bench.open_run import read_facts
from p2p_bench.controllers import Replace
from p2p_bench.errors import ErrorList, P2PError
from p2p_bench.fields import Rule, fault_of, fits
from tests.models.small_if import small_if
from tests.models.small_if_upscaler import small_upscaler
from tests.test_imports import targets

FAULTY = {
    "no steps": ["sampler.steps=0"],
    "steps beyond training": ["sampler.steps=1001"],
    "steps that leave noise out": ["sampler.steps=350"],
    "eta": ["sampler.eta=1.5"],
    "spacing": ["sampler.spacing=trailin"],
    "learning rate": ["inversion=null_text", "inversion.learning_rate=-1"],
    "mixing weight": ["inversion=edict", "inversion.p=0"],
    "limit": ["dataset.limit=0"],
    "count": ["dataset=world_real", "dataset.count=0"],
    "categories": ["dataset=world_real", "dataset.categories=[swap_color]"],
    "no pairs": ["dataset=jsonl", "dataset.path=nowhere.jsonl"],
    "no folder of images": ["dataset=jsonl", "dataset.path=pairs.jsonl", "dataset.root=nowhere"],
    "no model": ["model=local", "model.path=./nowhere"],
    "a model that is not whole": ["model=local", "model.path=empty"],
    "a model that was never fetched": ["model=sd14", "model.path=nobody/nothing"],
    "number format": ["model.dtype=int8"],
    "network": ["metrics.lpips.net=alx"],
    "repair": ["run.repair=word", "run.repair_feather=-1"],
    "tau": ["tau.cross=1.6"],
    "tau of a sweep": ["tau.sweep=[{cross: 1, self_attn: 2}]"],
    "tau of a controller": ["controller=pie", "controller.cross=1.6", "controller.self_attn=[1, 0]"],
    "layers": ["controller=masactrl", "controller.layers=1.5", "controller.start_step=-1"],
    "words": ["controller=inject_words", "controller.words=[]"],
    "weights": ["controller=reweight", "controller.weights={fog: .nan}"],
    "pooling": ["controller=local_blend", "controller.pool=2", "controller.start=2"],
    "inside a controller": ["controller=local_blend", "controller.inner.self_attn=7"],
    "several": ["tau.cross=2", "seed=-1", "sampler.steps=0", "dataset.limit=0", "run.repair=word"],
    "several files": ["dataset=jsonl", "dataset.path=nowhere.jsonl", "model=local", "model.path=./nowhere"],
    "files and steps": ["dataset=jsonl", "dataset.path=nowhere.jsonl", "sampler.steps=1001"],
}


def told_early(*overrides: str) -> list[str]:
    """What is told before torch is imported."""
    with composing():
        config = compose(checked_overrides(overrides), keep_hydra=True)
    try:
        refuse_early([without_hydra(config)], overrides)
    except ErrorList as error:
        return sorted(map(str, error.errors))
    return []


def told_late(*overrides: str) -> list[str]:
    """What the classes, and the files that they read, tell."""
    with composing():
        config = compose(checked_overrides(overrides), keep_hydra=True)
    try:
        read_facts(build(without_hydra(config), chosen_options(config.hydra)).task)
    except ErrorList as error:
        return sorted(map(str, error.errors))
    return []


@pytest.mark.parametrize("overrides", FAULTY.values(), ids=FAULTY)
def test_faults_are_told_early_as_they_are_late(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "pairs.jsonl").write_text("{}")
    assert told_early(*overrides) == told_late(*overrides)
    assert told_early(*overrides)


def test_an_upscaler_is_looked_for_as_the_model_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    model = ["model=local", f"model.path={small_if().path}"]
    for folder in ("nowhere", "./nowhere", "nobody/nothing", "empty", small_if().path):
        (told,) = told_early(*model, f"model.upscaler={folder}")
        assert "model 'local'" in told
        assert [told] == told_late(*model, f"model.upscaler={folder}")
    assert told_early(*model, f"model.upscaler={small_upscaler()}") == []
    assert "at least 1" in told_early("model=if_cascade", "model.upscaler_steps=0")[0]


@pytest.mark.parametrize(
    "overrides", [["seed=3"], ["sampler.steps=9", "tau.cross=[0.2,0.4]"], ["model=world"]]
)
def test_good_values_pass(overrides: list[str]) -> None:
    assert told_early(*overrides) == told_late(*overrides) == []


@pytest.mark.parametrize(
    "judged",
    [
        *("sampler.steps=4", "dataset.name=mine", "controller.weights={fog: 2}", "+controller.weights.fog=2"),
        *("trainer.accelerator=cpu", "metrics.lpips.net=alex", "model.dtype=float16"),
        "metrics.clip.weights=x",
    ],
)
def test_a_fault_beside_values_that_annotations_judge_is_told_at_once(judged: str) -> None:
    overrides = ["tau.cross=1.6", judged]
    if judged.startswith("+"):
        overrides.insert(1, "+controller.weights={red: 1}")
    assert told_early(*overrides) == ["tau.cross: expected values in [0, 1] (a share of the steps), got 1.6"]


@pytest.mark.parametrize(
    "unjudged", [["controller=local_blend", "controller.mask=nowhere.png"], ["trainer.accelerator=foo"]]
)
def test_a_fault_beside_values_that_only_a_class_judges_waits_for_it(unjudged: list[str]) -> None:
    assert told_early("tau.cross=1.6", *unjudged) == []


def test_names_are_those_of_the_definition() -> None:
    assert source_name("p2p_bench.models.world_checkpoint") == "p2p_bench.models.world.world_checkpoint"
    assert source_name("p2p_bench.inversion.NoInversion") == "p2p_bench.inversion.none.NoInversion"
    for nothing in ("p2p_bench.nowhere.Thing", "nowhere", 3, None):
        assert source_name(nothing) == ""


REQUIRED: dict[str, Any] = {
    "path": "pairs.jsonl",
    "weights": {"fog": 2.0},
    "words": "fog",
    "controllers": [Replace()],
    "inner": Replace(),
    "url": "http://localhost/v1",
    "model": "judge",
    "checksum": "abc",
    "size": [64, 64],
}
"""Arguments without a default, by name."""


@functools.cache
def ruled() -> list[tuple[str, str]]:
    """Every argument with a rule of every component that a YAML names."""
    found = []
    for target in targets():
        read = source_signature(target) if target.startswith("p2p_bench") else None
        for name, one in read.parameters.items() if read else ():
            if any(isinstance(rule, Rule) for rule in get_args(one.annotation)):
                found.append((target, name))
    return found


numbers = st.floats() | st.integers(-3, 1200) | st.sampled_from([0.0, 1.0, 0.5, 0.3, 2.0, -1.0, 1, 0])
texts = st.sampled_from(["", " ", "fog", "paper", "papr", "correct", "refine", "float16", "swap_shape", "3"])
values = st.one_of(
    st.none(),
    numbers,
    texts,
    st.lists(numbers | texts, max_size=3),
    st.dictionaries(texts, numbers | texts, max_size=2),
    st.fixed_dictionaries({"end": numbers, "ramp": numbers}),
)


def test_most_components_have_rules() -> None:
    assert len(ruled()) > 60
    assert len({target for target, _ in ruled()}) > 20


@settings(deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(st.data())
def test_the_source_judges_a_value_as_its_class_does(data: st.DataObject) -> None:
    target, name = data.draw(st.sampled_from(ruled()))
    read = source_signature(target)
    assert read is not None
    hint = read.parameters[name].annotation
    value = data.draw(values)
    assume(fits(value, hint))
    judge_alike(target, name, value)


@pytest.mark.parametrize(("target", "name"), ruled())
def test_the_source_judges_usual_slips_as_the_class_does(target: str, name: str) -> None:
    read = source_signature(target)
    assert read is not None
    hint = read.parameters[name].annotation
    # Classes take whole numbers for fractions too, but not where the tests check types.
    slips = (-1, 0, 2000) if fits(0, hint) and not fits(0.5, hint) else (-1.0, 0.0, 1.5, 2000.0)
    fitting = [value for value in (*slips, "nothing", "", [], {}, {"fog": 2.0}, None) if fits(value, hint)]
    assert fitting
    for value in fitting:
        judge_alike(target, name, value)


def judge_alike(target: str, name: str, value: Any) -> None:
    """The source's word on an argument has to be the class's."""
    read = source_signature(target)
    assert read is not None
    hint = read.parameters[name].annotation
    early = fault_of(name, value, hint)
    needed = {key for key, one in read.parameters.items() if one.default is inspect.Parameter.empty}
    arguments = {key: REQUIRED[key] for key in needed - {name}}
    if target.endswith("LocalBlend") and name != "words":
        arguments["words"] = "fog"  # other words go with it
    late = _refusal(target, {**arguments, name: value})
    if late is None:
        return
    if early is not None:
        assert late.endswith(str(early))
    else:
        assert f"{name}: expected" not in late or (target.endswith("LocalBlend") and value == [])


def _refusal(target: str, arguments: dict[str, Any]) -> str | None:
    """What a class says against its arguments; "" if nothing; None where only the tests check the type."""
    try:
        hydra.utils.get_object(target)(**arguments)
    except P2PError as error:
        return str(error)
    except TypeCheckError:  # a configuration may hold any text
        return None
    return ""
