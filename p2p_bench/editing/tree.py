"""The prefix tree: which targets of a source are one row, and until when.

Targets whose edits agree in every step so far have the same latents, so they are sampled as one row and
forked where their edits part. Exact: nothing is approximated, nothing merges again.
"""

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass

Group = tuple[int, ...]


@dataclass(frozen=True)
class Stretch:
    """Consecutive steps during which the same targets share rows.

    Attributes:
        start: First step.
        stop: Step after the last.
        groups: Targets that are one row, by index, ordered by their first.
    """

    start: int
    stop: int
    groups: tuple[Group, ...]


def prefix_tree(
    signatures: Sequence[Callable[[int], Hashable]],
    first_step: int,
    steps: int,
    changes: Sequence[Collection[int] | None] | None = None,
) -> tuple[Stretch, ...]:
    """The tree of one source's targets, as stretches from `first_step` to the last step.

    Args:
        signatures: For each target, what identifies all that is done to it at a step. Two targets may
            share a row as long as these are equal.
        first_step: Step at which sampling starts.
        steps: Number of steps.
        changes: For each target, the steps at which its signature may differ from that of the step before;
            None, also for a single target, if that is any. Others are not asked for.
    """
    groups: list[Group] = [tuple(range(len(signatures)))] if signatures else []
    moving = _moving(changes or [None] * len(signatures), first_step, steps)
    stretches: list[Stretch] = []
    start = first_step
    for step in sorted(moving):
        parted = [part for group in groups for part in _part(group, signatures, step, moving[step])]
        if len(parted) > len(groups):
            if step > start:
                stretches.append(Stretch(start, step, tuple(groups)))
            groups, start = sorted(parted), step
    if steps > start or not stretches:
        stretches.append(Stretch(start, steps, tuple(groups)))
    return tuple(stretches)


def _moving(changes: Sequence[Collection[int] | None], first_step: int, steps: int) -> dict[int, set[int]]:
    """The targets whose signature may change, by step; all at the first."""
    moving = {first_step: set(range(len(changes)))} if first_step < steps else {}
    for index, own in enumerate(changes):
        for step in range(first_step + 1, steps) if own is None else own:
            if first_step < step < steps:
                moving.setdefault(step, set()).add(index)
    return moving


def _part(
    group: Group, signatures: Sequence[Callable[[int], Hashable]], step: int, moving: Collection[int]
) -> list[Group]:
    """A group, divided by what is done at a step; those of it that do not move stay together."""
    movers = [] if len(group) == 1 else [index for index in group if index in moving]
    if not movers:
        return [group]
    parts: dict[Hashable, list[int]] = {}
    if len(movers) < len(group):
        still = [index for index in group if index not in moving]
        parts[signatures[still[0]](step)] = still
    for index in movers:
        parts.setdefault(signatures[index](step), []).append(index)
    return [tuple(sorted(part)) for part in parts.values()]


def groups_at(tree: Sequence[Stretch], step: int) -> tuple[Group, ...]:
    """Which targets share rows at a step."""
    return next(stretch.groups for stretch in reversed(tree) if stretch.start <= step)
