"""`p2p-bench check` says what a run could not do, before it is begun."""

import json

from tests.app.command import PAIRS, Command, tiny_overrides, write_pairs


def check(command: Command, *typed: str, pairs=PAIRS):
    path = write_pairs(command.folder / "pairs.jsonl", pairs)
    return command("check", *typed, *tiny_overrides(path))


def test_good_pairs(command: Command) -> None:
    done = check(command, "controller=refine")
    assert done.code == 0, done.err
    assert "3 pairs, 4 of 4 edits can be made on model local; 0 warnings" in done.out
    assert not command.ran


def test_faults_and_slips_as_text_and_as_json(command: Command) -> None:
    pairs = [
        *PAIRS,
        {"id": "uneven", "source": "a red circle", "target": "a small red circle on grass"},
        {**PAIRS[2], "id": "again"},
        {"id": "same", "source": "a cat", "target": "a cat"},
    ]
    done = check(command, "controller=replace", pairs=pairs)
    assert done.code == 2
    assert "error pair 'uneven', target 1:" in done.out
    assert "the same prompts and image as pair 'own/ü'" in done.out
    assert "pair 'same': a target prompt equals the source prompt" in done.out
    found = json.loads(check(command, "--json", "controller=replace", pairs=pairs).out)
    assert {"uneven", "add"} <= {one["pair"] for one in found["errors"]}
    assert (found["pairs"], found["edits"], found["decoded"]) == (6, 7, False)


def test_pictures_are_read_where_that_is_asked_for(command: Command) -> None:
    (command.folder / "broken.png").write_bytes(b"no picture")
    pairs = [PAIRS[0], {**PAIRS[2], "image": "broken.png"}]
    assert check(command, "inversion=ddim", "controller=refine", pairs=pairs).code == 0
    for typed in ("--decode", "check.decode=true"):
        done = check(command, typed, "inversion=ddim", "controller=refine", pairs=pairs)
        assert done.code == 2
        assert "broken.png" in done.out


def test_wrong_usage(command: Command) -> None:
    assert check(command, "--page").code == 2
    assert check(command, "controler=refine").code == 2
