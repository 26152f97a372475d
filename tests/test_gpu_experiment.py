"""The GPU experiment, on tiny layouts: it measures what it promises, and its models are diffusers' own."""

import importlib
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import p2p_bench as p2p
from p2p_bench.resources import resource_path

FOLDER = resource_path("experiments", "gpu")


@pytest.fixture(scope="module")
def measure() -> Iterator[ModuleType]:
    names = ("measure", "joint_layouts", "layouts", "pixel_layouts", "tables", "ways")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        for name in names:
            patch.delitem(sys.modules, name, raising=False)
        yield importlib.import_module("measure")
        for name in names:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def measured(measure: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out, compiled = tmp_path_factory.mktemp("gpu"), measure.CompiledNetwork

    def one_compiled(network: Any, compiler: str) -> Any:
        """Only SDXL's: tests/models/test_calls.py compiles those of the other families."""
        return compiled(network, compiler) if network.config.get("addition_embed_type") else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "CompiledNetwork", one_compiled)
        measure.run(measure.tiny_plan(), out, math.inf)
    return out


def test_every_figure_is_there(measure: ModuleType, measured: Path) -> None:
    (figures,) = json.loads((measured / "results.json").read_text()).values()
    assert set(measure.jobs(measure.tiny_plan())) <= set(figures)
    layouts = (("sd15", 2, 4), ("sdxl", 2, 4), ("sd3_medium", 2, 5), ("flux_dev", 1, 5), ("if_xl", 2, 4))
    for layout, passes, ways in layouts:
        sweep = figures[f"{layout} sweep"]
        # Two steps, two rows in each pass, eleven times.
        assert sweep["one by one"]["rows"] == 11 * 2 * 2 * passes
        assert sweep["one request"]["rows"] < sweep["one by one"]["rows"] / 3
        assert len(figures[f"{layout} edit"]["seconds"]) == ways
        assert set(figures[f"{layout} compile"]["targets"]) == {"1", "4"}
        assert figures[f"{layout} throughput"]["row_flops"] > 1e6
    table = (measured / "results.md").read_text()
    assert "### sdxl" in table
    assert "in a batch of 2" in table
    assert "seconds compiled" in table


def test_what_is_known_is_not_measured_again(measure: ModuleType, measured: Path) -> None:
    before = (measured / "results.json").read_bytes()
    measure.run(measure.tiny_plan(), measured, math.inf)
    assert (measured / "results.json").read_bytes() == before


def test_a_run_stops_in_time_and_goes_on(
    measure: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = measure.tiny_plan()
    found = measure.run(plan, tmp_path, time.monotonic() - 1)
    assert "matmul" not in found
    assert "run again" in capsys.readouterr().out
    assert "matmul" in measure.run(plan, tmp_path, math.inf, "matmul")
    assert "sd15 edit" not in json.loads((tmp_path / "results.json").read_text())


@pytest.mark.parametrize("name", ["sd15", "sdxl", "sd3_medium", "flux_dev", "if_xl"])
def test_the_model_is_the_pipeline(measure: ModuleType, name: str) -> None:
    """What is timed against each other makes the same image."""
    built = measure.build_any(name, measure.tiny_plan().layouts[name], "cpu", torch.float32)
    wanted = sys.modules["ways"].plain_way(built, 4)().images
    result = p2p.edit(built.model, measure.SOURCE, measure.SWAPPED, seed=7, steps=4, record=False)
    assert (result.images[0] - result.images[1]).abs().max() > 1e-3
    # As the page of real widths asks for them.
    given = sys.modules["ways"].plain_way(built, 4, encoded=True)().images
    torch.testing.assert_close(given, wanted, rtol=0, atol=0)
    if name == "if_xl":  # that pipeline gives tensors in [-1, 1]
        wanted = (wanted / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(result.images, wanted, rtol=0, atol=1e-5)


def test_the_page_of_real_widths(
    measure: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(resource_path("experiments", "speed"))
    for name in ("widths", "resident"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    page = importlib.import_module("widths")
    monkeypatch.setattr(sys, "argv", ["widths.py", "--tiny", "--rounds", "1"])
    page.main()
    printed = capsys.readouterr().out
    for kind, ways in page.EDITS.items():
        for way in ways:
            assert printed.count(f"| {way} |") >= sum(one.edits == kind for one in page.SECTIONS.values())


@pytest.mark.gpu
def test_an_edit_costs_what_sampling_costs(measure: ModuleType) -> None:
    """On a GPU, with time to settle: far from the claim, so that a busy card does not fail it."""
    plan = measure.Plan("cuda", rounds=3, steps=5)
    found = measure.edit_cost(plan, measure.build("sd15", measure.LAYOUTS["sd15"], "cuda", plan.dtype))
    memory = found["bytes"]
    assert memory["replace (R = 0)"] <= 1.2 * memory["plain sampling, diffusers"]
