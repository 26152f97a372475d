"""What a bound controller does to which token in which step, as a table and as a picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from p2p_bench.attention.columns import as_matrix
from p2p_bench.attention.terms import NO_EDIT, ColumnEdit
from p2p_bench.controllers.self_edit import NO_SELF_EDIT, SelfEdit
from p2p_bench.prompts.words import TokenizedPrompt

PADDING = "<padding>"

LEGEND = "# source, + both, . own, o own times a factor, blank nothing"

_CELL = (10, 16)
"""Width and height of a cell of the picture, in pixels."""

_SOURCE, _OWN, _NEGATIVE = (0.16, 0.38, 0.73), (0.82, 0.82, 0.80), (0.80, 0.20, 0.15)
"""Blue, grey, red."""


@dataclass(frozen=True)
class Unit:
    """Neighbouring text columns with one name: a word, or the begin, the end and the padding of a prompt."""

    name: str
    columns: tuple[int, ...]


@dataclass(frozen=True)
class Timetable:
    """What is shown.

    Attributes:
        source: The source prompt.
        target: The target prompt.
        cross: For each step, the cross-attention edit (L, R).
        self_edits: For each step, what is done to self-attention.
    """

    source: TokenizedPrompt
    target: TokenizedPrompt
    cross: Sequence[ColumnEdit]
    self_edits: Sequence[SelfEdit]

    def taken(self) -> Float64[Tensor, "steps w"]:
        """How many columns of the source go into each column of the target."""
        sums = {edit: as_matrix(edit.L, self.target.width).sum(0) for edit in set(self.cross)}
        return torch.stack([sums[edit] for edit in self.cross])

    def own(self) -> Float64[Tensor, "steps w"]:
        """The factor of the target's own column."""
        diagonals = {edit: as_matrix(edit.R, self.target.width).diagonal() for edit in set(self.cross)}
        return torch.stack([diagonals[edit] for edit in self.cross])

    def origins(self, unit: Unit) -> list[str]:
        """Names of the units of the source that go into a unit of the target at some step."""
        reached = torch.zeros(self.source.width, dtype=torch.bool)
        for edit in set(self.cross):
            L = as_matrix(edit.L, self.target.width)
            reached |= (L[:, list(unit.columns)] != 0).any(1)
        return [other.name for other in units(self.source) if reached[list(other.columns)].any()]


def units(prompt: TokenizedPrompt) -> list[Unit]:
    """The units of a prompt, in order; those of several blocks together where they have one name."""
    begin: list[int] = []
    end: list[int] = []
    padding: list[int] = []
    first = 0
    for part in prompt.parts:
        begin += range(first, first + part.front)
        end.append(first + part.end)
        padding += range(first + part.end + 1, first + part.width)
        first += part.width
    words = [(word.text, word.span) for word in prompt.words]
    named = [("<begin>", tuple(begin)), *words, ("<end>", tuple(end)), (PADDING, tuple(padding))]
    return [Unit(name, columns) for name, columns in named if columns]


def write(table: Timetable) -> list[str]:
    """The table as lines: for each target word its columns, where they come from, how much, and when.

    Words are left out where cross-attention is not edited at all.
    """
    taken, own = table.taken(), table.own()
    edited = set(table.cross) != {NO_EDIT}
    heads = ("target", "columns", "from", "weight") if edited else ("", "", "", "")
    rows = [(*heads, _ruler(len(table.cross)))]
    for unit in units(table.target) if edited else []:
        columns = list(unit.columns)
        origins = " + ".join(table.origins(unit)) or "-"
        weight = (taken + own)[:, columns].mean(1)
        signs = "".join(map(_sign, taken[:, columns].abs().amax(1), own[:, columns].mean(1)))
        rows.append((unit.name, _span(columns), origins, _extent(weight), signs))
    kinds = "".join("." if edit == NO_SELF_EDIT else "#" for edit in table.self_edits)
    rows.append(("self-attention", "", "", "", kinds))
    widths = [max(len(row[place]) for row in rows) for place in range(4)]
    lines = ["  " + "  ".join([*map(str.ljust, row[:4], widths), row[4]]).rstrip() for row in rows]
    lines += [
        f"  self-attention at {ranges([other == edit for other in table.self_edits])}: {edit}"
        for edit in dict.fromkeys(table.self_edits)
        if edit != NO_SELF_EDIT
    ]
    return [*lines, f"  {LEGEND}"]


def draw(table: Timetable) -> Image.Image:
    """The table as a picture: a column per step, a row per token of the target and one for self-attention."""
    # Padding is many columns of one kind: the row of the first stands for them.
    names = [
        (unit.name if column == unit.columns[0] else "·", column)
        for unit in units(table.target)
        for column in (unit.columns[:1] if unit.name == PADDING else unit.columns)
    ]
    taken, own = table.taken(), table.own()
    font = ImageFont.load_default(12)
    labels = [name for name, _ in names] + ["self-attention"]
    left = 8 + max(int(font.getlength(label)) for label in labels)
    (width, height), steps = _CELL, len(table.cross)
    picture = Image.new("RGB", (left + steps * width, len(labels) * height), "white")
    pen = ImageDraw.Draw(picture)
    for row, label in enumerate(labels):
        pen.text((4, row * height), label, "black", font)
        for step in range(steps):
            if row < len(names):
                column = names[row][1]
                colour = _colour(float(taken[step, column]), float(own[step, column]))
            else:
                colour = _colour(*((0.0, 1.0) if table.self_edits[step] == NO_SELF_EDIT else (1.0, 0.0)))
            corner = (left + step * width, row * height)
            pen.rectangle((*corner, corner[0] + width - 2, corner[1] + height - 2), colour)
    return picture


def ranges(on: Sequence[bool]) -> str:
    """Steps that are on, as "steps 0..19" or "no step"."""
    states = [False, *on, False]
    edges = [step for step in range(len(on) + 1) if states[step] != states[step + 1]]
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return "steps " + ", ".join(f"{start}..{stop - 1}" for start, stop in pairs) if edges else "no step"


def _sign(taken: Tensor, own: Tensor) -> str:
    if taken:
        return "+" if own else "#"
    return "." if own == 1 else "o" if own else " "


def _ruler(steps: int) -> str:
    """Step numbers 0, 10, 20, ... above their places."""
    return "".join(f"{step:<10}"[: steps - step] for step in range(0, steps, 10))


def _span(columns: Sequence[int]) -> str:
    starts = [place for place, column in enumerate(columns) if not place or columns[place - 1] != column - 1]
    runs = [columns[start:stop] for start, stop in zip(starts, [*starts[1:], len(columns)], strict=True)]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs)


def _extent(values: Float64[Tensor, " steps"]) -> str:
    low, high = f"{float(values.min()):.3g}", f"{float(values.max()):.3g}"
    return low if low == high else f"{low}..{high}"


def _colour(taken: float, own: float) -> tuple[int, int, int]:
    """Blue by the source's part, grey by the own; paler below one map's worth, darker above, red below 0."""
    mass = abs(taken) + abs(own)
    if not mass:
        return (255, 255, 255)
    hue = [(abs(taken) * s + abs(own) * o) / mass for s, o in zip(_SOURCE, _OWN, strict=True)]
    if taken + own < 0:
        hue = list(_NEGATIVE)
    scaled = [1 - mass * (1 - part) if mass < 1 else part * (0.4 + 0.6 / mass) for part in hue]
    red, green, blue = (round(255 * min(max(part, 0.0), 1.0)) for part in scaled)
    return (red, green, blue)
