"""Keys and passwords are in no file that a run leaves, and on no terminal."""

import pytest
import yaml

from p2p_bench.app.secrets import without_secrets

KEY = "0123456789abcdef"


def test_a_key_from_the_environment_is_in_no_file(command, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", KEY)
    monkeypatch.setenv("PLACE", "somewhere")
    typed = ("model.name=m-${oc.env:PLACE}", "trainer.default_root_dir=/tmp/${oc.env:MY_API_KEY}")
    outcome = command.bench(*typed, "run.images=0", "logger=none", "run.dir=out", "metrics=pixel")
    assert outcome.code == 0, outcome.err
    out = command.folder / "out"
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["model"]["name"] == "m-somewhere"
    assert config["trainer"]["default_root_dir"].startswith("/tmp/${oc.env:MY_API_KEY} [")
    for path in out.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
    assert KEY not in outcome.out + outcome.err


def test_other_values_are_other_settings():
    typed = {"a": {"url": "x://${oc.env:THE_TOKEN}"}, "b": ["${a.url}", 3], "c": "${oc.env:HOME}"}
    hidden = []
    for value in (KEY, KEY[::-1]):
        resolved = {"a": {"url": f"x://{value}"}, "b": [f"x://{value}", 3], "c": "/home"}
        hidden.append(without_secrets(resolved, typed))
        assert value not in str(hidden[-1])
        assert (hidden[-1]["b"][1], hidden[-1]["c"]) == (3, "/home")
        assert hidden[-1]["b"][0] == hidden[-1]["a"]["url"]
    assert hidden[0] != hidden[1]
    plain = {"a": 1, "b": {"c": [None, 2.5]}}
    assert without_secrets(plain, plain) is plain


def test_what_was_typed_stays_though_it_is_the_secret() -> None:
    # a judge on this machine takes any key: MY_API_KEY=none made inversion=none another setting
    typed = {
        "key": "${oc.env:MY_API_KEY}",
        "inversion": "none",
        "seed": 7,
        "nested": "${other}",
        "again": "${key}",
    }
    resolved = {**typed, "key": "none", "nested": {"a": ["none", "no"]}, "again": "none"}
    hidden = without_secrets(resolved, typed)
    assert (hidden["inversion"], hidden["seed"]) == ("none", 7)
    assert hidden["key"] == hidden["again"] == hidden["nested"]["a"][0]
    assert hidden["key"].startswith("${oc.env:MY_API_KEY} [")


@pytest.mark.parametrize(
    "typed",
    [
        f"run.output=s3://me:{KEY}@bucket/x",
        f"run.cache=ftp://me:{KEY}@host/x",
        f"run.cache=simplecache::ftp://me:{KEY}@host/x",
    ],
)
def test_a_password_in_a_url_is_refused_and_not_repeated(command, typed):
    outcome = command.bench(typed)
    assert outcome.code == 2
    assert "holds a password" in outcome.err
    assert KEY not in outcome.out + outcome.err
    assert not command.ran


def test_the_judges_url_is_not_repeated_either(command):
    typed = ("metrics=judge", f"metrics.judge.url=http://me:{KEY}@host/v1", "metrics.judge.model=m")
    outcome = command.bench(*typed, "metrics.judge.checksum=c")
    assert outcome.code == 2
    assert "without a name or key in it" in outcome.err
    assert KEY not in outcome.out + outcome.err
