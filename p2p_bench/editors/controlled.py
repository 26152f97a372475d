"""Controlled sampling: the source and its targets side by side, the targets under attention control."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from p2p_bench.editing import EditRequest, EditResult, run_edits
from p2p_bench.editing.budget import RowBudget, budget_of
from p2p_bench.editing.request import told_otherwise
from p2p_bench.editing.run import Progress, can_record
from p2p_bench.editors.base import EditorSettings, Equipment
from p2p_bench.errors import ConfigError
from p2p_bench.models import DiffusionModel, ModelSpec


@dataclass(frozen=True)
class ControlledSampling(EditorSettings):
    """The run's model, sampler, inversion and controllers; all its settings are theirs."""

    def refusal(self, spec: ModelSpec) -> ConfigError | None:
        """Models that are told what to change take another editor."""
        return told_otherwise(spec)

    def loads(self, spec: ModelSpec) -> str:
        """The model."""
        return f"model {spec.name}"

    def ready(self, equipment: Equipment, device: torch.device | str = "cpu") -> "ControlledEditor":
        """See `EditorSettings.ready`.

        Raises:
            MissingWeightsError: The model's weights are not there, or damaged.
            ConfigError: The device does not serve the model.
        """
        model = equipment.checkpoint.load(device)
        budget = budget_of(model, equipment.sampler.max_rows, equipment.cache)
        return ControlledEditor(model, equipment, budget)


@dataclass(frozen=True, eq=False)
class ControlledEditor:
    """A loaded model at work.

    Attributes:
        model: The model.
        equipment: What the run handed over.
        budget: Rows through the network at once; it shrinks where memory does not suffice.
    """

    model: DiffusionModel
    equipment: Equipment
    budget: RowBudget

    def edit(self, requests: Sequence[EditRequest], progress: Progress | None = None) -> list[EditResult]:
        """See `Editor.edit`."""
        given = self.equipment
        return run_edits(
            self.model,
            requests,
            steps=given.sampler.steps,
            guidance=given.sampler.guidance,
            stepper=given.sampler.stepper(),
            spacing=given.sampler.spacing,
            guidance_interval=given.sampler.guidance_interval,
            max_rows=self.budget,
            record=can_record(self.model) if given.record is None else given.record,
            truncate=given.truncate,
            progress=progress,
            cache=given.cache,
        )
