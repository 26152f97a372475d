"""Recording attention maps after the edit, without writing out any that were not asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from p2p_bench.attention.sites import Site
from p2p_bench.errors import ConfigError


@dataclass(frozen=True)
class RecordSpec:
    """Which maps to keep.

    Attributes:
        rows: Rows of the network batch.
        columns: Text columns, one tuple per row, or "all".
        fraction: Side of the recorded maps as a fraction of the latent side (a power of 1/2).
    """

    rows: tuple[int, ...]
    columns: tuple[tuple[int, ...], ...] | Literal["all"] = "all"
    fraction: float = 0.25


class Recorder:
    """Sums cross-attention maps over layers and steps.

    Every map is the mean over heads. All state is `sums`, whose leading axis are the recorded rows, and the
    number of maps in it.

    Args:
        spec: Which maps to keep.
        width: Number of text columns W.
        latent_size: Height and width of the latent.

    Raises:
        ConfigError: The fraction is not 1, 1/2, 1/4, ...
        ValueError: `columns` does not have one entry per row.
    """

    def __init__(self, spec: RecordSpec, width: int, latent_size: tuple[int, int]) -> None:
        levels = [level for level in range(10) if 2.0**-level == spec.fraction]
        if not levels:
            raise ConfigError(f"record fraction: expected 1, 0.5, 0.25, ... of the side, got {spec.fraction}")
        columns = [tuple(range(width))] * len(spec.rows) if spec.columns == "all" else spec.columns
        self.spec = spec
        self.width = width
        self.sums: Tensor | None = None
        self.count = 0
        self._level = levels[0]
        self._columns = dict(zip(spec.rows, columns, strict=True))
        self._places = {row: place for place, row in enumerate(spec.rows)}
        height, breadth = latent_size
        # A strided convolution rounds up.
        self._size = (-(-height // 2**self._level), -(-breadth // 2**self._level))

    def records(self, site: Site) -> bool:
        """Whether maps of this site are kept."""
        return any(self._columns.values()) and site.kind == "cross" and site.level == self._level

    def check(self, sites: Sequence[Site]) -> None:
        """See that there is something to record.

        Raises:
            ConfigError: No cross-attention site has maps of the wanted size.
        """
        sizes = sorted({site.fraction for site in sites if site.kind == "cross"}, reverse=True)
        if self.spec.fraction not in sizes:
            raise ConfigError(
                f"record fraction: there is no cross-attention at {self.spec.fraction} of the side; "
                f"the model has {', '.join(map(str, sizes))}"
            )

    def columns(self, row: int) -> tuple[int, ...]:
        """Columns kept of a row of the network batch; none if the row is not recorded."""
        return self._columns.get(row, ())

    def slot(self, row: int, column: int) -> int:
        """Where a column of a row lies in the flattened sums."""
        return self._places[row] * self.width + column

    def add(self, maps: Float[Tensor, "kept s"], slots: Int64[Tensor, " kept"]) -> None:
        """Add columns of the maps of one layer at one step."""
        if self.sums is None:
            shape = (len(self.spec.rows), self.width, maps.shape[1])
            dtype = torch.promote_types(maps.dtype, torch.float32)
            self.sums = torch.zeros(shape, dtype=dtype, device=maps.device)
        self.sums.view(-1, maps.shape[1]).index_add_(0, slots, maps.to(self.sums.dtype))
        self.count += 1

    def maps(self, row: int) -> Float[Tensor, "w height width"]:
        """Mean over layers and steps of a row's maps, one per text column; columns not asked for are zero.

        Raises:
            ValueError: The row is not recorded, or nothing has been recorded yet.
        """
        if row not in self._places:
            raise ValueError(f"row: expected one of the recorded rows {self.spec.rows}, got {row}")
        if self.sums is None:
            raise ValueError("nothing is recorded yet: run the network with a plan built with this recorder")
        return (self.sums[self._places[row]] / self.count).unflatten(-1, self._size)
