"""What all trainings of the world share: one schedule, one loop, one resumable checkpoint."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor, nn

log = logging.getLogger(__name__)

CHECKPOINT = "last.ckpt"


class Batches:
    """An endless-looking stream of batches that can start in the middle.

    Batch `step` is a function of the step alone, so a resumed training sees what an uninterrupted
    one would have seen.
    """

    def __init__(self, make: Callable[[int], Any], start: int, stop: int) -> None:
        self.make, self.start, self.stop = make, start, stop

    def __iter__(self) -> Iterator[Any]:
        return (self.make(step) for step in range(self.start, self.stop))


def warm_cosine(steps: int, warm_up: int) -> Callable[[int], float]:
    """Learning-rate factor: linear from 0 to 1 in `warm_up` steps, then a cosine down to 1 %."""

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        done = min(1.0, (step - warm_up) / max(1, steps - warm_up))
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))

    return factor


def adamw(
    module: nn.Module, learning_rate: float, steps: int, warm_up: int, weight_decay: float = 0.01
) -> dict[str, Any]:
    """AdamW with `warm_cosine`, in the form that Lightning wants from `configure_optimizers`."""
    matrices = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in module.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_cosine(steps, warm_up))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class _Progress(Callback):
    """Logs loss and speed every so many steps."""

    def __init__(self, name: str, every: int) -> None:
        self.name, self.every = name, every
        self.total, self.count, self.since = 0.0, 0, time.monotonic()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.total += float(outputs["loss"])
        self.count += 1
        if self.count < self.every:
            return
        seconds = (time.monotonic() - self.since) / self.count
        left = (trainer.max_steps - trainer.global_step) * seconds / 60
        text = "%s step %d/%d loss %.5f, %.3f s a step, %.1f min left"
        log.info(
            text, self.name, trainer.global_step, trainer.max_steps, self.total / self.count, seconds, left
        )
        self.total, self.count, self.since = 0.0, 0, time.monotonic()


def fit(
    module: lightning.LightningModule,
    prepare: Callable[[], Callable[[int], Any]],
    *,
    name: str,
    steps: int,
    out_dir: Path,
    device: str = "cpu",
    save_every: int = 250,
    observers: tuple[Callback, ...] = (),
) -> None:
    """Trains `module` for `steps` steps, from its checkpoint in `out_dir` if there is one.

    Args:
        module: a Lightning module; afterwards it holds the trained weights.
        prepare: makes the data, if there is anything left to train, and returns the batch of a step,
            a function of the step alone.
        name: for the log.
        steps: optimiser steps in all, those of earlier runs included.
        out_dir: holds `last.ckpt`, rewritten every `save_every` steps.
        device: "cpu", "cuda" or "mps".
        save_every: steps between two checkpoints.
        observers: further Lightning callbacks.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    checkpoint, start = out_dir / CHECKPOINT, steps_done(out_dir)
    if start:
        log.info("%s: found step %d of %d", name, start, steps)
    if start >= steps:
        load_weights(module, checkpoint)
        return
    keeper = ModelCheckpoint(
        dirpath=out_dir,
        filename="last",
        every_n_train_steps=min(save_every, steps),
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    trainer = lightning.Trainer(
        accelerator="cpu" if device == "cpu" else "gpu",
        devices=1,
        max_steps=steps,
        max_epochs=-1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[_Progress(name, min(100, steps)), keeper, *observers],
    )
    batches = Batches(prepare(), start, steps)
    trainer.fit(module, batches, ckpt_path=checkpoint if start else None, weights_only=True)
    trainer.save_checkpoint(checkpoint)


def steps_done(out_dir: Path) -> int:
    """Optimiser steps behind the checkpoint in `out_dir`, 0 where there is none."""
    checkpoint = out_dir / CHECKPOINT
    if not checkpoint.exists():
        return 0
    return int(torch.load(checkpoint, weights_only=True, map_location="cpu", mmap=True)["global_step"])


def load_weights(module: nn.Module, checkpoint: Path) -> None:
    """Loads the weights (only) of a checkpoint that `fit` wrote. No pickle is executed."""
    module.load_state_dict(torch.load(checkpoint, weights_only=True, map_location="cpu")["state_dict"])


class Average:
    """Exponential moving average of parameters, with a warm-up that suits short trainings.

    The decay after k updates is min(decay, (1 + k) / (10 + k)).
    """

    def __init__(self, live: nn.Module, averaged: nn.Module, decay: float) -> None:
        self.live: list[Tensor] = list(live.parameters())
        self.averaged: list[Tensor] = list(averaged.parameters())
        self.decay = decay
        for parameter in self.averaged:
            parameter.requires_grad_(False)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average towards the live parameters after optimiser step `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        live: list[Tensor] = [parameter.detach() for parameter in self.live]
        torch._foreach_lerp_(self.averaged, live, 1 - decay)
