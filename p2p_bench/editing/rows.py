"""The row table: which rows a batch has, and what each is.

All rows of a batch are at the same step. A request takes one source row and a row per target, next to one
another; the loop reads nothing but this table, so a planner may lay it out in another way.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from p2p_bench.attention.plan import RowEdit
from p2p_bench.attention.terms import Role
from p2p_bench.controllers import BoundController
from p2p_bench.editing.request import PreparedRequest
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
        controller: Its edit; None for a source.
    """

    sample: int
    role: Role
    source: int
    prompt: TokenizedPrompt
    controller: BoundController | None


@dataclass(frozen=True, eq=False)
class Sample:
    """One request within a batch.

    Attributes:
        id: Of the request.
        replay: How it starts and what it asks of the loop.
        guidance: Its guidance scale.
        rows: Indices of its rows, source first, without gaps.
    """

    id: str
    replay: Replay
    guidance: float
    rows: range


@dataclass(frozen=True, eq=False)
class RowTable:
    """The rows of a batch and the samples they belong to."""

    rows: tuple[Row, ...]
    samples: tuple[Sample, ...]

    def roles(self, sample: Sample) -> tuple[Role, ...]:
        """Role of each row of a sample."""
        return tuple(self.rows[index].role for index in sample.rows)

    def edits(self) -> tuple[RowEdit, ...]:
        """Controllers by row of the network batch, which begins with the conditional rows in table order."""
        return tuple(
            RowEdit(index, row.source, row.controller)
            for index, row in enumerate(self.rows)
            if row.controller is not None
        )


def row_table(prepared: Sequence[PreparedRequest], replays: Sequence[Replay]) -> RowTable:
    """Lays out a batch: request after request, source before targets; targets with errors have no row."""
    rows: list[Row] = []
    samples: list[Sample] = []
    for one, replay in zip(prepared, replays, strict=True):
        source, number = len(rows), len(samples)
        rows.append(Row(number, "source", source, one.prompts[0], None))
        for prompt, controller in zip(one.prompts[1:], one.controllers, strict=True):
            if not isinstance(controller, P2PError):
                rows.append(Row(number, "target", source, prompt, controller))
        samples.append(Sample(one.request.id, replay, one.guidance, range(source, len(rows))))
    return RowTable(tuple(rows), tuple(samples))
