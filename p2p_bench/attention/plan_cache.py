"""Plans of a run, each built once."""

from collections.abc import Hashable, Sequence

import torch

from p2p_bench.attention.plan import RowEdit, StepPlan, build_step_plan
from p2p_bench.attention.recorder import Recorder
from p2p_bench.attention.sites import Site


class PlanCache:
    """Plans of a whole run: steps whose edits have the same signatures share one plan object.

    Args:
        sites, num_rows, edits, recorders, device, dtype: As in `build_step_plan`.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        num_rows: int,
        edits: Sequence[RowEdit],
        recorders: Sequence[Recorder] = (),
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._sites, self._num_rows, self._edits = sites, num_rows, tuple(edits)
        self._recorders, self._device, self._dtype = tuple(recorders), device, dtype
        self._plans: dict[Hashable, StepPlan] = {}

    def at(self, step: int) -> StepPlan:
        """The plan of a step (an index from 0)."""
        signature = tuple(edit.controller.signature(step) for edit in self._edits)
        if signature not in self._plans:
            self._plans[signature] = build_step_plan(
                self._sites, self._num_rows, self._edits, step, self._recorders, self._device, self._dtype
            )
        return self._plans[signature]
