"""What `run.repair` means for a pair."""

import math

import pytest
import torch

from p2p_bench.bench.repairs import RepairRule
from p2p_bench.data.base import LoadedPair
from p2p_bench.errors import ConfigError
from p2p_bench.types import EditPair

PAIR = EditPair("a", "a red circle", ("a blue circle",))
BLENDED = EditPair("b", "a red circle", ("a red star",), blend_words=(("circle",), ("star",)))
WEIGHTED = EditPair("c", "a cat in fog", ("a cat in fog",), word_weights={"fog": 3.0})
MASK = torch.ones(4, 4)


def test_words_are_those_the_pair_names() -> None:
    rule = RepairRule("words", 1.5)
    named = [rule.of(LoadedPair(pair)) for pair in (PAIR, BLENDED, WEIGHTED)]
    assert [repair and repair.words for repair in named] == [None, ("circle", "star"), ("fog",)]
    assert all(repair is not None and repair.feather == 1.5 for repair in named)
    assert rule.fault(LoadedPair(PAIR)) is None


def test_the_mask_of_the_pair() -> None:
    rule = RepairRule("mask")
    repair = rule.of(LoadedPair(PAIR, mask=MASK))
    assert repair is not None
    assert repair.mask is MASK
    assert rule.fault(LoadedPair(PAIR, mask=MASK)) is None
    assert "no mask" in str(rule.fault(LoadedPair(PAIR)))
    assert rule.fault(LoadedPair(PAIR, error="not found")) is None


def test_none_repairs_nothing() -> None:
    assert RepairRule().of(LoadedPair(PAIR, mask=MASK)) is None
    assert RepairRule().without_mask() is None
    with pytest.raises(ConfigError, match="no mask here"):
        RepairRule("mask").without_mask()


@pytest.mark.parametrize(("values", "said"), [(("word",), "Did you mean"), (("words", math.nan), "feather")])
def test_bad_settings_are_refused(values: tuple, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RepairRule(*values)
