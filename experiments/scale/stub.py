"""An editor whose network is nothing: the edit is the source picture, at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from p2p_bench.editing import EditRequest, EditResult
from p2p_bench.editing.run import Progress
from p2p_bench.editors import EditorSettings, Equipment


@dataclass(frozen=True)
class Copying(EditorSettings):
    """Gives grey pictures of the model's size."""

    def ready(self, equipment: Equipment, device: torch.device | str = "cpu") -> "CopyingEditor":
        """See `EditorSettings.ready`."""
        return CopyingEditor(equipment.checkpoint.spec().image_size)


@dataclass(frozen=True)
class CopyingEditor:
    """See `Copying`."""

    size: tuple[int, int]

    def edit(self, requests: Sequence[EditRequest], progress: Progress | None = None) -> list[EditResult]:
        """See `Editor.edit`."""
        return [
            EditResult.made(
                one.id,
                torch.full((1 + len(one.targets), 3, *self.size), 0.5),
                [None] * (1 + len(one.targets)),
            )
            for one in requests
        ]
