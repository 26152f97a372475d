"""The README's table of what goes with what is what the methods say today."""

import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from p2p_bench.resources import resource_path


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    place = resource_path("experiments", "matrix") / "measure.py"
    spec = importlib.util.spec_from_file_location("matrix_measure", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matrix_measure", module)
        spec.loader.exec_module(module)
        yield module


def test_the_table_is_todays(script: ModuleType) -> None:
    matrix = script.read_matrix()
    text = script.README.read_text(encoding="utf-8")
    assert script.with_table(text, matrix) == text, "run experiments/matrix/measure.py"
    # A hole is not made by forgetting: those of Stable Diffusion are few.
    holes = {key[1:] for key in matrix.holes if key[0] == "SD 2.1 (v)"}
    assert ("ddim", "dpmpp_2m") in holes
    assert ("rf_solver", "ddim") in holes
    assert ("ddim", "ddim") not in holes
    assert len(holes) < len(matrix.inversions) * len(matrix.samplers)
