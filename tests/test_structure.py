"""No function is longer than a screen and no file holds too much, as experiments/structure counts them."""

import ast
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "experiments" / "structure"


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    import count

    return count


def test_functions_and_files_are_short(count: Any) -> None:
    assert list(count.long_functions()) == []
    assert list(count.long_files()) == []


def test_docstrings_are_no_lines_of_a_function(count: Any) -> None:
    text = 'def f():\n    """One.\n\n    Two.\n    """\n    a = 1\n    return a\n'
    (node,) = ast.parse(text).body
    assert count.lines_of(node) == 3
