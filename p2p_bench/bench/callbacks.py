"""Callbacks of the trainer: timing, rows and progress."""

import time
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from p2p_bench.bench.module import Edited
from p2p_bench.bench.open_run import OpenRun
from p2p_bench.bench.progress import Display
from p2p_bench.bench.provenance import peak_memory_mb
from p2p_bench.bench.records import share_seconds
from p2p_bench.bench.references import Place, place_of
from p2p_bench.bench.scoring import score_references


class WriteRows(Callback):
    """Scores each batch as soon as it is edited and puts its rows on the disk.

    Args:
        runs: Every run that shares the pass.
        display: Is told when a batch is on the disk.
    """

    def __init__(self, runs: Sequence[OpenRun], display: Display) -> None:
        self.runs = runs
        self.display = display
        self.failed = 0
        """Number of rows so far whose edit failed."""
        self._started = 0.0

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Starts the clock."""
        self._started = time.perf_counter()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Writes the rows of the batch; metrics are not part of its time."""
        edited: list[Edited] = outputs
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        seconds = time.perf_counter() - self._started
        memory = peak_memory_mb(pl_module.device)
        rows = [run.maker.rows(edited, memory, pl_module.device) for run in self.runs]
        share_seconds(list(chain.from_iterable(rows)), seconds)
        self._write_references(edited, pl_module.device)
        for run, own in zip(self.runs, rows, strict=True):
            run.writer.append(own)
        self.failed += sum(row["status"] != "ok" for own in rows for row in own)
        self.display.batch_done(len(batch))

    def _write_references(self, edited: Sequence[Edited], device: torch.device) -> None:
        """Scores what any of the runs lacks once; before the rows, so that a run with rows has references."""
        asked = [(asked.run, (one.loaded.pair.id, asked.index)) for one in edited for asked in one.edits]
        lacking = [
            run.references.lacks(place for number, place in asked if number == run.maker.number)
            for run in self.runs
        ]
        wanted: set[Place] = set().union(*lacking)
        found = score_references(self.runs[0].maker.task.metrics, edited, wanted, device)
        for run, own in zip(self.runs, lacking, strict=True):
            run.references.append([row for row in found if place_of(row) in own])
