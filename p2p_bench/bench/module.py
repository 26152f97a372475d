"""The Lightning module: a batch of pairs in, their edits out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from lightning import LightningModule

from p2p_bench.bench.task import Task, Variant
from p2p_bench.data.base import LoadedPair
from p2p_bench.editing import EditRequest, EditResult, Target, run_edits
from p2p_bench.editing.budget import RowBudget
from p2p_bench.hashing import noise_seed
from p2p_bench.models import DiffusionModel
from p2p_bench.types import EditPair


@dataclass(frozen=True)
class Asked:
    """One edit of a pair.

    Attributes:
        run: Number of the run that asks for it; several may share a pass over the data.
        variant: How the pair is edited.
        index: Of the target prompt.
    """

    run: int
    variant: Variant
    index: int


@dataclass(frozen=True)
class Edited:
    """A pair and what became of it.

    Attributes:
        loaded: The pair with its pixels.
        edits: The edits that were asked for.
        seed: Seed of the sample's noise.
        result: The edits in that order; None where the pair could not be loaded.
    """

    loaded: LoadedPair
    edits: tuple[Asked, ...]
    seed: int
    result: EditResult | None


class EditModule(LightningModule):
    """Edits batches of pairs with every variant that is still to be done, of one run or of several.

    Args:
        task: What is measured; runs that share the pass agree in it but for their variants.
        asked: The edits to make, by pair.
        record: Whether attention is recorded for heatmaps.
        progress: Called with the number of pairs, the steps done and the steps of the batch.
    """

    def __init__(
        self,
        task: Task,
        asked: Mapping[str, Sequence[Asked]],
        record: bool = False,
        progress: Callable[[int, int, int], None] | None = None,
    ) -> None:
        super().__init__()
        self.task = task
        self.asked = asked
        self.budget = RowBudget(task.sampler.max_rows)
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
        asked = [(loaded, tuple(self.asked[loaded.pair.id])) for loaded in batch]
        asked = [(self._checked(loaded), edits) for loaded, edits in asked]
        usable = [(loaded, edits) for loaded, edits in asked if loaded.error is None]
        sampler = self.task.sampler
        results = run_edits(
            self.model,
            [self._request(loaded, edits) for loaded, edits in usable],
            steps=sampler.steps,
            guidance=sampler.guidance,
            stepper=sampler.stepper(),
            spacing=sampler.spacing,
            max_rows=self.budget,
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

    def _checked(self, loaded: LoadedPair) -> LoadedPair:
        fault = self.task.repair.fault(loaded)
        return loaded if fault is None else replace(loaded, error=fault)

    def _request(self, loaded: LoadedPair, edits: Sequence[Asked]) -> EditRequest:
        pair = loaded.pair
        return EditRequest(
            id=pair.id,
            source_prompt=pair.source_prompt,
            targets=tuple(
                Target(
                    pair.target_prompts[edit.index],
                    edit.variant.controller.for_pair(pair.word_weights, pair.blend_words),
                )
                for edit in edits
            ),
            seed=self._seed(pair),
            image=loaded.image,
            inversion=None if loaded.image is None else self.task.inversion,
            repair=self.task.repair.of(loaded),
        )

    def _seed(self, pair: EditPair) -> int:
        return sample_seed(self.task, pair)


def sample_seed(task: Task, pair: EditPair) -> int:
    """Seed of a pair's noise: its own, else a function of the run's seed and its id."""
    return noise_seed(task.seed, pair.id) if pair.seed is None else pair.seed
