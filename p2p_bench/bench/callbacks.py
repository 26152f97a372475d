"""Callbacks of the trainer: timing, rows and progress."""

import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from p2p_bench.bench.module import Edited
from p2p_bench.bench.progress import ProgressDisplay
from p2p_bench.bench.provenance import peak_memory_mb
from p2p_bench.bench.records import RowMaker
from p2p_bench.bench.rows import RowWriter


class WriteRows(Callback):
    """Scores each batch as soon as it is edited and puts its rows on the disk.

    Args:
        maker: Makes rows and pictures.
        writer: Writes rows.
    """

    def __init__(self, maker: RowMaker, writer: RowWriter) -> None:
        self.maker = maker
        self.writer = writer
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
        self.writer.append(self.maker.rows(edited, seconds, memory, pl_module.device))


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
