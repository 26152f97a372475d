"""`p2p-bench watch`, and what becomes of a directory that holds a run."""

import json

import pytest

from tests.app.command import PAIRS
from tests.app.test_run import rows_of
from tests.bench.test_rows import make_row
from tests.report.test_live import begun, part

SETTINGS = ("run.images=0", "logger=none", "run.dir=out")


def test_a_run_says_what_it_does_and_can_be_watched(command):
    assert command.bench(*SETTINGS, "metrics=pixel").code == 0
    status = json.loads((command.folder / "out" / "progress.json").read_text())
    assert (status["state"], status["promised"], status["there"]) == ("finished", 4, 0)
    outcome = command("watch", "out", "--once", "--page", "live.html")
    assert outcome.code == 0
    assert outcome.out == "run (out): 4 of 4 edits, 0 failed, finished\n"
    assert "4 of 4 edits" in (command.folder / "live.html").read_text()
    assert command("watch", "out").out == outcome.out  # it has ended, so watching ends


def test_a_sweep_is_watched_job_by_job(command):
    swept = ("-m", "tau.cross=0.2,0.8", *SETTINGS)
    assert command.bench(*swept, pairs=PAIRS[:1]).code == 0
    lines = command("watch", "out", "--once").out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["run (out/0)", "run (out/1)"]


def test_a_terminal_shows_a_table(command, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    begun(command.folder / "out", state="failed")
    part(command.folder / "out", make_row("a", psnr=21.5), make_row("b", status="error", error="why"))
    outcome = command("watch", "out")
    assert outcome.code == 0
    assert "2 of 8 edits" in outcome.out
    assert "21.5" in outcome.out
    assert "1 x why" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no such directory"),
        (["."], "no run has begun here"),
        ([".", "--every", "0"], "at least 0.1"),
        ([".", "--every", "nan"], "at least 0.1"),
    ],
)
def test_what_cannot_be_watched(command, arguments, message):
    outcome = command("watch", *arguments)
    assert outcome.code == 2
    assert message in outcome.err


def test_a_directory_that_holds_a_run(command):
    assert command.bench(*SETTINGS, pairs=PAIRS[:1]).code == 0
    before = rows_of(command.folder / "out")
    outcome = command.bench(*SETTINGS, "run.resume=false", pairs=PAIRS[:1])
    assert outcome.code == 2
    assert "run.resume: out holds a run already" in outcome.err
    outcome = command.bench(*SETTINGS, "tau.cross=0.3", pairs=PAIRS[:1])
    assert outcome.code == 2
    assert "run.resume=force" in outcome.err
    outcome = command.bench(*SETTINGS, "tau.cross=0.3", "run.resume=force", pairs=PAIRS[:1])
    assert outcome.code == 0, outcome.err
    assert rows_of(command.folder / "out")["swap", "auto", 0]["tau_cross"] == "0.3"
    assert rows_of(command.folder / "out" / "replaced" / "1") == before  # nothing is thrown away
    outcome = command.bench(*SETTINGS, "tau.cross=0.3", "run.resume=force", pairs=PAIRS[:1])
    assert "1 of 1 edits are there already" in outcome.err  # equal settings are completed
    outcome = command.bench(*SETTINGS, "run.resume=maybe")
    assert outcome.code == 2
    assert "run.resume: expected true, false or force" in outcome.err


def test_too_many_errors_end_a_run_that_goes_on_later(command):
    pairs = [{**PAIRS[0], "id": str(number), "image": f"{number}.png"} for number in range(4)]
    for number in range(4):
        (command.folder / f"{number}.png").write_bytes(b"damaged")
    outcome = command.bench(*SETTINGS, "run.batch_size=1", "run.max_errors=1", pairs=pairs)
    assert outcome.code == 1
    assert "2 edits have failed, and run.max_errors is 1" in outcome.err
    assert len(rows_of(command.folder / "out")) == 2
    assert json.loads((command.folder / "out" / "progress.json").read_text())["state"] == "failed"
    outcome = command.bench(*SETTINGS, "run.max_errors=null", pairs=pairs)
    assert outcome.code == 1
    assert len(rows_of(command.folder / "out")) == 4
