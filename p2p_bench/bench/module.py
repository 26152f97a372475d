"""The Lightning module: a batch of pairs in, their edits out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from lightning import LightningModule

from p2p_bench.bench.isolation import edit_apart
from p2p_bench.bench.requests import loaded_request, sample_seed
from p2p_bench.bench.task import Task, Variant
from p2p_bench.data.base import LoadedPair
from p2p_bench.editing import EditResult
from p2p_bench.editors import Editor, Equipment
from p2p_bench.errors import ConfigError


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
        timeout: Seconds that a pair may take, looked at between steps; None is any time.
    """

    def __init__(
        self,
        task: Task,
        asked: Mapping[str, Sequence[Asked]],
        record: bool = False,
        progress: Callable[[int, int, int], None] | None = None,
        timeout: float | None = None,
    ) -> None:
        super().__init__()
        self.task = task
        self.asked = asked
        self.record = record
        self.progress = progress
        self.timeout = timeout
        self.editor: Editor | None = None

    def setup(self, stage: str) -> None:
        """Makes the editor ready on the device of this process."""
        task = self.task
        equipment = Equipment(
            task.checkpoint, task.sampler, self.record, task.truncate, task.cache, task.dataset
        )
        self.editor = task.editor.ready(equipment, self.device)
        if not isinstance(self.editor, Editor):
            raise ConfigError(
                f"editor: {type(task.editor).__name__}.ready gave a {type(self.editor).__name__}; expected "
                "an object with edit(requests, progress)"
            )

    def transfer_batch_to_device(
        self, batch: list[LoadedPair], device: torch.device, dataloader_idx: int
    ) -> list[LoadedPair]:
        """Leaves the batch where it is: the editor moves what it needs."""
        return batch

    def test_step(  # type: ignore[override]  # its outputs go to our own callbacks, which take lists
        self, batch: list[LoadedPair], batch_idx: int
    ) -> list[Edited]:
        """Edits one batch of pairs."""
        assert self.editor is not None, "setup runs before test_step"
        asked: list[tuple[LoadedPair, tuple[Asked, ...]]] = []
        for loaded in batch:
            fault = self.task.repair.fault(loaded)
            usable = loaded if fault is None else replace(loaded, error=fault)
            asked.append((usable, tuple(self.asked[loaded.pair.id])))
        requests = [
            loaded_request(self.task, loaded, [(edit.variant, edit.index) for edit in edits])
            for loaded, edits in asked
            if loaded.error is None
        ]
        progress = None if self.progress is None else partial(self.progress, len(batch))
        edited = edit_apart(self.editor, requests, self.device, progress, self.timeout)
        results = {result.id: result for result in edited}
        return [
            Edited(loaded, edits, sample_seed(self.task, loaded.pair), results.get(loaded.pair.id))
            for loaded, edits in asked
        ]
