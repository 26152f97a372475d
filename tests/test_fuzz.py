"""A sample of the fuzz of `experiments/reliability`: every case ends as its generator labelled it."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parents[1] / "experiments" / "reliability"


def test_a_sample_ends_as_labelled(tmp_path: Path) -> None:
    """In a process of its own: types are not enforced there, as for a user."""
    command = [sys.executable, str(HERE / "fuzz.py"), "--cases", "3200", "--sample", "6", "--seed", "7"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| (\d+) \|", done.stdout, re.MULTILINE)
    assert len(rows) == 7
    assert all(int(valid) > 0 and int(invalid) > 0 for _, valid, invalid, _ in rows)
    assert sum(int(as_labelled) for *_, as_labelled in rows) == 7 * 6


@pytest.fixture
def cases(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the judge."""
    monkeypatch.syspath_prepend(str(HERE))
    import cases

    return cases


def test_the_judge_sees_what_is_otherwise_than_labelled(cases: Any) -> None:
    def verdict(valid: bool, **outcome: Any) -> str:
        case = cases.Case("", "", valid, lambda: cases.Outcome(**outcome), "", ("key",))
        return cases.judged(case)[0]

    assert verdict(True, accepted=True) == "as labelled"
    assert verdict(True, accepted=False, text="no") == "refused"
    assert verdict(True, accepted=True, wrong="other pixels") == "wrong"
    assert verdict(False, accepted=True) == "accepted"
    assert verdict(False, accepted=False, text="key: no") == "as labelled"
    assert verdict(False, accepted=False, text="no") == "unnamed"
    assert verdict(False, accepted=False, foreign="KeyError") == "unexpected"
    assert verdict(False, accepted=False, text="unexpected KeyError") == "unexpected"
    assert verdict(False, accepted=False, text="Traceback (most recent call last)") == "stack trace"
