"""The row tables: which rows a batch has during each stretch of steps, and what each is.

All rows of a batch are at the same step. A request takes one source row, and a row for every group of
targets that are edited alike so far (see `tree`), next to one another; the loop reads nothing else.
"""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from p2p_bench.attention.plan import RowEdit
from p2p_bench.attention.sites import Site
from p2p_bench.attention.terms import Role, SiteEdit
from p2p_bench.controllers import BoundController
from p2p_bench.editing.request import PreparedRequest
from p2p_bench.editing.tree import Stretch, groups_at, prefix_tree
from p2p_bench.errors import P2PError
from p2p_bench.prompts.words import TokenizedPrompt
from p2p_bench.sampling import Replay


@dataclass(frozen=True, eq=False)
class Row:
    """One row of a batch.

    Attributes:
        sample: Index of its request in the batch.
        role: Source or target.
        source: Index of the row that is its source; its own for a source.
        prompt: Its prompt.
        targets: The targets of the request that it is, by index; none for a source.
        controllers: Their edits, alike as long as the table lasts.
        told: Whether it is told a prompt at all.
        negative: What its pass without the prompt is told; None: nothing.
    """

    sample: int
    role: Role
    source: int
    prompt: TokenizedPrompt
    targets: tuple[int, ...] = ()
    controllers: tuple[BoundController, ...] = ()
    told: bool = True
    negative: TokenizedPrompt | None = None

    @property
    def controller(self) -> BoundController | None:
        """Its edit; None for a source."""
        return self.controllers[0] if self.controllers else None


@dataclass(frozen=True, eq=False)
class Sample:
    """One request within a batch.

    Attributes:
        id: Of the request.
        replay: How it starts and what it asks of the loop.
        guidance: Its guidance scale.
        guided: The steps at which that acts; at the others it is 1.
        rows: Indices of its rows, source first, without gaps.
        roles: Role of each of them.
        row_of: Row of each image: 0 is the source, 1 + i its target i.
    """

    id: str
    replay: Replay
    guidance: float
    guided: range
    rows: range
    roles: tuple[Role, ...]
    row_of: Mapping[int, int]

    def guidance_at(self, step: int) -> float:
        """Its guidance scale at a step."""
        return self.guidance if step in self.guided else 1.0


@dataclass(frozen=True)
class UnpromptedEdit:
    """What a controller does to its target's pass without the prompt.

    Attributes:
        controller: The controller.
    """

    controller: BoundController

    def site_edit(self, step: int, site: Site) -> SiteEdit | None:
        """See `BoundController.unprompted_edit`."""
        return self.controller.unprompted_edit(step, site)

    def features(self, step: int) -> bool:
        """That of the controller."""
        return self.controller.features(step)

    def signature(self, step: int) -> Hashable:
        """That of the controller."""
        return self.controller.signature(step)


@dataclass(frozen=True, eq=False)
class RowTable:
    """The rows of a batch, and the samples they belong to, during some steps.

    Attributes:
        start: First step.
        stop: Step after the last.
        rows: The rows.
        samples: What they belong to.
        parents: For each row, the row of the table before it that it goes on from; empty in the first table.
    """

    start: int
    stop: int
    rows: tuple[Row, ...]
    samples: tuple[Sample, ...]
    parents: tuple[int, ...] = ()

    def edits(self) -> tuple[RowEdit, ...]:
        """Controllers by row of the network batch, which begins with the conditional rows in table order."""
        return tuple(
            RowEdit(index, row.source, row.controller)
            for index, row in enumerate(self.rows)
            if row.controller is not None
        )

    def map_guidance(self, step: int) -> dict[int, float]:
        """By row, how far it goes toward the source's maps before a step; rows that do not are left out."""
        amounts = {
            index: row.controller.map_guidance(step)
            for index, row in enumerate(self.rows)
            if row.controller is not None
        }
        return {index: amount for index, amount in amounts.items() if amount}

    def unprompted_edits(self, wanted: Sequence[int], step: int) -> tuple[RowEdit, ...]:
        """Controllers of the rows after those, which are passes without the prompt.

        Args:
            wanted: The rows that take such a pass, in the order of the network batch.
            step: Index from 0.
        """
        places = {index: len(self.rows) + place for place, index in enumerate(wanted)}
        edits = []
        for index, place in places.items():
            row = self.rows[index]
            told = "plain" if row.controller is None else row.controller.unprompted(step)
            if row.controller is not None and told != "plain":
                # A source without a pass of its own is the same with and without its prompt.
                source = places.get(row.source, row.source) if told == "own" else row.source
                edits.append(RowEdit(place, source, UnpromptedEdit(row.controller)))
        return tuple(edits)


