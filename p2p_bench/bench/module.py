"""The Lightning module: a batch of pairs in, their edits out."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from lightning import LightningModule

from p2p_bench.bench.rows import Key
from p2p_bench.bench.task import Task, Variant
from p2p_bench.data.base import LoadedPair
from p2p_bench.editing import EditRequest, EditResult, Target, run_edits
from p2p_bench.hashing import noise_seed
from p2p_bench.models import DiffusionModel
from p2p_bench.types import EditPair


@dataclass(frozen=True)
class Edited:
    """A pair and what became of it.

    Attributes:
        loaded: The pair with its pixels.
        edits: Variant and index of the target prompt of each edit that was asked for.
        seed: Seed of the sample's noise.
        result: The edits in that order; None where the pair could not be loaded.
    """

    loaded: LoadedPair
    edits: tuple[tuple[Variant, int], ...]
    seed: int
    result: EditResult | None


class EditModule(LightningModule):
    """Edits batches of pairs with every variant that is still to be done.

    Args:
        task: What is measured.
        pending: The edits to make; others are left out.
        record: Whether attention is recorded for heatmaps.
        progress: Called with the number of pairs, the steps done and the steps of the batch.
    """

    def __init__(
        self,
        task: Task,
        pending: Collection[Key],
        record: bool = False,
        progress: Callable[[int, int, int], None] | None = None,
    ) -> None:
        super().__init__()
        self.task = task
        self.pending = frozenset(pending)
        self.record = record
        self.progress = progress
        self.model: DiffusionModel | None = None

    def setup(self, stage: str) -> None:
        """Loads the model onto the device of this process."""
        self.model = self.task.checkpoint.load(self.device)

    def transfer_batch_to_device(
        self, batch: list[LoadedPair], device: torch.device, dataloader_idx: int
    ) -> list[LoadedPair]:
        """Leaves the batch where it is: the editor moves what it needs."""
        return batch

    def test_step(  # type: ignore[override]  # its outputs go to our own callbacks, which take lists
        self, batch: list[LoadedPair], batch_idx: int
    ) -> list[Edited]:
        """Edits one batch of pairs."""
        assert self.model is not None, "setup runs before test_step"
        asked = [(loaded, self._edits(loaded.pair)) for loaded in batch]
        usable = [(loaded, edits) for loaded, edits in asked if loaded.error is None]
        sampler = self.task.sampler
        results = run_edits(
            self.model,
            [self._request(loaded, edits) for loaded, edits in usable],
            steps=sampler.steps,
            guidance=sampler.guidance,
            stepper=sampler.stepper(),
            max_rows=sampler.max_rows,
            record=self.record,
            truncate=self.task.truncate,
            progress=None if self.progress is None else self._reporter(len(batch)),
            cache=self.task.cache,
        )
        by_id = {result.id: result for result in results}
        return [
            Edited(loaded, edits, self._seed(loaded.pair), by_id.get(loaded.pair.id))
            for loaded, edits in asked
        ]

    def _reporter(self, pairs: int) -> Callable[[int, int], None]:
        assert self.progress is not None
        progress = self.progress
        return lambda step, steps: progress(pairs, step, steps)

    def _edits(self, pair: EditPair) -> tuple[tuple[Variant, int], ...]:
        return tuple(
            (variant, index)
            for variant in self.task.variants
            for index in range(len(pair.target_prompts))
            if (pair.id, variant.name, index) in self.pending
        )

    def _request(self, loaded: LoadedPair, edits: Sequence[tuple[Variant, int]]) -> EditRequest:
        pair = loaded.pair
        return EditRequest(
            id=pair.id,
            source_prompt=pair.source_prompt,
            targets=tuple(
                Target(
                    pair.target_prompts[index],
                    variant.controller.for_pair(pair.word_weights, pair.blend_words),
                )
                for variant, index in edits
            ),
            seed=self._seed(pair),
            image=loaded.image,
            inversion=None if loaded.image is None else self.task.inversion,
        )

    def _seed(self, pair: EditPair) -> int:
        return sample_seed(self.task, pair)


def sample_seed(task: Task, pair: EditPair) -> int:
    """Seed of a pair's noise: its own, else a function of the run's seed and its id."""
    return noise_seed(task.seed, pair.id) if pair.seed is None else pair.seed
