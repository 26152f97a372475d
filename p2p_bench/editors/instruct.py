"""Edits by instruction: an image and an order in, the edit out (InstructPix2Pix, arXiv 2211.09800)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch

from p2p_bench.editing import EditRequest, EditResult
from p2p_bench.editing.budget import RowBudget, budget_of
from p2p_bench.editing.instruct import PASSES, read_instructions, run_instructions, unfit
from p2p_bench.editing.run import Progress
from p2p_bench.editors.base import EditorSettings, Equipment, KnownVariant
from p2p_bench.errors import ConfigError
from p2p_bench.fields import AtLeast, check_fields
from p2p_bench.guidance import EVERY_STEP
from p2p_bench.models import DiffusionModel, ModelSpec
from p2p_bench.prompts.words import PromptReader
from p2p_bench.sampling import Sampler

NAME = "instruct"
"""What results call its controller, and its one variant."""


@dataclass(frozen=True)
class InstructionEditing(EditorSettings):
    """A model that is shown the image of a pair and told its instruction; prompts are for metrics alone.

    Steps, guidance by the instruction and step function are those of the run's sampler.

    Attributes:
        image_guidance: Guidance scale by the image, the higher the more of it is kept; at least 0, from 1 to
            2.5 in the paper.
    """

    image_guidance: Annotated[float, AtLeast(0)] = 1.5

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is out of range.
        """
        check_fields(self, "editor.")

    def own_variant(self) -> KnownVariant:
        """See `EditorSettings.own_variant`."""
        return KnownVariant(NAME, NAME)

    def own_rows(self, steps: int) -> int:
        """See `EditorSettings.own_rows`."""
        return PASSES * steps

    def refusal(self, spec: ModelSpec) -> ConfigError | None:
        """Models that are shown no image take another editor."""
        return unfit(spec)

    def check(
        self,
        request: EditRequest,
        has_image: bool,
        reader: PromptReader,
        spec: ModelSpec,
        sampler: Sampler,
        truncate: bool = False,
    ) -> None:
        """See `EditorSettings.check`."""
        _check_interval(sampler)
        read_instructions(reader, request, has_image, truncate)

    def loads(self, spec: ModelSpec) -> str:
        """The model."""
        return f"model {spec.name}"

    def ready(self, equipment: Equipment, device: torch.device | str = "cpu") -> "InstructionEditor":
        """See `EditorSettings.ready`.

        Raises:
            MissingWeightsError: The model's weights are not there, or damaged.
            ConfigError: It is shown no image; the sampler guides some steps alone; or the device does not
                serve it.
        """
        if (fault := unfit(equipment.checkpoint.spec())) is not None:
            raise fault
        _check_interval(equipment.sampler)
        model = equipment.checkpoint.load(device)
        budget = budget_of(model, equipment.sampler.max_rows, equipment.cache)
        return InstructionEditor(model, equipment, budget, self.image_guidance)


def _check_interval(sampler: Sampler) -> None:
    if sampler.guidance_interval not in (None, EVERY_STEP):
        raise ConfigError(
            "sampler.guidance_interval: edits by instruction are guided at every step; set "
            "sampler.guidance_interval=null"
        )


@dataclass(frozen=True, eq=False)
class InstructionEditor:
    """A loaded model at work.

    Attributes:
        model: The model.
        equipment: What the run handed over.
        budget: Rows through the network at once; it shrinks where memory does not suffice.
        image_guidance: Guidance scale by the image.
    """

    model: DiffusionModel
    equipment: Equipment
    budget: RowBudget
    image_guidance: float

    def edit(self, requests: Sequence[EditRequest], progress: Progress | None = None) -> list[EditResult]:
        """See `Editor.edit`."""
        sampler = self.equipment.sampler
        return run_instructions(
            self.model,
            requests,
            image_guidance=self.image_guidance,
            steps=sampler.steps,
            guidance=sampler.guidance,
            stepper=sampler.stepper(),
            spacing=sampler.spacing,
            max_rows=self.budget,
            truncate=self.equipment.truncate,
            progress=progress,
        )