Suited = dict[int, tuple[TokenizedPrompt, BoundController]]
"""Prompt and edit of each target, by index, that has no error."""


def row_tables(
    prepared: Sequence[PreparedRequest],
    replays: Sequence[Replay],
    first_step: int,
    steps: int,
    chunk: Collection[int] | None = None,
) -> tuple[RowTable, ...]:
    """Lays out a batch: request after request, source before targets; targets with errors have no row.

    Args:
        prepared: The requests.
        replays: How each starts.
        first_step: The step at which all start.
        steps: Number of steps.
        chunk: Targets, by index, that are sampled; None takes all.

    Returns:
        A table for each stretch of steps in which no row forks, in order.
    """
    suited = [suited_targets(one, chunk) for one in prepared]
    trees = [edit_tree(targets, first_step, steps) for targets in suited]
    starts = sorted({first_step, *(stretch.start for tree in trees for stretch in tree)})
    tables: list[RowTable] = []
    for start, stop in zip(starts, [*starts[1:], steps], strict=True):
        rows: list[Row] = []
        samples: list[Sample] = []
        for number, (one, replay, targets, tree) in enumerate(
            zip(prepared, replays, suited, trees, strict=True)
        ):
            source = len(rows)
            row_of = {0: source}
            told = one.prompts[0] if one.told is None else one.told
            rows.append(Row(number, "source", source, told, told=one.told is None))
            order = list(targets)
            for group in groups_at(tree, start):
                members = tuple(order[place] for place in group)
                edits = tuple(targets[index][1] for index in members)
                prompt = targets[members[0]][0]
                row_of |= {1 + index: len(rows) for index in members}
                rows.append(Row(number, "target", source, prompt, members, edits, negative=one.negative))
            own = range(source, len(rows))
            roles = tuple(rows[index].role for index in own)
            samples.append(Sample(one.request.id, replay, one.guidance, one.guided, own, roles, row_of))
        parents = _parents(tables[-1], rows) if tables else ()
        tables.append(RowTable(start, stop, tuple(rows), tuple(samples), parents))
    return tuple(tables)


def edit_tree(targets: Suited, first_step: int, steps: int) -> tuple[Stretch, ...]:
    """The prefix tree of one source's targets, which it counts in their own order."""

    def signature(prompt: TokenizedPrompt, edit: BoundController, step: int) -> Hashable:
        # Other prompts part at once, and what has parted stays so.
        return (prompt.given, edit.signature(step)) if step == first_step else edit.signature(step)

    signatures = [partial(signature, *target) for target in targets.values()]
    return prefix_tree(signatures, first_step, steps, [edit.changes() for _, edit in targets.values()])


def suited_targets(prepared: PreparedRequest, chunk: Collection[int] | None = None) -> Suited:
    """The targets that have no error, those of a chunk if there is one."""
    pairs = zip(prepared.prompts[1:], prepared.controllers, strict=True)
    return {
        index: (prompt, made)
        for index, (prompt, made) in enumerate(pairs)
        if not isinstance(made, P2PError) and (chunk is None or index in chunk)
    }


def _parents(before: RowTable, rows: Sequence[Row]) -> tuple[int, ...]:
    """Where each row comes from."""
    places = {(row.sample, target): i for i, row in enumerate(before.rows) for target in row.targets}
    sources = [sample.rows.start for sample in before.samples]
    return tuple(places[row.sample, row.targets[0]] if row.targets else sources[row.sample] for row in rows)
