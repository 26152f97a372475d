"""What a reader of an edit should know although nothing failed."""

from collections.abc import Sequence

from p2p_bench.attention.sites import Site
from p2p_bench.attention.terms import NO_EDIT
from p2p_bench.controllers import BoundController
from p2p_bench.controllers.bound import BoundP2P
from p2p_bench.controllers.local_blend import BoundLocalBlend
from p2p_bench.controllers.self_edit import NO_SELF_EDIT


def idle_note(bound: BoundController, sites: Sequence[Site], first_step: int, steps: int) -> str:
    """Says of a control what it asks for and never does; "" where all of it acts.

    Args:
        bound: The control.
        sites: Attention sites of the model.
        first_step: Step at which the edit begins.
        steps: Number of steps of the run.
    """
    acting = [step for step in range(steps) if bound.signature(step) != (NO_EDIT, NO_SELF_EDIT)]
    if acting and acting[-1] < first_step:
        return (
            f"nothing is controlled: {bound.control} is over after step {acting[-1] + 1} of {steps}, and the "
            f"edit begins with step {first_step + 1}"
        )
    notes = _idle_parts(bound, sites, range(first_step, steps))
    if bound.blend is not None and bound.blend.start >= steps:
        notes.append(f"local blend: begins after the last of {steps} steps")
    return "; ".join(notes)


def _idle_parts(bound: BoundController, sites: Sequence[Site], taken: range) -> list[str]:
    """The same of the parts of the network that it edits, by the steps that are taken, and of its parts."""
    while isinstance(bound, BoundLocalBlend):
        bound = bound.inner
    if not isinstance(bound, BoundP2P):
        return []
    notes = list(bound.lost)
    for part in bound.asked:
        if any(bound.edits(part, step, sites) for step in taken):
            continue
        anywhere = any(bound.edits(part, step) for step in taken)
        where = "the model's layers" if anywhere else f"the {len(taken)} steps taken"
        notes.append(f"{part}: edited at none of {where}")
    return notes
