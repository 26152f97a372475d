"""The controller that README.md shows, as somebody would write it and test it."""

from pathlib import Path
from textwrap import dedent
from typing import Any

import torch

from p2p_bench.controllers import Controller
from tests.attention.rig import STEPS, WIDTH, tokenizer, written_out_difference
from tests.examples import SOURCE, TARGET
from tests.oracle import Chain, Columns, Timed, released_gate

README = Path(__file__).resolve().parents[2] / "README.md"


def keep_all(cross: float) -> Controller:
    """The class of the page, made as it stands there."""
    (block,) = (part for part in README.read_text("utf-8").split("```python\n") if "class KeepAll" in part)
    names: dict[str, Any] = {"__name__": "mine"}
    exec(dedent(block.split("```")[0]), names)
    made = names["KeepAll"](cross)
    assert isinstance(made, Controller)
    return made


def test_every_site_equals_the_written_out_maps() -> None:
    one = torch.eye(WIDTH, dtype=torch.float64)
    gate = released_gate(0.6, TARGET, tokenizer(), WIDTH, STEPS)
    edit = Chain([Timed(Columns(L=one, R=0 * one), gate)])
    assert written_out_difference(keep_all(0.6), SOURCE, TARGET, edit) < 1e-10
    assert written_out_difference(keep_all(0.4), SOURCE, TARGET, edit) > 1e-6
