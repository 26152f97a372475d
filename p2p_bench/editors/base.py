"""What the benchmark knows of an editor."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from p2p_bench.cache import Cache
from p2p_bench.editing import EditRequest, EditResult, Record
from p2p_bench.editing.run import Progress
from p2p_bench.models import Checkpoint, ModelSpec
from p2p_bench.sampling import Sampler


@runtime_checkable
class Editor(Protocol):
    """Edits sources into their targets."""

    def edit(self, requests: Sequence[EditRequest], progress: Progress | None = None) -> Sequence[EditResult]:
        """Edits several sources.

        Args:
            requests: What to edit; ids are distinct.
            progress: Called with the steps taken and their number, as often as there is something to tell.

        Returns:
            A result per request, in order. What could not be made has its error there; the rest is made.
        """
        ...


@dataclass(frozen=True, eq=False)
class Equipment:
    """What a run hands to its editor.

    Attributes:
        checkpoint: The run's model, not loaded.
        sampler: Steps, guidance and step function of the run.
        record: Which attention maps are kept for pictures; None: the usual ones where there are any. Editors
            without attention keep none.
        truncate: Prompts that are too long are cut instead of refused.
        cache: Where what is dear may be kept and found again; None keeps nothing.
    """

    checkpoint: Checkpoint
    sampler: Sampler
    record: bool | Record | None = False
    truncate: bool = False
    cache: Cache | None = None


class EditorSettings(ABC):
    """An editor as it stands in the configuration: a frozen dataclass of plain settings."""

    def loads(self, spec: ModelSpec) -> str:
        """What `ready` loads, in words: here the settings' own name.

        Args:
            spec: Facts about the run's model.
        """
        return type(self).__name__

    @abstractmethod
    def ready(self, equipment: Equipment, device: torch.device | str = "cpu") -> Editor:
        """The editor, with whatever it needs loaded.

        Args:
            equipment: What the run hands to it.
            device: Where to compute.

        Raises:
            P2PError: It cannot work with that.
        """
