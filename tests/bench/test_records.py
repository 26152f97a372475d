"""Words that an edit changes, and what the display says."""

import io

import pytest
from rich.console import Console

from p2p_bench.bench import progress
from p2p_bench.bench.progress import ProgressDisplay
from p2p_bench.prompts.changes import changed_words
from p2p_bench.prompts.words import tokenize
from tests.models.tiny import tiny_checkpoint


@pytest.mark.parametrize(
    ("source", "target", "removed", "added"),
    [
        ("a red cat", "a blue cat", ("red",), ("blue",)),
        ("a red cat", "a red cat in fog", (), ("in", "fog")),
        ("a cat and a cat", "a dog and a dog", ("cat",), ("dog",)),
        ("a Red, cat", "a red cat", (), ()),
    ],
)
def test_changed_words(source, target, removed, added):
    tokenizer = tiny_checkpoint().tokenizer()
    assert changed_words(tokenize(source, tokenizer), tokenize(target, tokenizer)) == (removed, added)


def test_lines_where_there_is_no_terminal(monkeypatch):
    clock = iter([0.0, 4.0, 12.0, 15.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    text = io.StringIO()
    with ProgressDisplay(Console(file=text, width=100), 4) as display:
        display.step(2, 1, 10)  # too early for a line
        display.step(2, 5, 10)
        display.batch_done(2)  # too soon after it
        display.batch_done(2)
    assert text.getvalue().splitlines() == [
        "editing: 0/4 pairs, step 5/10, 12 s, about 30 s left",
        "editing: 4/4 pairs, 20 s, about 0 s left",
    ]


def test_a_bar_on_a_terminal():
    text = io.StringIO()
    with ProgressDisplay(Console(file=text, width=100, force_terminal=True), 4) as display:
        display.step(2, 5, 10)
        display.batch_done(2)
    assert "2/4 pairs" in text.getvalue()
