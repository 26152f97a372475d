"""Callbacks of the trainer: timing, rows and progress."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from p2p_bench.bench.background import Background
from p2p_bench.bench.module import Edited
from p2p_bench.bench.open_run import OpenRun
from p2p_bench.bench.progress import Display
from p2p_bench.bench.records import share_seconds
from p2p_bench.bench.references import Place, place_of
from p2p_bench.bench.scoring import score_references
from p2p_bench.models.device import peak_memory_mb, synchronize

Rows = Sequence[Mapping[str, Any]]


class WriteRows(Callback):
    """Scores each batch as soon as it is edited; its rows go to the disk while the next one is edited.

    No batch is handed over before the one before is on the disk; what went wrong with that one is raised
    then. Whoever made the background waits for the last one. A pair is in one batch only, so what a batch
    lacks does not depend on what is still being written.

    Args:
        runs: Every run that shares the pass.
        display: Is told when a batch is edited.
        background: Where the disk is waited for.
    """

    def __init__(self, runs: Sequence[OpenRun], display: Display, background: Background) -> None:
        self.runs = runs
        self.display = display
        self.background = background
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
        """Hands over the rows of the batch; metrics are not part of its time."""
        edited: list[Edited] = outputs
        synchronize(pl_module.device)
        seconds = time.perf_counter() - self._started
        memory = peak_memory_mb(pl_module.device)
        rows = [run.maker.rows(edited, memory, pl_module.device) for run in self.runs]
        share_seconds(list(chain.from_iterable(rows)), seconds)
        self.failed += sum(row["status"] != "ok" for own in rows for row in own)
        references = self._references(edited, pl_module.device)
        self.background.start(partial(self._write, references, rows))
        self.display.batch_done(len(batch))

    def _write(self, references: Sequence[Rows], rows: Sequence[Rows]) -> None:
        """Writes what each run gets; references go first, so that a run with rows has references."""
        for run, own in zip(self.runs, references, strict=True):
            run.references.append(own)
        for run, own in zip(self.runs, rows, strict=True):
            run.writer.append(own)

    def _references(self, edited: Sequence[Edited], device: torch.device) -> list[Rows]:
        """The references that each of the runs lacks; what any of them lacks is scored once."""
        asked = [(asked.run, (one.loaded.pair.id, asked.index)) for one in edited for asked in one.edits]
        lacking = [
            run.references.lacks(place for number, place in asked if number == run.maker.number)
            for run in self.runs
        ]
        wanted: set[Place] = set().union(*lacking)
        found = score_references(self.runs[0].maker.task.metrics, edited, wanted, device)
        return [[row for row in found if place_of(row) in own] for own in lacking]
