"""What the benchmark knows of an editor."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from p2p_bench.cache import Cache
from p2p_bench.data.base import PairDataset
from p2p_bench.editing import EditRequest, EditResult, Record
from p2p_bench.editing.request import prepare, raise_all
from p2p_bench.editing.run import Progress
from p2p_bench.errors import ConfigError
from p2p_bench.models import Checkpoint, ModelSpec
from p2p_bench.prompts.words import PromptReader
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
        dataset: The pairs of the run, for editors that look edits up.
    """

    checkpoint: Checkpoint
    sampler: Sampler
    record: bool | Record | None = False
    truncate: bool = False
    cache: Cache | None = None
    dataset: PairDataset | None = None


@dataclass(frozen=True)
class KnownVariant:
    """A way to edit that an editor finds instead of being told.

    Attributes:
        name: Unique within the run.
        controller: Name of the controller in results.
        cross: Cross-attention schedule as text, "" where there is none.
        self_attn: Self-attention schedule as text, "" where there is none.
    """

    name: str
    controller: str
    cross: str = ""
    self_attn: str = ""


class EditorSettings(ABC):
    """An editor as it stands in the configuration: a frozen dataclass of plain settings."""

    def known_variants(self) -> tuple[KnownVariant, ...]:
        """The ways to edit of an editor that finds images instead of making them; () where it makes them.

        Such an editor asks for no model, no controller and no inversion, and its costs are not known.

        Raises:
            P2PError: What it finds them in cannot be read.
        """
        return ()

    def own_variant(self) -> KnownVariant | None:
        """Its one way to edit, where it follows no controller and no inversion; None where it is told those.

        Such an editor says itself what it needs of a pair, see `check`.
        """
        return None

    def own_rows(self, steps: int) -> int:
        """UNet rows of an edit in so many steps, where it has its `own_variant`."""
        return 0

    def refusal(self, spec: ModelSpec) -> ConfigError | None:
        """Why it cannot work with a model; None if it can.

        Args:
            spec: Facts about the run's model.
        """
        return None

    def check(
        self,
        request: EditRequest,
        has_image: bool,
        reader: PromptReader,
        spec: ModelSpec,
        sampler: Sampler,
        truncate: bool = False,
    ) -> None:
        """Refuses what it cannot edit, before any weights are loaded.

        Args:
            request: What to edit, without its pixels if need be.
            has_image: Whether its source is an image.
            reader: Reads the prompts of the run's model.
            spec: Facts about that.
            sampler: Steps and guidance of the run.
            truncate: Prompts that are too long are cut.

        Raises:
            P2PError: It cannot carry out all of it.
        """
        raise_all(
            prepare(
                reader, spec, request, sampler.steps_on(spec), sampler.guidance, truncate,
                stepper=sampler.stepper(), interval=sampler.guidance_interval,
            ).faults
        )  # fmt: skip

    def sums(self, dataset: PairDataset) -> Mapping[str, str]:
        """Checksums of what it reads besides the model, by what that is.

        Args:
            dataset: The pairs of the run.

        Raises:
            P2PError: It cannot work with that.
        """
        return {}

    def facts(self, dataset: PairDataset) -> Mapping[str, Any]:
        """What `summary.json` should say of the images that are scored; nothing where they are made here."""
        return {}

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
