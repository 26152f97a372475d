"""The prefix tree: which targets of a source are one row, and until when.

Targets whose edits agree in every step so far have the same latents, so they are sampled as one row and
forked where their edits part. Exact: nothing is approximated, nothing merges again.
"""

from collections.abc import Callable, Hashable, Sequence
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
    signatures: Sequence[Callable[[int], Hashable]], first_step: int, steps: int
) -> tuple[Stretch, ...]:
    """The tree of one source's targets, as stretches from `first_step` to the last step.

    Args:
        signatures: For each target, what identifies all that is done to it at a step. Two targets may
            share a row as long as these are equal.
        first_step: Step at which sampling starts.
        steps: Number of steps.
    """
    groups: list[Group] = [tuple(range(len(signatures)))] if signatures else []
    stretches: list[Stretch] = []
    start = first_step
    for step in range(first_step, steps):
        parted = [part for group in groups for part in _part(group, signatures, step)]
        if len(parted) > len(groups):
            if step > start:
                stretches.append(Stretch(start, step, tuple(groups)))
            groups, start = sorted(parted), step
    if steps > start or not stretches:
        stretches.append(Stretch(start, steps, tuple(groups)))
    return tuple(stretches)


def _part(group: Group, signatures: Sequence[Callable[[int], Hashable]], step: int) -> list[Group]:
    """A group, divided by what is done at a step."""
    if len(group) == 1:
        return [group]
    parts: dict[Hashable, list[int]] = {}
    for index in group:
        parts.setdefault(signatures[index](step), []).append(index)
    return [tuple(part) for part in parts.values()]


def groups_at(tree: Sequence[Stretch], step: int) -> tuple[Group, ...]:
    """Which targets share rows at a step."""
    return next(stretch.groups for stretch in reversed(tree) if stretch.start <= step)


def shares(tree: Sequence[Stretch], count: int) -> list[float]:
    """For each of `count` targets the steps it takes, each divided by the number of targets that share it."""
    spent = [0.0] * count
    for stretch in tree:
        for group in stretch.groups:
            for index in group:
                spent[index] += (stretch.stop - stretch.start) / len(group)
    return spent
