"""The attention processor that carries out a plan in one fused call per site."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from p2p_bench.attention.plan import PLAIN, RecordPlan, StepPlan
from p2p_bench.attention.sites import Site, unet_sites
from p2p_bench.shared import SharedChange


class FoldedAttnProcessor:
    """Attention of one site, edited by folding column maps into the values.

    Without a plan it computes exactly what diffusers' `AttnProcessor2_0` does. With one, the terms of all
    rows are gathered along the batch axis; queries and keys that no term reads are never computed.

    Args:
        site: The site it is installed at.
    """

    def __init__(self, site: Site) -> None:
        self.site = site

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        plan: StepPlan | None = None,
    ) -> Tensor:
        """Attend. Shapes and arguments as in diffusers; `plan` comes through `cross_attention_kwargs`."""
        at = PLAIN if plan is None else plan.sites.get(self.site.name, PLAIN)
        residual = hidden_states
        hidden_states, context = _normalised(attn, hidden_states, encoder_hidden_states, temb)
        if plan is not None and len(hidden_states) != plan.num_rows:
            raise ValueError(f"plan: made for {plan.num_rows} rows, the batch has {len(hidden_states)}")
        mask = _head_mask(attn, attention_mask, context)

        query = _heads(attn, attn.to_q(_take(hidden_states, at.query.rows)))
        key = _heads(attn, attn.to_k(_take(context, at.key.rows)))
        value = _take(attn.to_v(_take(context, at.value.rows)), at.value.index)
        if at.folding is not None:
            terms, maps = at.folding.terms, at.folding.maps
            value = value.index_copy(0, terms, maps @ value.index_select(0, terms))
        query = query if attn.norm_q is None else attn.norm_q(query)
        key = key if attn.norm_k is None else attn.norm_k(key)

        out = scaled_dot_product_attention(
            _take(query, at.query.index),
            _take(key, at.key.index),
            _heads(attn, value),
            attn_mask=None if mask is None else _take(mask, at.key_rows),
        )
        for record in at.records:
            _record(record, self.site, query, key, mask)
        out = out.transpose(1, 2).flatten(2)
        if at.extra_rows is not None:
            out = out[: len(residual)].index_add(0, at.extra_rows, out[len(residual) :])
        return _finished(attn, out.to(query.dtype), residual)


_FOLDED = SharedChange()


@contextmanager
def folded_attention(unet: Any) -> Iterator[tuple[Site, ...]]:
    """Install a `FoldedAttnProcessor` at every site of a U-Net; the old processors come back on exit.

    Several threads may be within it with one U-Net: the processors hold no state, since plans come with each
    pass, and the last to leave puts the old ones back. A pass without a plan computes the same with either.

    Args:
        unet: A diffusers `UNet2DConditionModel`.

    Yields:
        The sites.
    """
    sites = unet_sites(unet)

    def change() -> Callable[[], None]:
        before = dict(unet.attn_processors)
        folded = {f"{site.name}.processor": FoldedAttnProcessor(site) for site in sites}
        unet.set_attn_processor({**before, **folded})
        return lambda: unet.set_attn_processor(before)

    with _FOLDED.within(unet, change):
        yield sites


def _take(tensor: Tensor, rows: Tensor | None) -> Tensor:
    return tensor if rows is None else tensor.index_select(0, rows)


def _heads(attn: Attention, tensor: Float[Tensor, "n s c"]) -> Float[Tensor, "n heads s d"]:
    return torch.unflatten(tensor, 2, (attn.heads, -1)).transpose(1, 2)


def _normalised(
    attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None, temb: Tensor | None
) -> tuple[Float[Tensor, "n s c"], Float[Tensor, "n w e"]]:
    """Pixels as a sequence, and the context they attend to: the text, or themselves."""
    if attn.spatial_norm is not None:
        hidden_states = attn.spatial_norm(hidden_states, temb)
    if hidden_states.ndim == 4:
        hidden_states = hidden_states.flatten(2).transpose(1, 2)
    if attn.group_norm is not None:
        hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
    if encoder_hidden_states is None:
        return hidden_states, hidden_states
    if attn.norm_cross:
        encoder_hidden_states = attn.norm_encoder_hidden_states(encoder_hidden_states)
    return hidden_states, encoder_hidden_states


def _head_mask(attn: Attention, mask: Tensor | None, context: Tensor) -> Float[Tensor, "n heads _ w"] | None:
    if mask is None:
        return None
    mask = attn.prepare_attention_mask(mask, context.shape[1], len(context))
    return mask.view(len(context), attn.heads, -1, mask.shape[-1])


def _record(at: RecordPlan, site: Site, query: Tensor, key: Tensor, mask: Tensor | None) -> None:
    """Attention with columns of the column maps as values: the edited maps' columns."""
    query, key = query.index_select(0, at.query), key.index_select(0, at.key)
    values = at.values.expand(-1, query.shape[1], -1, -1)
    mask = None if mask is None else mask.index_select(0, at.key_rows)
    columns = scaled_dot_product_attention(query, key, values, attn_mask=mask)
    maps = columns.permute(0, 3, 1, 2).flatten(0, 1)
    at.recorder.add(site, maps.index_select(0, at.kept), at.slots)


def _finished(attn: Attention, out: Float[Tensor, "n s c"], residual: Tensor) -> Tensor:
    """Output projection, residual and rescaling."""
    out = attn.to_out[1](attn.to_out[0](out))
    if residual.ndim == 4:
        out = out.transpose(-1, -2).reshape(residual.shape)
    if attn.residual_connection:
        out = out + residual
    return out / attn.rescale_output_factor
