"""A sample of the fuzz of `experiments/reliability`: every case ends as its generator labelled it."""

import random
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parents[1] / "experiments" / "reliability"
AREAS = {"settings": 30, "pairs": 24, "images": 120, "masks": 6, "checkpoints": 40, "python": 60}
"""Cases of each area; all of them together take seconds."""


@pytest.fixture(scope="module")
def generators() -> Any:
    """The generators by area, and the judge."""
    sys.path.insert(0, str(HERE))
    try:
        import cases
        import fuzz
    finally:
        sys.path.remove(str(HERE))
    return fuzz.AREAS, cases.judged


@pytest.mark.parametrize("area", AREAS)
def test_a_sample_ends_as_labelled(generators: Any, area: str) -> None:
    areas, judged = generators
    every = list(areas[area](random.Random(f"tests {area}"), 600))
    sample = random.Random(0).sample(every, AREAS[area])
    assert {case.valid for case in sample} == {True, False}
    verdicts = {f"{case.kind}: {case.shown}": judged(case) for case in sample}
    assert {shown: verdict for shown, verdict in verdicts.items() if verdict[0] != "as labelled"} == {}


def test_the_judge_sees_what_is_otherwise_than_labelled(generators: Any) -> None:
    import cases

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
