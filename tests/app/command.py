"""Runs the command line in this process, on a tiny model and a few pairs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from p2p_bench.app.main import run_verb
from tests.models.tiny import tiny_checkpoint

PAIRS: tuple[dict[str, Any], ...] = (
    {
        "id": "swap",
        "source": "a red circle on grass",
        "target": "a blue circle on grass",
        "category": "colour",
    },
    {
        "id": "add",
        "source": "a green star",
        "target_prompts": ["a green star on sand", "a green star in fog"],
    },
    {"id": "own/ü", "source": "a cat in water", "target": "a dog in water", "seed": 5},
)
"""Pairs that every controller but `replace` can edit."""

SWEEP = (
    "tau.sweep=[{cross: 0.2, self_attn: 0.1}, {cross: 0.5, self_attn: 0.25}, {cross: 0.8, self_attn: 0.4}]"
)
"""Three schedules in one run."""


@dataclass(frozen=True)
class Outcome:
    """What a command left on the terminal.

    Attributes:
        code: Its exit code.
        out: Standard output.
        err: Standard error.
    """

    code: int
    out: str
    err: str


def write_pairs(path: Path, pairs: Sequence[Mapping[str, Any]] = PAIRS) -> Path:
    """A JSONL file of pairs."""
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    return path


@dataclass
class Command:
    """The command line in a folder of its own."""

    folder: Path
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str, debug: bool = False) -> Outcome:
        """Runs a command as typed."""
        self.capture.readouterr()
        code = run_verb(arguments, debug)
        captured = self.capture.readouterr()
        return Outcome(code, captured.out, captured.err)

    def bench(self, *overrides: str, pairs: Sequence[Mapping[str, Any]] = PAIRS) -> Outcome:
        """Runs the benchmark on the tiny model with two steps."""
        path = write_pairs(self.folder / "pairs.jsonl", pairs)
        return self(*tiny_overrides(path), *overrides)

    @property
    def ran(self) -> bool:
        """Whether any run left rows."""
        return any(self.folder.rglob("part-*.parquet"))


def tiny_overrides(pairs: Path) -> list[str]:
    """Settings of a run that takes a second."""
    return [
        "model=local",
        f"model.path={tiny_checkpoint().path}",
        "model.record_fraction=0.5",
        "dataset=jsonl",
        f"dataset.path={pairs}",
        "metrics=none",
        "sampler.steps=2",
        "trainer.accelerator=cpu",
    ]
