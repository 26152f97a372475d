"""What a reader of an edit should know although nothing failed."""

from collections.abc import Sequence

from p2p_bench.attention.sites import Site
from p2p_bench.attention.terms import NO_EDIT
from p2p_bench.controllers import BoundController
from p2p_bench.controllers.blend import BoundBlend
from p2p_bench.controllers.bound import BoundP2P
from p2p_bench.controllers.local_blend import unblended
from p2p_bench.controllers.self_edit import NO_SELF_EDIT
from p2p_bench.editing.masks import fitted_mask


def edit_notes(
    bound: BoundController, sites: Sequence[Site], taken: range, unchanged: bool, size: tuple[int, int]
) -> str:
    """What a control asks for and never does, and what it leaves nothing of; "" where there is none.

    Args:
        bound: The control.
        sites: Attention sites of the model.
        taken: Steps that are taken, up to the last of the run.
        unchanged: Whether the edit is the source.
        size: Height and width of the latents.
    """
    steps = taken.stop
    acting = [step for step in range(steps) if bound.signature(step) != (NO_EDIT, NO_SELF_EDIT)]
    if acting and acting[-1] < taken.start:
        return (
            f"nothing is controlled: {bound.control} is over after step {acting[-1] + 1} of {steps}, and the "
            f"edit begins with step {taken.start + 1}"
        )
    notes = _idle_parts(bound, sites, taken)
    if bound.blend is not None and bound.blend.start >= steps:
        notes.append(f"local blend: begins after the last of {steps} steps")
    elif _keeps_nothing(bound.blend, size):
        notes.append("local blend: its mask covers all of the latents, so nothing is kept from the source")
    elif bound.blend is not None and unchanged:
        notes.append("local blend: left nothing of the edit, which is the source")
    return "; ".join(notes)


def _keeps_nothing(blend: BoundBlend | None, size: tuple[int, int]) -> bool:
    """Whether a given mask lets every latent change."""
    given = None if blend is None else blend.mask
    return given is not None and bool(fitted_mask(given.tensor(), size).all())


def _idle_parts(bound: BoundController, sites: Sequence[Site], taken: range) -> list[str]:
    """The same of the parts of the network that it edits, by the steps that are taken, and of its parts."""
    bound = unblended(bound)
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
