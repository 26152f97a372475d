"""Recording attention maps after the edit, without writing out any that were not asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from p2p_bench.attention.sites import Site
from p2p_bench.errors import ConfigError

Detail = Literal["steps", "layers", "heads"]
"""What a recorder can keep apart instead of averaging over it."""

_MAX_POSITIONS = 4096
"""Most positions of a self-attention map that is recorded: its size is the square of this."""

_Group = tuple[int | None, str | None]
"""Step and layer that a sum belongs to; None: all of them."""


@dataclass(frozen=True)
class RecordSpec:
    """Which maps to keep.

    Attributes:
        rows: Rows of the network batch.
        columns: Text columns, one tuple per row, or "all". Self-attention has a column per position.
        fraction: Side of the recorded maps as a fraction of the latent side (a power of 1/2).
        kind: Kind of attention.
        apart: What is kept apart; maps are averaged over the others.
    """

    rows: tuple[int, ...]
    columns: tuple[tuple[int, ...], ...] | Literal["all"] = "all"
    fraction: float = 0.25
    kind: Literal["cross", "self"] = "cross"
    apart: frozenset[Detail] = frozenset()


class Recorder:
    """Sums attention maps over layers and steps, as far as they are not kept apart.

    All state of a row lies at its place on the leading axis of the tensors of `sums`, so rows can be selected
    and forked by `index_select`; `counts` is the same for all rows.

    Attributes:
        sums: By (step, layer), None standing for all of them: rows x columns x heads x positions.
        counts: Number of maps in each of these sums.

    Args:
        spec: Which maps to keep.
        width: Number of text columns W.
        latent_size: Height and width of the latent.

    Raises:
        ConfigError: The fraction is not 1, 1/2, 1/4, ...; or self-attention maps are too large to keep.
        ValueError: `columns` does not have one entry per row.
    """

    def __init__(self, spec: RecordSpec, width: int, latent_size: tuple[int, int]) -> None:
        levels = [level for level in range(10) if 2.0**-level == spec.fraction]
        if not levels:
            raise ConfigError(f"expected 1, 0.5, 0.25, ... of the side, got {spec.fraction}")
        self._level = levels[0]
        self._latent_size = latent_size
        height, breadth = latent_size
        # A strided convolution rounds up.
        self._size = (-(-height // 2**self._level), -(-breadth // 2**self._level))
        positions = self._size[0] * self._size[1]
        if spec.kind == "self" and positions > _MAX_POSITIONS:
            raise ConfigError(
                f"self-attention at {spec.fraction:g} of the side has {positions} positions, "
                f"at most {_MAX_POSITIONS} can be kept; choose a smaller fraction"
            )
        self.spec = spec
        self.width = width if spec.kind == "cross" else positions
        self.sums: dict[_Group, Tensor] = {}
        self.counts: dict[_Group, int] = {}
        columns = [tuple(range(self.width))] * len(spec.rows) if spec.columns == "all" else spec.columns
        self._columns = dict(zip(spec.rows, columns, strict=True))
        self._places = {row: place for place, row in enumerate(spec.rows)}
        self._step = 0

    def forked(
        self, parents: Sequence[int], columns: Mapping[int, tuple[int, ...]] | Sequence[int]
    ) -> "Recorder":
        """What goes on from here for rows that were forked.

        Args:
            parents: For each new row of the network batch, the row that it goes on from.
            columns: The new rows that are kept on, all of which go on from rows kept so far; with the columns
                needed from here on, or without them to keep all.
        """
        spec = replace(self.spec, rows=tuple(columns), columns="all")
        if isinstance(columns, Mapping):
            spec = replace(spec, columns=tuple(columns.values()))
        other = Recorder(spec, self.width, self._latent_size)
        places = [self._places[parents[row]] for row in spec.rows]
        for group, sums in self.sums.items():
            other.sums[group] = sums.index_select(0, torch.tensor(places, device=sums.device))
            other.counts[group] = self.counts[group]
        return other

    def records(self, site: Site) -> bool:
        """Whether maps of this site are kept."""
        return any(self._columns.values()) and site.kind == self.spec.kind and site.level == self._level

    def check(self, sites: Sequence[Site]) -> None:
        """See that there is something to record.

        Raises:
            ConfigError: No site of this kind has maps of the wanted size, or heads cannot be kept apart.
        """
        alike = [site for site in sites if site.kind == self.spec.kind]
        sizes = sorted({site.fraction for site in alike}, reverse=True)
        if self.spec.fraction not in sizes:
            raise ConfigError(
                f"there is no {self.spec.kind}-attention at {self.spec.fraction:g} of the "
                f"side; the model has {', '.join(map(str, sizes)) or 'no such layers'}"
            )
        heads = {site.heads for site in alike if site.level == self._level}
        if "heads" in self.spec.apart and len(heads) > 1:
            raise ConfigError(f"the layers have {sorted(heads)} heads, which cannot be kept apart")

    def begin(self, step: int) -> None:
        """Says which step (an index from 0) the next maps belong to."""
        self._step = step

    def columns(self, row: int) -> tuple[int, ...]:
        """Columns kept of a row of the network batch; none if the row is not recorded."""
        return self._columns.get(row, ())

    def slot(self, row: int, column: int) -> int:
        """Where a column of a row lies in the flattened sums."""
        return self._places[row] * self.width + column

    def add(self, site: Site, maps: Float[Tensor, "kept heads s"], slots: Int64[Tensor, " kept"]) -> None:
        """Add columns of the maps of one layer at the step that has begun."""
        apart = self.spec.apart
        if "heads" not in apart:
            maps = maps.mean(1, keepdim=True)
        group = (self._step if "steps" in apart else None, site.name if "layers" in apart else None)
        if group not in self.sums:
            dtype = torch.promote_types(maps.dtype, torch.float32)
            shape = (len(self.spec.rows), self.width, *maps.shape[1:])
            self.sums[group] = torch.zeros(shape, dtype=dtype, device=maps.device)
            self.counts[group] = 0
        sums = self.sums[group]
        sums.view(-1, *maps.shape[1:]).index_add_(0, slots, maps.to(sums.dtype))
        self.counts[group] += 1

    def maps(self, row: int) -> Float[Tensor, "w height width"]:
        """Mean over layers, heads and steps of a row's maps, one per column; columns not asked for are zero.

        Raises:
            ValueError: The row is not recorded, or nothing has been recorded yet.
        """
        place = self._place(row)
        total = sum(self.counts.values())
        summed = torch.stack([sums[place] for sums in self.sums.values()]).sum(0)
        return torch.unflatten((summed / total).mean(1), -1, self._size)

    def detailed(self, row: int) -> Float[Tensor, "steps layers heads w height width"]:
        """The maps of a row with what is kept apart on axes of its own; the other axes have length 1.

        Raises:
            ValueError: The row is not recorded, or nothing has been recorded yet.
        """
        place = self._place(row)
        steps = dict.fromkeys(step for step, _ in self.sums)
        layers = dict.fromkeys(layer for _, layer in self.sums)
        means = [
            torch.stack([self.sums[step, layer][place] / self.counts[step, layer] for layer in layers])
            for step in steps
        ]
        return torch.unflatten(torch.stack(means).transpose(2, 3), -1, self._size)

    def _place(self, row: int) -> int:
        if row not in self._places:
            raise ValueError(f"row: expected one of the recorded rows {self.spec.rows}, got {row}")
        if not self.sums:
            raise ValueError("nothing is recorded yet: run the network with a plan built with this recorder")
        return self._places[row]
