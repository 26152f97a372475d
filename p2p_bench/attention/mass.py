"""Rows of edited maps that are normalised again, without writing a map out.

A row of `A_s L + A_t R` need not add up to 1, and published code leaves it so. Its sum is what attention with
the sums of the column maps' rows as values gives, so it takes one more fused call, for the edited rows alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from p2p_bench.attention.columns import ColumnMap, Dense, Diagonal, Identity, Zero, as_matrix


@dataclass(frozen=True)
class MassPlan:
    """Terms whose rows are normalised again.

    Attributes:
        terms: Their positions.
        rows: For each, which of the normalised rows it belongs to.
        count: Number of these rows.
        text: For each, the sum of every row of its column map; a single one where all are equal.
        pixels: For each, what a pixel column counts.
    """

    terms: Int64[Tensor, " entries"]
    rows: Int64[Tensor, " entries"]
    count: int
    text: Float[Tensor, "entries w"]
    pixels: Float[Tensor, " entries"]


def mass_plan(
    terms: Sequence[tuple[int, int, ColumnMap, bool]], device: torch.device | str, dtype: torch.dtype
) -> MassPlan | None:
    """The plan; None where there is nothing to normalise.

    Args:
        terms: Position, row, column map, and whether pixel columns are dropped, of each term of a row that is
            normalised.
        device: Where the network runs.
        dtype: The network's precision.
    """
    rows = list(dict.fromkeys(row for _, row, _, _ in terms))
    if not rows:
        return None
    written = [columns for _, _, columns, _ in terms if isinstance(columns, Diagonal | Dense)]
    width = len(written[0].values) if written else 1
    sums = [
        torch.full((width,), float(columns == Identity()), dtype=torch.float64)
        if columns in (Identity(), Zero())
        else as_matrix(columns, width).sum(1)
        for _, _, columns, _ in terms
    ]
    return MassPlan(
        terms=torch.tensor([position for position, _, _, _ in terms], device=device),
        rows=torch.tensor([rows.index(row) for _, row, _, _ in terms], device=device),
        count=len(rows),
        text=torch.stack(sums).to(device, dtype),
        pixels=torch.tensor([float(not dropped) for _, _, _, dropped in terms]).to(device, dtype),
    )


def normalised(
    out: Float[Tensor, "terms heads s d"],
    at: MassPlan | None,
    query: Float[Tensor, "terms heads s d"],
    key: Float[Tensor, "terms heads columns d"],
    pixels: int = 0,
    mask: Tensor | None = None,
    text_first: bool = True,
) -> Float[Tensor, "terms heads s d"]:
    """The terms, those of normalised rows divided by the sum of their row.

    Args:
        out: What each term gives.
        at: Which rows are normalised; None: none.
        query: Queries of the terms.
        key: Their keys.
        pixels: How many of the columns are pixels'.
        mask: Added to the scores.
        text_first: Whether the text's columns come before those of the pixels.
    """
    if at is None:
        return out
    text = at.text.expand(-1, key.shape[2] - pixels)
    own = at.pixels[:, None].expand(-1, pixels)
    counted = torch.cat([text, own] if text_first else [own, text], 1)
    # As wide as the queries, so that the call stays fused.
    value = pad(counted[:, None, :, None], (0, query.shape[-1] - 1)).expand(-1, query.shape[1], -1, -1)
    query, key = query.index_select(0, at.terms), key.index_select(0, at.terms)
    mask = None if mask is None else mask.index_select(0, at.terms)
    part = scaled_dot_product_attention(query, key, value, attn_mask=mask)[..., :1]
    mass = part.new_zeros(at.count, *part.shape[1:]).index_add(0, at.rows, part)
    divided = out.index_select(0, at.terms) / mass.index_select(0, at.rows)
    return out.index_copy(0, at.terms, divided)
