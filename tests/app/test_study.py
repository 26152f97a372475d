"""The study of a search: proposals are a function of settings and of what was told."""

import json
from pathlib import Path

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p_bench.app.study import STUDY, SearchSettings, Study, parameter_of
from p2p_bench.errors import ConfigError, DataError

SPACE = (
    "a=range(0,1.05,step=0.05)",
    "b=interval(-1,1)",
    "c=x,y",
    "d=int(interval(1,9))",
    "e=tag(log,interval(0.001,1))",
)
TWO = {"low": False, "high": True}


def parameters(*overrides: str):
    return [parameter_of(one) for one in OverridesParser.create().parse_overrides(list(overrides or SPACE))]


CHOSEN = SearchSettings(n_trials=11, n_jobs=4)


def study(folder: Path, chosen=CHOSEN, directions=TWO, run=None) -> Study:
    folder.mkdir(exist_ok=True)
    return Study(folder, chosen, parameters(), directions, run or {})


def score(params: dict, number: int, objectives: int):
    """A smooth front; every fifth trial fails."""
    if number % 5 == 3:
        return None
    return (params["a"] ** 2 + params["b"] ** 2, params["a"] + params["e"])[:objectives]


def search(folder: Path, **options) -> Study:
    """Searches to the end."""
    found = study(folder, **options)
    objectives = len(options.get("directions", TWO))
    while len(found.trials) < found.settings.n_trials:
        batch = found.batch()
        found.tell(batch, [score(trial.params, trial.number, objectives) for trial in batch.trials])
    return found


def outcome(found: Study):
    return [(trial.params, trial.state, trial.values) for trial in found.trials]


SEARCHES = {
    "nsgaii": {},
    "tpe": {"chosen": SearchSettings("tpe", 14, 3, seed=2), "directions": {"low": False}},
    "auto": {"chosen": SearchSettings(n_trials=13, n_jobs=1), "directions": {"high": True}},
    "random": {"chosen": SearchSettings("random", 5, 4)},
}


@pytest.mark.parametrize("options", SEARCHES.values(), ids=SEARCHES)
def test_equal_seeds_propose_equal_trials_and_others_do_not(tmp_path, options):
    one, other = (search(tmp_path / name, **options) for name in "ab")
    assert outcome(one) == outcome(other)
    assert {trial.state.name for trial in one.trials} == {"COMPLETE", "FAIL"}
    chosen = options.get("chosen", CHOSEN)
    third = SearchSettings(chosen.sampler, chosen.n_trials, chosen.n_jobs, seed=chosen.seed + 1)
    assert outcome(search(tmp_path / "c", **{**options, "chosen": third})) != outcome(one)


@pytest.mark.parametrize("options", SEARCHES.values(), ids=SEARCHES)
def test_a_search_killed_at_any_byte_of_its_journal_ends_in_the_same_trials(tmp_path_factory, options):
    whole = tmp_path_factory.mktemp("whole")
    expected = outcome(search(whole, **options))
    journal = (whole / STUDY).read_bytes()

    @settings(max_examples=12, deadline=None)
    @given(cut=st.integers(0, len(journal)))
    def check(cut):
        folder = tmp_path_factory.mktemp("cut")
        (folder / STUDY).write_bytes(journal[:cut])
        (folder / f"{STUDY}.lock").symlink_to("nowhere")  # optuna's own, left behind
        assert outcome(search(folder, **options)) == expected

    check()


def test_a_search_may_become_longer_and_nothing_else(tmp_path):
    short = outcome(search(tmp_path / "a"))
    longer = search(tmp_path / "a", chosen=SearchSettings(n_trials=17, n_jobs=4))
    assert outcome(longer)[:11] == short
    assert outcome(longer) == outcome(search(tmp_path / "b", chosen=SearchSettings(n_trials=17, n_jobs=4)))
    with pytest.raises(ConfigError, match=r"search.seed: 0 there, 1 here"):
        study(tmp_path / "a", chosen=SearchSettings(n_trials=17, n_jobs=4, seed=1))
    with pytest.raises(ConfigError, match=r"sampler.steps: None there, 3 here"):
        study(tmp_path / "a", run={"sampler": {"steps": 3}})
    with pytest.raises(ConfigError, match=r"objectives\.high"):
        study(tmp_path / "a", directions={"low": False, "high": False})


@pytest.mark.parametrize("damage", [b"\x80\x04pickle\n", b"{}\n", b"[1]\n", b'{"op_code": 0}\n'])
def test_a_damaged_journal_is_refused(tmp_path, damage):
    search(tmp_path / "a")
    journal = tmp_path / "a" / STUDY
    journal.write_bytes(damage + journal.read_bytes())
    with pytest.raises(DataError, match="not what a search leaves"):
        study(tmp_path / "a")


def test_the_journal_is_json(tmp_path):
    search(tmp_path / "a")
    lines = (tmp_path / "a" / STUDY).read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == 2 + 11
    assert "pickle" not in "".join(lines)


def test_values_are_those_that_a_sweep_would_have():
    a, b, c, d, e = parameters()
    assert [a.override(value) for value in (0.0, 0.15000000000000002, 1.0)] == ["a=0.00", "a=0.15", "a=1.00"]
    assert (b.override(-0.25), c.override("x"), d.override(3)) == ("b=-0.25", "c=x", "d=3")
    assert e.distribution.log
    (down,) = parameters("a=range(3,0,-1)")
    assert [down.override(value) for value in (1.0, 2.0, 3.0)] == ["a=1", "a=2", "a=3"]
    (one,) = parameters("a=range(3,4)")
    assert one.override("3") == "a=3"


@settings(max_examples=60, deadline=None)
@given(
    start=st.integers(-40, 40),
    step=st.sampled_from([1, 2, 5, 10, 25]),
    count=st.integers(2, 12),
    seed=st.integers(0, 99),
)
def test_every_proposal_of_a_range_is_one_of_its_numbers(start, step, count, seed):
    stop = start + count * step
    text = f"a=range({start / 100},{stop / 100},step={step / 100})"
    (parameter,) = parameters(text)
    allowed = [(start + place * step) / 100 for place in range(count)]
    memory = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    proposed = [memory.ask({"a": parameter.distribution}).params["a"] for _ in range(5)]
    ends = [parameter.distribution.low, parameter.distribution.high]
    numbers = [float(parameter.override(value).removeprefix("a=")) for value in [*proposed, *ends]]
    assert set(numbers) <= set(allowed)
    assert numbers[-2:] == [allowed[0], allowed[-1]]
