"""Edits by instruction from the command line: a run, one edit, the linter, a plan, and what is refused."""

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.app.command import Command, write_pairs
from tests.app.test_run import rows_of
from tests.models.small_ip2p import small_ip2p
from tests.models.tiny import tiny_checkpoint

PAIRS: tuple[dict[str, Any], ...] = (
    {"id": "ok", "source": "a red circle", "target": "a blue circle", "instruction": "a blue circle"},
    {"id": "mute", "source": "a cat", "target": "a dog"},
    {"id": "blind", "source": "a cat", "target": "a dog", "instruction": "a dog", "image": None},
    {"id": "two", "source": "a cat", "target_prompts": ["a dog", "a star"], "instruction": "a dog"},
)
REASONS = {
    "mute": "there is no instruction",
    "blind": "there is no source image",
    "two": "a single instruction for 2 target prompts",
}
INSTRUCT = ("editor=instruct", "controller=none", "inversion=none")


def model(path: object = None) -> list[str]:
    """The small checkpoint in two steps."""
    found = small_ip2p().path if path is None else path
    return ["model=local", f"model.path={found}", "sampler.steps=2", "trainer.accelerator=cpu"]


def settings(command: Command, *pairs: dict[str, Any]) -> list[str]:
    Image.fromarray((np.indices((16, 16, 3)).sum(0) * 5).astype(np.uint8)).save(command.folder / "real.png")
    lines = [{"image": "real.png", **pair} for pair in pairs or PAIRS]
    kept = [{key: value for key, value in line.items() if value is not None} for line in lines]
    file = write_pairs(command.folder / "pairs.jsonl", kept)
    return [*model(), "dataset=jsonl", f"dataset.path={file}"]


def test_a_run_leaves_a_row_for_every_edit(command: Command) -> None:
    run = [*settings(command), *INSTRUCT, "metrics=pixel", "sampler=euler_ancestral", "run.dir=run"]
    done = command(*run, "sampler.steps=2")
    assert done.code == 1, done.err
    rows = rows_of(command.folder / "run")
    assert {key[0]: row["error"] for key, row in rows.items() if row["status"] == "error"}.keys() == {
        *REASONS
    }
    assert all(REASONS[key[0]] in row["error"] for key, row in rows.items() if row["status"] == "error")
    row = rows["ok", "instruct", 0]
    facts = {name: row[name] for name in ("controller", "control", "unet_rows", "tau_cross", "status")}
    assert facts == {
        "controller": "instruct", "control": "told 'a blue circle', image guidance 1.5", "unet_rows": 6.0,
        "tau_cross": "", "status": "ok",
    }  # fmt: skip
    assert (command.folder / "run" / row["image_target"]).is_file()
    assert (command.folder / "run" / "report.html").is_file()
    # Its settings are settings of the run.
    other = command(*run, "sampler.steps=2", "editor.image_guidance=2.0")
    assert (other.code, "editor.image_guidance: 1.5 there, 2.0 here" in other.err) == (2, True)


def test_check_tells_the_same_and_reads_no_weights(command: Command) -> None:
    done = command("check", *settings(command), *INSTRUCT, "--json", "--page", "page.html")
    assert done.code == 2, done.err
    found = json.loads(done.out)
    assert (found["edits"], found["cannot"]) == (5, 4)
    assert {one["pair"] for one in found["errors"]} == {*REASONS}
    assert all(REASONS[one["pair"]] in one["reason"] for one in found["errors"])


def test_a_plan_counts_three_rows_a_step(command: Command) -> None:
    done = command(*settings(command), *INSTRUCT, "run.plan=true", "metrics=none")
    assert done.code == 0, done.err
    assert "1 edits of 1 pairs, 4 cannot be made; 2 steps" in done.out
    assert "UNet rows: 6 spent, 6 if every edit ran alone" in done.out


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["inversion=none", "controller=none"], "set editor=instruct controller=none inversion=none"),
        ([], "set editor=instruct controller=none inversion=none"),
        (["editor=instruct"], "set controller=none inversion=none"),
        (["editor=instruct", "controller=none"], "set controller=none inversion=none"),
        ([*INSTRUCT, "run.baseline=true"], "run.baseline"),
        ([*INSTRUCT, "run.repair=words"], "run.repair=words: this editor keeps no attention"),
        ([*INSTRUCT, "editor.image_guidance=-1"], "editor.image_guidance"),
        ([*INSTRUCT, f"model.path={tiny_checkpoint().path}"], "is shown no image and takes no instruction"),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_sentence(
    command: Command, overrides: list[str], words: str
) -> None:
    for verb in (["run", "run.dir=run"], ["check"]):
        done = command(*verb, *settings(command, PAIRS[0]), *overrides)
        assert done.code == 2, verb
        assert words in " ".join(done.err.split()), done.err
    assert not command.ran


def test_pairs_without_instructions_stop_the_run(command: Command) -> None:
    done = command(*settings(command, PAIRS[1]), *INSTRUCT, "run.dir=run")
    assert done.code == 2
    assert "pair 'mute', there is no instruction" in " ".join(done.err.split())
    assert not command.ran


def test_one_edit_of_a_picture(command: Command) -> None:
    settings(command)
    typed = ["edit", "--instruction", "a blue circle", "--image", "real.png", *model(), "--out", "pictures"]
    done = command(*typed)
    assert done.code == 0, done.err
    assert "instruction: a blue circle" in done.out
    assert "6 UNet rows" in done.out
    made = {path.name for path in (command.folder / "pictures").iterdir()}
    assert {"image.png", "target_1.png", "difference_1.png", "vae_reconstruction.png", "strip.png"} == made


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--instruction", "a dog"], "--instruction changes an image"),
        (
            ["--instruction", "a dog", "--image", "real.png", "--source", "a cat"],
            "takes the place of --source",
        ),
        (["--source", "a cat"], "the following arguments are required: --target"),
        (["--instruction", "a dog", "--image", "real.png", "editor=controlled"], "set editor=instruct"),
        (["--source", "a", "--target", "b", "--image", "real.png"], "set editor=instruct controller=none"),
        (["--source", "a", "--target", "b", *INSTRUCT], "give --instruction in place of prompts"),
    ],
)
def test_one_edit_says_what_it_lacks(command: Command, typed: list[str], words: str) -> None:
    settings(command)
    done = command("edit", *typed, *model(), "--out", "pictures")
    assert done.code == 2
    assert words in " ".join(done.err.split()), done.err
