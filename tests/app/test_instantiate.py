"""Component nodes are checked against what they name."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from omegaconf import OmegaConf

from p2p_bench.app.instantiate import instantiate, node_faults
from p2p_bench.errors import ConfigError, PromptError

HERE = __name__


class Part:
    """A component with every kind of argument."""

    def __init__(
        self,
        count: int,
        rate: float = 0.5,
        on: bool = False,
        mode: Literal["a", "b"] = "a",
        path: str | Path | None = None,
        pair: tuple[float, float] = (0.0, 1.0),
        names: Sequence[str] = (),
        weights: Mapping[str, float] | None = None,
        inner: "Part | None" = None,
    ) -> None:
        if count == 13:
            raise PromptError("count: 13 is unlucky")
        if count == 14:
            raise TypeError("no such thing")
        self.count, self.rate, self.inner, self.weights, self.names = count, rate, inner, weights, names


def free(**options: Any) -> dict[str, Any]:
    """Takes anything."""
    return options


def node(**values: Any) -> Any:
    """A node of `Part`."""
    return OmegaConf.create({"_target_": f"{HERE}.Part", **values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 1, "rat": 2}, "part.rat: .*takes no such argument. Did you mean 'rate'?"),
        ({}, "part.count: a value is required"),
        ({"count": "???"}, "part.count: a value is required"),
        ({"count": 1.5}, "part.count: expected an integer, got 1.5"),
        ({"count": True}, "part.count: expected an integer, got True"),
        ({"count": 1, "rate": "fast"}, "part.rate: expected a number, got 'fast'"),
        ({"count": 1, "on": 1}, "part.on: expected true or false, got 1"),
        ({"count": 1, "mode": "c"}, "part.mode: expected one of 'a', 'b', got 'c'"),
        ({"count": 1, "path": 3}, "part.path: expected text or a path or null, got 3"),
        ({"count": 1, "pair": [1, 2, 3]}, "part.pair: "),
        ({"count": 1, "names": [1]}, "part.names: "),
        ({"count": 1, "weights": [1]}, "part.weights: "),
        (
            {"count": 1, "inner": {"_target_": f"{HERE}.Part", "count": "x"}},
            "part.inner.count: expected an integer",
        ),
        ({"count": "${nowhere}"}, "part: Interpolation key 'nowhere' not found"),
    ],
)
def test_faults_name_the_key(values, message):
    faults = node_faults(node(**values), "part")
    assert len(faults) == 1
    with pytest.raises(ConfigError, match=message):
        raise faults[0]
    with pytest.raises(ConfigError, match=message):
        instantiate(node(**values), "part")


def test_all_faults_of_a_node_are_found():
    assert len(node_faults(node(rate="x", on=3, cout=1), "part")) == 4


def test_a_target_that_is_not_there():
    (fault,) = node_faults(OmegaConf.create({"_target_": "p2p_bench.nothing.Here"}), "part")
    assert "part._target_: 'p2p_bench.nothing.Here' cannot be imported" in str(fault)


def test_good_nodes_are_built_with_plain_values():
    part = instantiate(
        node(
            count=2, rate=1, names=["x"], weights={"red": 2}, inner={"_target_": f"{HERE}.Part", "count": 3}
        ),
        "part",
    )
    assert (part.count, part.rate, part.inner.count) == (2, 1, 3)
    assert type(part.weights) is dict
    assert type(part.names) is list


def test_partial_nodes_wait_for_the_rest():
    partial = instantiate(
        OmegaConf.create({"_target_": f"{HERE}.Part", "_partial_": True, "rate": 0.25}), "part"
    )
    assert isinstance(partial, functools.partial)
    assert partial(count=1).rate == 0.25
    assert node_faults(OmegaConf.create({"_target_": f"{HERE}.Part"}), "part", supplied=["count"]) == []


def test_functions_that_take_anything_are_not_second_guessed():
    assert instantiate(OmegaConf.create({"_target_": f"{HERE}.free", "x": 1}), "part") == {"x": 1}


def test_what_the_target_says_reaches_the_user():
    with pytest.raises(PromptError, match="13 is unlucky"):
        instantiate(node(count=13), "part")
    with pytest.raises(ConfigError, match="part: no such thing"):
        instantiate(node(count=14), "part")
