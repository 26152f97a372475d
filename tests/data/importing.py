"""A data set through the command line: planned, then run, with two steps of a tiny model."""

from typing import Any

from tests.app.command import Command, Outcome
from tests.app.test_run import rows_of
from tests.models.tiny import tiny_checkpoint

SETTINGS = ("sampler.steps=2", "metrics=pixel", "run.images=0", "logger=none", "trainer.accelerator=cpu")


def tiny() -> tuple[str, ...]:
    """Settings of a run on the tiny model."""
    return ("model=local", f"model.path={tiny_checkpoint().path}", *SETTINGS)


def planned(command: Command, *overrides: str) -> Outcome:
    """The plan of a run, for which all pairs are read and checked."""
    return command("run", *overrides, *tiny(), "run.plan=true")


def ran(command: Command, *overrides: str) -> tuple[Outcome, dict[str, dict[str, Any]]]:
    """A run, and its rows by id."""
    outcome = command("run", *overrides, *tiny(), "run.dir=out")
    out = command.folder / "out"
    rows = rows_of(out) if (out / "results.parquet").is_file() else {}
    return outcome, {key[0]: row for key, row in rows.items()}
