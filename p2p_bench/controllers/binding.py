"""Binding a controller to a pair of prompts, with a look at whether an edit is left to be made."""

import torch

from p2p_bench.attention.columns import as_matrix
from p2p_bench.attention.sites import Site
from p2p_bench.controllers.base import BoundController, Controller, EditContext
from p2p_bench.errors import PromptError

_ANY_CROSS = Site("any", "cross", 0, "down", 1, 1)
"""Edits of cross-attention are the same at all of its sites."""


def bind_edit(controller: Controller, context: EditContext) -> BoundController:
    """The controller for one pair, whose prompts still differ where they were written to differ.

    Two prompts that are written alike are no fault here: whoever edits one into itself may want just that.

    Raises:
        PromptError: The prompts do not fit the controller; or they are written differently and read alike,
            since they were cut or differ in letter case alone, and nothing else is edited.
    """
    source, target = context.source, context.target
    lost = source.encoded == target.encoded and source.text != target.text
    if lost and (source.truncated or target.truncated):
        longest = max(part.width - part.front - 1 for part in source.parts)
        raise PromptError(
            f"the prompts {source.text!r} and {target.text!r} differ only where they were cut: the model "
            f"reads {longest} tokens; shorten them, or name the difference earlier"
        )
    bound = controller.bind(context)
    if lost and not changes_itself(bound, context):
        raise PromptError(
            f"the model reads the prompts {source.text!r} and {target.text!r} alike, so there is nothing to "
            "edit; name a difference, or weight a word"
        )
    return bound


def changes_itself(bound: BoundController, context: EditContext) -> bool:
    """Whether an edit of a prompt into itself would change anything, as re-weighting does.

    Equal prompts have equal maps, so an edit (L, R) changes nothing where L + R is the identity.
    """
    same = torch.eye(context.target.width, dtype=torch.float64)
    seen = set()
    for step in range(context.steps):
        edit = bound.site_edit(step, _ANY_CROSS)
        if edit is None or edit in seen:
            continue
        seen.add(edit)
        total = torch.stack([as_matrix(term.columns, len(same)) for term in edit]).sum(0)
        if not torch.allclose(total, same, atol=1e-9, rtol=0):
            return True
    return False
