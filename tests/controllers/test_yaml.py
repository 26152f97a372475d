"""Controllers and schedules as they are written in YAML and on the command line."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import p2p_bench as p2p
from p2p_bench.app.build import build, chosen_options, without_hydra
from p2p_bench.app.compose import checked_overrides, compose
from p2p_bench.bench.task import Variant
from p2p_bench.controllers import Controller
from p2p_bench.errors import P2PError
from p2p_bench.resources import resource_path

COSINE = p2p.Ramp(end=0.8, ramp=0.3, shape="cosine")


def variants(*overrides: str) -> tuple[Variant, ...]:
    checked = checked_overrides([*overrides, "logger=none", "metrics=none"])
    config = compose(checked, keep_hydra=True)
    return build(without_hydra(config), chosen_options(config.hydra)).task.variants


def controller(*overrides: str) -> Controller:
    (variant,) = variants(*overrides)
    return variant.controller


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["controller=replace", "controller.align=true"], p2p.Replace(align=True)),
        (
            ["controller=replace", "controller.words={red circle: blue square}"],
            p2p.Replace(words={"red circle": "blue square"}),
        ),
        (["controller=refine", "controller.preset=paper"], p2p.Refine(preset="paper")),
        (["controller=inject_words", "controller.words=[circle,on]"], p2p.InjectWords(["circle", "on"])),
        (
            ["controller=inject_words", "controller.words={circle: square}"],
            p2p.InjectWords({"circle": "square"}),
        ),
        (["controller=self_attention", "tau.self_attn=[0.2,0.6]"], p2p.SelfAttention((0.2, 0.6))),
        (["controller=self_attention", "controller.fraction=1"], p2p.SelfAttention(fraction=1)),
        (["controller=masactrl"], p2p.MasaCtrl()),
        (
            ["controller=masactrl", "controller.layers=[2,5]", "controller.start_step=3"],
            p2p.MasaCtrl(3, [2, 5]),
        ),
        (
            [
                "controller=compose",
                "controller.controllers=[{_target_: p2p_bench.controllers.Refine, cross: 0.5},"
                "{_target_: p2p_bench.controllers.MasaCtrl}]",
            ],
            p2p.Compose([p2p.Refine(0.5), p2p.MasaCtrl()]),
        ),
        (["controller=paper"], p2p.paper()),
        (["controller=notebook"], p2p.notebook()),
        (["controller=pie"], p2p.pie()),
        (["controller=pie", "controller.cross=0.7"], p2p.pie(0.7)),
        (["controller=refine", "tau=smooth"], p2p.Refine(COSINE)),
        (["controller=refine", "tau.cross={end: 0.8, ramp: 0.3, shape: cosine}"], p2p.Refine(COSINE)),
        (
            ["controller=replace", "tau.cross={default_: 0.8, circle: [0, 0.3]}"],
            p2p.Replace({"default_": 0.8, "circle": (0, 0.3)}),
        ),
    ],
)
def test_the_command_line_makes_what_python_makes(overrides: list[str], expected: Controller) -> None:
    assert controller(*overrides) == expected


def test_general_schedules_are_named_in_results() -> None:
    sweep = (
        "tau.sweep=[{cross: 0.5}, {cross: {end: 0.8, ramp: 0.3}, self_attn: [0.1, 0.4]}, "
        "{cross: {default_: 0.8, circle: 0.3}}]"
    )
    made = variants("controller=refine", sweep)
    assert [(variant.cross, variant.self_attn) for variant in made] == [
        ("0.5", "0.4"),
        ("0-0.8 linear 0.3", "0.1-0.4"),
        ("0.8, circle 0.3", "0.4"),
    ]
    assert len({variant.name for variant in made}) == 3
    (preset,) = variants("controller=pie")
    assert (preset.cross, preset.self_attn) == ("0.4", "0.6")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tau.cross={end: 0.2, ramp: 0.3}"], "0.3 of the steps do not fit"),
        (["tau.cross={default_: 1.2, circle: 0.3}"], r"tau.cross 'default_': expected values in \[0, 1\]"),
        (["tau.self_attn={end: 0.8, ramp: 0.3}"], "tau.self_attn: expected a number or an interval"),
        (["controller=compose", "controller.controllers=[]"], "expected at least one controller"),
        (["controller=compose"], "controller.controllers: a value is required"),
        (["controller=inject_words"], "controller.words: a value is required"),
        (["controller=masactrl", "controller.layers=1.5"], "controller.layers: expected shares"),
        (["controller=pie", "controller.blend_start=0.5"], "unknown key|takes no such argument"),
    ],
)
def test_bad_values_are_told_before_a_model_is_loaded(overrides: list[str], message: str) -> None:
    with pytest.raises(P2PError, match=message):
        variants(*overrides)


def test_the_notation_page_runs_and_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    """Its examples are executed as they stand."""
    page = (Path(p2p.__file__).parent / "controllers" / "README.md").read_text()
    blocks = [part.split("```")[0] for part in page.split("```python\n")[1:]]
    assert len(blocks) >= 2
    for block in blocks:
        names: dict[str, Any] = {}
        exec(block, names)
        assert any(isinstance(value, Controller) for value in names.values())
    assert f"```\n{capsys.readouterr().out}```" in page


def test_every_controller_has_its_yaml() -> None:
    targets = {
        str(OmegaConf.load(path)["_target_"]) for path in resource_path("conf", "controller").glob("*.yaml")
    }
    made = {
        name
        for name in p2p.__all__
        if isinstance(getattr(p2p, name), type)
        and issubclass(getattr(p2p, name), Controller)
        and name != "Controller"
    }
    assert {f"p2p_bench.controllers.{name}" for name in made | {"paper", "notebook", "pie"}} <= targets
