"""Every value has a spelling: letters, quotes and signs that Hydra's grammar lacks."""

import shlex

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from p2p_bench.app.build import without_hydra
from p2p_bench.app.compose import checked_overrides, compose
from p2p_bench.app.spelling import for_shell, quoted, readable, restore_keys, spelled
from p2p_bench.errors import ErrorList
from tests.app.command import PAIRS

MAPPINGS = {
    "{café: 2}": {"café": 2},
    "{cat's: 2}": {"cat's": 2},
    "{猫: 2, red: 0.5}": {"猫": 2, "red": 0.5},
    "{\"café au lait\": 2, 'it\\'s': 3}": {"café au lait": 2, "it's": 3},
    "{\"1\": 2, 'null': 3}": {"1": 2, "null": 3},
    "{red circle: 2}": {"red circle": 2},
    "{🦊: [0, 0.5]}": {"🦊": [0, 0.5]},
    "{a: {é: 'x, y'}, b: [ö, 'q']}": {"a": {"é": "x, y"}, "b": ["ö", "q"]},
}


@pytest.mark.parametrize(("typed", "meant"), MAPPINGS.items())
def test_mappings_with_any_key(typed, meant):
    config = compose(checked_overrides(["controller=reweight", f"controller.weights={typed}"]))
    assert without_hydra(config).controller.weights == meant


def parsed(text: str):
    """The value of an override as a component gets it."""
    node = OmegaConf.create({"value": OverridesParser.create().parse_override(text).value()})
    restore_keys(node)
    return OmegaConf.to_container(node)["value"]


WORDS = st.text(
    st.one_of(st.characters(blacklist_categories=("Cs", "Cc")), st.sampled_from("'\"\\,:{}[]=$ é猫")),
    min_size=1,
    max_size=8,
).filter(lambda word: "${" not in word)


@settings(max_examples=150, deadline=None)
@given(words=st.dictionaries(WORDS, WORDS, min_size=1, max_size=3))
def test_any_mapping_has_a_quoted_spelling(words):
    def text(word: str) -> str:
        return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'

    typed = "key={" + ", ".join(f"{text(key)}: {text(value)}" for key, value in words.items()) + "}"
    written = spelled(typed)
    assert readable(written), written
    assert parsed(written) == words


@settings(max_examples=100, deadline=None)
@given(word=WORDS)
def test_any_text_has_the_form_that_is_named(word):
    assert parsed(f"key={quoted(word)}") == word
    (form,) = shlex.split(for_shell("key", word))
    assert parsed(form) == word


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.sampled_from("abé 1.,:{}[]'\"=$\\(")))
def test_what_hydra_reads_is_left_as_it_is_typed(text):
    if readable(f"key={text}"):
        assert spelled(f"key={text}") == f"key={text}"


@pytest.mark.parametrize("name", ["my pairs.jsonl", "a=b.jsonl", "pärchen.jsonl", "a$b.jsonl", "cat's.jsonl"])
def test_paths_are_taken_as_typed(name):
    assert compose(checked_overrides(["dataset=jsonl", f"dataset.path={name}"])).dataset.path == name


@pytest.mark.parametrize("name", ["a,b.jsonl", "a[1].jsonl", "[a].jsonl", "{a}.jsonl", "a(1).jsonl"])
def test_the_message_names_the_form_that_works(name):
    with pytest.raises(ErrorList) as caught:
        checked_overrides(["dataset=jsonl", f"dataset.path={name}"])
    form = f'dataset.path="{name}"'
    assert form in str(caught.value)
    assert compose(checked_overrides(["dataset=jsonl", form])).dataset.path == name


def test_an_option_of_some_choices_is_for_these(command):
    outcome = command.bench(
        "-m", "inversion=ddim,null_text", "inversion.inner_steps=3", "run.dir=out", "logger=none",
        "run.images=0", pairs=PAIRS[:1],
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("inversion.inner_steps: left out of the jobs with inversion=ddim") == 1
    ddim, null_text = (yaml.safe_load((command.folder / "out" / n / "config.yaml").read_text()) for n in "01")
    assert "inner_steps" not in ddim["inversion"]
    assert null_text["inversion"]["inner_steps"] == 3
    assert not any("inner_steps" in text for text in ddim["started"]["overrides"])
    assert any("inner_steps=3" in text for text in null_text["started"]["overrides"])
    assert ddim["run"]["optional"] == null_text["run"]["optional"] == []
    assert command("resume", "out").code == 0
    assert command("resume", "out/1").code == 0


@pytest.mark.parametrize(
    ("sweep", "key", "having"),
    [
        ("controller=none,reweight", "controller.weights={red: 2}", 1),
        ("dataset=world_demo,world_pairs", "dataset.count=4", 1),
        ("metrics=none,default,pixel", "metrics.lpips.net=world", 1),
        ("controller=replace,refine", "controller.preset=paper", None),
    ],
)
def test_options_of_other_groups(sweep, key, having):
    checked = checked_overrides([sweep, key], multirun=True)
    name = key.split("=")[0]
    optional = f"run.optional=[{name}]"
    assert (optional in checked) == (having is not None)
    group, _, options = sweep.partition("=")
    found = 0
    for option in options.split(","):
        config = without_hydra(compose([f"{group}={option}", *checked[1:]]))
        found += OmegaConf.select(config, name) is not None
    assert found == (2 if having is None else having)


def test_an_option_of_no_choice_is_unknown():
    with pytest.raises(ErrorList, match="unknown key 'learning_rte'"):
        checked_overrides(["inversion=ddim,null_text", "inversion.learning_rte=0.1"], multirun=True)
    with pytest.raises(ErrorList, match="unknown key"):
        checked_overrides(["inversion=ddim", "inversion.learning_rate=0.1"])
