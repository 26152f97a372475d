"""Maps of cross-attention written out, for whoever compares them; all else here writes none out.

Notation:
    A, A_s       softmax maps of a row and of its reference, (heads, pixels, text columns)
    distance     sum of (A - A_s)^2 over pixels and columns, its mean over heads, summed over sites
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from p2p_bench.attention.sites import Site


@runtime_checkable
class MapReader(Protocol):
    """Reads what the maps of a site are made of, in every pass it goes along with."""

    def read(
        self,
        site: Site,
        query: Float[Tensor, "n heads s d"],
        key: Float[Tensor, "n heads w d"],
        mask: Tensor | None,
    ) -> None:
        """Takes queries and keys of a site, and what is added to the scores."""
        ...


@dataclass(frozen=True, eq=False)
class KeptMaps:
    """Keeps the maps of all rows.

    Attributes:
        maps: By site; all of them are in memory until this is gone.
    """

    maps: dict[str, Float[Tensor, "n heads s w"]] = field(default_factory=dict)

    def read(
        self,
        site: Site,
        query: Float[Tensor, "n heads s d"],
        key: Float[Tensor, "n heads w d"],
        mask: Tensor | None,
    ) -> None:
        """See `MapReader`."""
        self.maps[site.name] = written_map(query, key, mask)


@dataclass(frozen=True, eq=False)
class MapDistances:
    """Adds up how far the maps of each row are from those of its reference.

    Attributes:
        references: Maps by site.
        rows: For each row, which of these is its reference.
        by_site: The distance of each row, by site.
    """

    references: Mapping[str, Float[Tensor, "m heads s w"]]
    rows: Int64[Tensor, " n"]
    by_site: dict[str, Float[Tensor, " n"]] = field(default_factory=dict)

    def read(
        self,
        site: Site,
        query: Float[Tensor, "n heads s d"],
        key: Float[Tensor, "n heads w d"],
        mask: Tensor | None,
    ) -> None:
        """See `MapReader`."""
        wanted = self.references[site.name].index_select(0, self.rows)
        self.by_site[site.name] = (written_map(query, key, mask) - wanted).square().sum((2, 3)).mean(1)

    def total(self) -> Float[Tensor, " n"]:
        """The distance of each row, over all sites."""
        return torch.stack(list(self.by_site.values())).sum(0)


@dataclass(frozen=True, eq=False)
class AtSites:
    """Lets another reader read at some sites.

    Attributes:
        names: Of the sites.
        reader: The reader.
    """

    names: frozenset[str]
    reader: MapReader

    def read(
        self,
        site: Site,
        query: Float[Tensor, "n heads s d"],
        key: Float[Tensor, "n heads w d"],
        mask: Tensor | None,
    ) -> None:
        """See `MapReader`."""
        if site.name in self.names:
            self.reader.read(site, query, key, mask)


def written_map(
    query: Float[Tensor, "n heads s d"], key: Float[Tensor, "n heads w d"], mask: Tensor | None
) -> Float[Tensor, "n heads s w"]:
    """The softmax map of queries on keys, in float32 at least.

    Args:
        query: Queries.
        key: Keys.
        mask: Added to the scores; None: nothing.
    """
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(2, 3)
    scores = scores if mask is None else scores + mask
    maps: Tensor = scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(-1)
    return maps
