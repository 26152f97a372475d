"""What attention processors share: rows gathered for terms, column maps folded into values, sums of terms."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from p2p_bench.attention.plan import Gather, RecordPlan, SitePlan, StepPlan
from p2p_bench.attention.sites import Site


def check_rows(hidden_states: Tensor, plan: StepPlan | None) -> None:
    """Raises a `ValueError` unless a plan was made for as many rows as there are."""
    if plan is not None and len(hidden_states) != plan.num_rows:
        raise ValueError(f"plan: made for {plan.num_rows} rows, the batch has {len(hidden_states)}")


def take(tensor: Tensor, rows: Tensor | None) -> Tensor:
    """Some rows, by index; None: all, in order."""
    return tensor if rows is None else tensor.index_select(0, rows)


def gathered(tensor: Tensor, gather: Gather) -> Tensor:
    """The rows of the terms, from those of the network batch."""
    if gather.rows is None or gather.index is None:
        return take(take(tensor, gather.rows), gather.index)
    return tensor.index_select(0, gather.rows.index_select(0, gather.index))


def heads(attn: Any, tensor: Float[Tensor, "n s c"]) -> Float[Tensor, "n heads s d"]:
    """Channels split into heads."""
    return torch.unflatten(tensor, 2, (attn.heads, -1)).transpose(1, 2)


def folded(at: SitePlan, value: Float[Tensor, "terms w c"]) -> Float[Tensor, "terms w c"]:
    """The values of the terms behind their column maps."""
    if at.folding is None:
        return value
    terms, maps = at.folding.terms, at.folding.maps
    return value.index_copy(0, terms, maps @ value.index_select(0, terms))


def without(value: Float[Tensor, "terms w c"], terms: Tensor | None) -> Float[Tensor, "terms w c"]:
    """The values, zero in some terms."""
    return value if terms is None else value.index_fill(0, terms, 0)


def summed(out: Float[Tensor, "terms heads s d"], at: SitePlan, rows: int) -> Float[Tensor, "n s c"]:
    """The terms of each row added up."""
    out = out.transpose(1, 2).flatten(2)
    return out if at.extra_rows is None else out[:rows].index_add(0, at.extra_rows, out[rows:])


def record_columns(
    at: RecordPlan,
    site: Site,
    query: Float[Tensor, "terms heads s d"],
    key: Float[Tensor, "terms heads columns d"],
    mask: Tensor | None = None,
    text_first: bool = True,
) -> None:
    """Records columns of the edited maps: attention with columns of the terms' column maps as values.

    Args:
        at: What is recorded.
        site: Where.
        query: Queries of the terms.
        key: Their keys; at a joint site those of text and pixels.
        mask: Added to the scores.
        text_first: Whether the text's keys come before those of the pixels.
    """
    query, key = query.index_select(0, at.terms), key.index_select(0, at.terms)
    # At a joint site text columns are kept, and no pixel column.
    rest = key.shape[2] - at.values.shape[2] if site.joint else 0
    values = pad(at.values, (0, 0, 0, rest) if text_first else (0, 0, rest, 0))
    values = values.expand(-1, query.shape[1], -1, -1)
    mask = None if mask is None else mask.index_select(0, at.terms)
    columns = scaled_dot_product_attention(query, key, values, attn_mask=mask)
    maps = columns.permute(0, 3, 1, 2).flatten(0, 1)
    at.recorder.add(site, maps.index_select(0, at.kept), at.slots)
