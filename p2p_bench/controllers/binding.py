"""Binding a controller to a pair of prompts, with a look at whether an edit is left to be made."""

from collections.abc import Hashable

import torch

from p2p_bench.attention.columns import as_matrix, map_fault
from p2p_bench.attention.sites import ANY_CROSS, Site
from p2p_bench.attention.terms import Term
from p2p_bench.controllers.base import BoundController, Controller, EditContext
from p2p_bench.controllers.bound import BoundP2P
from p2p_bench.controllers.local_blend import unblended
from p2p_bench.errors import ConfigError, PromptError

_ANY_SELF = Site("any", "self", 0, "down", 1, 1)


def bind_edit(controller: Controller, context: EditContext) -> BoundController:
    """The controller for one pair, whose prompts still differ where they were written to differ.

    Two prompts that are written alike are no fault here: whoever edits one into itself may want just that.

    Raises:
        PromptError: The prompts do not fit the controller; or they are written differently and read alike,
            since they were cut or differ in letter case alone, and nothing else is edited.
        ConfigError: What the controller made cannot be carried out.
    """
    source, target = context.source, context.target
    lost = source.given == target.given and source.text != target.text
    if lost and (source.truncated or target.truncated):
        longest = max(part.width - part.front - 1 for part in source.parts)
        raise PromptError(
            f"the prompts {source.text!r} and {target.text!r} differ only where they were cut: the model "
            f"reads {longest} tokens; shorten them, or name the difference earlier"
        )
    bound = controller.bind(context)
    _check_bound(bound, type(controller).__name__, context)
    if lost and not changes_itself(bound, context):
        raise PromptError(
            f"the model reads the prompts {source.text!r} and {target.text!r} alike, so there is nothing to "
            "edit; name a difference, or weight a word"
        )
    return bound


def _check_bound(bound: object, name: str, context: EditContext) -> None:
    """Sees that what a controller has made can be done, where the class does not see to it itself."""
    if not isinstance(bound, BoundController):
        raise ConfigError(
            f"controller: {name}.bind returned a {type(bound).__name__}; expected a bound controller, such "
            "as bind_p2p makes of a pair (L, R)"
        )
    bound = unblended(bound)
    if isinstance(bound, BoundP2P):
        return
    told: dict[Hashable, tuple[int, object]] = {}
    for step in range(context.steps):
        edits = [bound.site_edit(step, site) for site in (ANY_CROSS, _ANY_SELF)]
        passes = bound.unprompted(step), bound.unprompted_edit(step, _ANY_SELF)
        rest = passes, bound.features(step), bound.map_guidance(step)
        if edits[0] is not None and (fault := _terms_fault(edits[0], context.target.width)):
            raise ConfigError(f"controller: {name}: the terms of step {step}: {fault}")
        first, known = told.setdefault(bound.signature(step), (step, [edits, rest]))
        if known != [edits, rest]:
            raise ConfigError(
                f"controller: {name}: steps {first} and {step} have one signature and different edits, so "
                "that they would be edited alike; let `signature` tell them apart"
            )


def _terms_fault(edit: object, width: int) -> str:
    """Why something is no edit of a site, in words; "" if it is one."""
    if not isinstance(edit, tuple) or not edit or not all(isinstance(term, Term) for term in edit):
        return f"expected None or a tuple of terms, got a {type(edit).__name__}"
    for term in edit:
        roles = {term.query, term.key, term.value}
        if not roles <= {"source", "target"}:
            return f"expected 'source' or 'target' as query, key and value, got {sorted(roles)}"
        if fault := map_fault(term.columns, width):
            return fault
    return ""


def changes_itself(bound: BoundController, context: EditContext) -> bool:
    """Whether an edit of a prompt into itself would change anything, as re-weighting does.

    Equal prompts have equal maps, so an edit (L, R) changes nothing where L + R is the identity.
    """
    same = torch.eye(context.target.width, dtype=torch.float64)
    seen = set()
    for step in range(context.steps):
        edit = bound.site_edit(step, ANY_CROSS)
        if edit is None or edit in seen:
            continue
        seen.add(edit)
        total = torch.stack([as_matrix(term.columns, len(same)) for term in edit]).sum(0)
        if not torch.allclose(total, same, atol=1e-9, rtol=0):
            return True
    return False
