"""The row budget: requests in batches, large ones in parts, less of both where memory does not suffice."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.cache import Cache
from p2p_bench.controllers import ByEdit
from p2p_bench.editing import EditRequest, EditResult, Record, Target, run_edits
from p2p_bench.editing.budget import RowBudget, found_budget
from p2p_bench.errors import ConfigError
from p2p_bench.models import DiffusionModel
from p2p_bench.sampling import DDIMSampler
from tests.editing.test_edit import LONGER, SOURCE, SWAPPED, counted_rows
from tests.models.tiny import tiny_model

STEPS = 4


def targets() -> tuple[Target, ...]:
    """Six edits, five of them different, neighbours in the tree apart."""
    taus = (0.2, 0.9, 0.2, 0.6, 0.4)
    return (*(Target(SWAPPED, ByEdit(tau, 0.0)) for tau in taus), Target(LONGER, ByEdit(0.5, 0.3)))


def requests(count: int = 1, inversion: p2p.Inversion | None = None) -> list[EditRequest]:
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1))
    made: dict[str, Any] = {} if inversion is None else {"image": image, "inversion": inversion}
    return [EditRequest(str(seed), SOURCE, targets(), seed=seed, **made) for seed in range(count)]


@contextmanager
def little_memory(
    model: DiffusionModel, monkeypatch: pytest.MonkeyPatch, most: int, error: Exception
) -> Iterator[None]:
    """The network takes so many rows at once and no more."""
    predict = type(model).predict

    def predicted(self: DiffusionModel, latents: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if len(latents) > most:
            raise error
        return predict(self, latents, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(type(model), "predict", predicted)
        yield


def assert_equal(ones: Sequence[EditResult], others: Sequence[EditResult]) -> None:
    """Equal but for what depends on the batches."""
    for one, other in zip(ones, others, strict=True):
        assert one.error is None
        assert other.error is None
        assert float((one.latents - other.latents).abs().max()) <= 1e-10
        assert float((one.images - other.images).abs().max()) <= 1e-6
        assert one.target_rows == other.target_rows
        assert one.source_rows == other.source_rows
        assert one.inversion_rows == other.inversion_rows
        for kept, expected in zip(one.attention, other.attention, strict=True):
            assert set(kept.maps) == set(expected.maps)
            assert all(
                torch.allclose(kept.maps[image], expected.maps[image], atol=1e-6) for image in kept.maps
            )


@pytest.mark.parametrize("inversion", [None, p2p.DDIMInversion()])
def test_a_large_request_is_sampled_in_parts(inversion: p2p.Inversion | None) -> None:
    model, record = tiny_model(), Record(self_images=(0, 2))
    whole = run_edits(model, requests(2, inversion), steps=STEPS, record=record)
    for max_rows in (1, 6):
        with counted_rows(model) as sizes:
            parts = run_edits(model, requests(2, inversion), steps=STEPS, record=record, max_rows=max_rows)
        assert max(sizes) <= max(max_rows, 4)
        assert sum(sizes) == sum(result.unet_rows for result in parts)
        # Five different edits; each part takes the source once.
        assert {result.source_passes for result in parts} == {-(-5 // max(1, max_rows // 2 - 1))}
        assert_equal(whole, parts)
    assert whole[0].source_passes == 1


def test_neighbours_in_the_tree_are_sampled_together() -> None:
    with counted_rows(tiny_model()) as sizes:
        (result,) = run_edits(tiny_model(), requests(), steps=STEPS, max_rows=8)
    # tau .2 (twice) .4 .6 part late; .9 and the longer prompt have little in common with them.
    assert result.source_passes == 2
    assert sum(sizes) <= 2 * (2 * STEPS + STEPS + 3 + 2 + STEPS + STEPS)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . not enough memory: you tried"),
    ],
    ids=["accelerator", "processor"],
)
def test_out_of_memory_halves_the_budget(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, budget, ticks = tiny_model(), RowBudget(64), []
    whole = run_edits(model, requests(3), steps=STEPS)
    with little_memory(model, monkeypatch, 9, error), counted_rows(model) as sizes:
        results = run_edits(
            model, requests(3), steps=STEPS, max_rows=budget, progress=lambda *at: ticks.append(at)
        )
    assert_equal(whole, results)
    assert budget.rows == 6
    assert "out of memory" in caplog.text
    assert max(sizes) <= 9  # the failed attempts never reached the network
    assert ticks[-1][0] == ticks[-1][1]
    # Who goes on with the budget does not fail again.
    caplog.clear()
    with little_memory(model, monkeypatch, 9, error):
        run_edits(model, requests(1), steps=STEPS, max_rows=budget)
    assert not caplog.text


def test_an_edit_that_does_not_fit_alone_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    plain = EditRequest("unguided", SOURCE, targets()[:1], guidance=1.0)
    with little_memory(model, monkeypatch, 3, RuntimeError("can't allocate memory: you tried to allocate")):
        large, fine = run_edits(model, [*requests(1), plain], steps=STEPS)
    assert "memory does not suffice for a single edit (can't allocate memory" in str(large.error)
    assert fine.error is None


def test_other_faults_of_the_network_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    with little_memory(model, monkeypatch, 0, RuntimeError("shapes differ")), pytest.raises(RuntimeError):
        run_edits(model, requests(1), steps=STEPS)


def test_a_budget_has_at_least_one_row() -> None:
    with pytest.raises(p2p.P2PError, match="max_rows: expected at least 1"):
        RowBudget(0)


def test_what_memory_takes_is_found_and_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model, cache = tiny_model(), Cache(tmp_path)
    error = torch.OutOfMemoryError("CUDA out of memory")
    whole = run_edits(model, requests(2), steps=STEPS)
    first = found_budget(model, cache)
    assert first.rows == 80
    with little_memory(model, monkeypatch, 6, error):
        assert_equal(run_edits(model, requests(2), steps=STEPS, max_rows=first), whole)
        again = found_budget(model, cache)
        assert again.rows == first.rows <= 6
    # Another number format has a memory of its own, and without a cache nothing is remembered.
    assert found_budget(tiny_model(torch.float32), cache).rows == 80
    assert found_budget(model, None).rows == 80
    assert DDIMSampler(max_rows="auto").rows == 80
    with pytest.raises(ConfigError, match="max_rows"):
        DDIMSampler(max_rows=0)


def test_one_edit_takes_the_rows_of_its_sampler() -> None:
    targets = ["a blue circle", "a star", "a cat"]
    few = p2p.edit(tiny_model(), "a red circle", targets, steps=1, sampler=DDIMSampler(max_rows=4))
    assert few.source_passes == 3
