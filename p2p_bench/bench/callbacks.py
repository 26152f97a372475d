"""Callbacks of the trainer: timing, rows and progress."""

import time
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from p2p_bench.bench.module import Edited
from p2p_bench.bench.progress import ProgressDisplay
from p2p_bench.bench.provenance import peak_memory_mb
from p2p_bench.bench.records import RowMaker, share_seconds
from p2p_bench.bench.rows import RowWriter


class WriteRows(Callback):
    """Scores each batch as soon as it is edited and puts its rows on the disk.

    Args:
        runs: What makes rows and pictures, and what writes the rows, of every run that shares the pass.
    """

    def __init__(self, runs: Sequence[tuple[RowMaker, RowWriter]]) -> None:
        self.runs = runs
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
        rows = [maker.rows(edited, memory, pl_module.device) for maker, _ in self.runs]
        share_seconds(list(chain.from_iterable(rows)), seconds)
        for (_, writer), own in zip(self.runs, rows, strict=True):
            writer.append(own)


class ShowProgress(Callback):
    """Tells the display when a batch is on the disk; goes after `WriteRows`.

    Args:
        display: The display.
    """

    def __init__(self, display: ProgressDisplay) -> None:
        self.display = display

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Counts the batch."""
        self.display.batch_done(len(batch))
