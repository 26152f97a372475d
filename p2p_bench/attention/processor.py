"""The attention processors that carry out a plan in one fused call per site, one for each kind of site."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from p2p_bench.attention.plan import PLAIN, RecordPlan, SitePlan, StepPlan
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
        _check_rows(hidden_states, plan)
        mask = _head_mask(attn, attention_mask, context)

        query = _heads(attn, attn.to_q(_take(hidden_states, at.query.rows)))
        key = _heads(attn, attn.to_k(_take(context, at.key.rows)))
        value = _folded(at, _take(attn.to_v(_take(context, at.value.rows)), at.value.index))
        query = query if attn.norm_q is None else attn.norm_q(query)
        key = key if attn.norm_k is None else attn.norm_k(key)

        query, key = _take(query, at.query.index), _take(key, at.key.index)
        mask = None if mask is None else _take(mask, at.key_rows)
        out = scaled_dot_product_attention(query, key, _heads(attn, value), attn_mask=mask)
        for record in at.records:
            _record(record, self.site, query, key, mask)
        return _finished(attn, _summed(out, at, len(residual)).to(query.dtype), residual)


class FoldedAddedKVProcessor:
    """Attention of one site with added keys and values: text columns, and behind them the row's own pixels.

    Without a plan it computes exactly what diffusers' `AttnAddedKVProcessor2_0` does. A layer that attends to
    the text alone (`only_cross_attention`) is served too.

    Args:
        site: The site it is installed at.
    """

    def __init__(self, site: Site) -> None:
        self.site = site

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "n c h w"],
        encoder_hidden_states: Float[Tensor, "n l e"],
        attention_mask: Float[Tensor, "n 1 l"] | None = None,
        temb: Tensor | None = None,
        plan: StepPlan | None = None,
    ) -> Tensor:
        """Attend. Arguments as in diffusers; `plan` comes through `cross_attention_kwargs`."""
        at = PLAIN if plan is None else plan.sites.get(self.site.name, PLAIN)
        residual, text = hidden_states, encoder_hidden_states
        _check_rows(hidden_states, plan)
        if attn.norm_cross:
            text = attn.norm_encoder_hidden_states(text)
        pixels = attn.group_norm(hidden_states.flatten(2)).transpose(1, 2)

        query = _take(_heads(attn, attn.to_q(_take(pixels, at.query.rows))), at.query.index)
        key = _take(attn.add_k_proj(_take(text, at.key.rows)), at.key.index)
        value = _folded(at, _take(attn.add_v_proj(_take(text, at.value.rows)), at.value.index))
        mask = None if attention_mask is None else attention_mask[:, None]
        if self.site.joint:
            value = _without(value, at.joint.no_text)
            own = at.joint.key, at.joint.value
            pixel_key, pixel_value = (
                _take(project(_take(pixels, gather.rows)), gather.index)
                for project, gather in zip((attn.to_k, attn.to_v), own, strict=True)
            )
            key = torch.cat([key, pixel_key], 1)
            value = torch.cat([value, _without(pixel_value, at.joint.no_pixels)], 1)
            # All pixels are seen: the mask is one of text columns, added to the scores.
            mask = None if mask is None else pad(mask, (0, pixels.shape[1]))
        key, mask = _heads(attn, key), None if mask is None else _take(mask, at.key_rows)

        out = scaled_dot_product_attention(query, key, _heads(attn, value), attn_mask=mask)
        for record in at.records:
            _record(record, self.site, query, key, mask)
        out = _summed(out, at, len(residual))
        out = attn.to_out[1](attn.to_out[0](out)).transpose(-1, -2)
        finished: Tensor = out.reshape(residual.shape) + residual
        return finished


_FOLDED = SharedChange()


@contextmanager
def folded_attention(unet: Any) -> Iterator[tuple[Site, ...]]:
    """Install a folded processor at every site of a U-Net; the old processors come back on exit.

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
        folded = {f"{site.name}.processor": _processor(unet, site) for site in sites}
        unet.set_attn_processor({**before, **folded})
        return lambda: unet.set_attn_processor(before)

    with _FOLDED.within(unet, change):
        yield sites


def _processor(unet: Any, site: Site) -> FoldedAttnProcessor | FoldedAddedKVProcessor:
    added = unet.get_submodule(site.name).added_kv_proj_dim is not None
    return FoldedAddedKVProcessor(site) if added else FoldedAttnProcessor(site)


def _check_rows(hidden_states: Tensor, plan: StepPlan | None) -> None:
    if plan is not None and len(hidden_states) != plan.num_rows:
        raise ValueError(f"plan: made for {plan.num_rows} rows, the batch has {len(hidden_states)}")


def _take(tensor: Tensor, rows: Tensor | None) -> Tensor:
    return tensor if rows is None else tensor.index_select(0, rows)


def _heads(attn: Attention, tensor: Float[Tensor, "n s c"]) -> Float[Tensor, "n heads s d"]:
    return torch.unflatten(tensor, 2, (attn.heads, -1)).transpose(1, 2)


def _folded(at: SitePlan, value: Float[Tensor, "terms w c"]) -> Float[Tensor, "terms w c"]:
    """The values of the terms behind their column maps."""
    if at.folding is None:
        return value
    terms, maps = at.folding.terms, at.folding.maps
    return value.index_copy(0, terms, maps @ value.index_select(0, terms))


def _without(value: Float[Tensor, "terms w c"], terms: Tensor | None) -> Float[Tensor, "terms w c"]:
    """The values, zero in some terms."""
    return value if terms is None else value.index_fill(0, terms, 0)


def _summed(out: Float[Tensor, "terms heads s d"], at: SitePlan, rows: int) -> Float[Tensor, "n s c"]:
    """The terms of each row added up."""
    out = out.transpose(1, 2).flatten(2)
    return out if at.extra_rows is None else out[:rows].index_add(0, at.extra_rows, out[rows:])


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
    """Attention of terms with columns of their column maps as values: columns of the edited maps."""
    query, key = query.index_select(0, at.terms), key.index_select(0, at.terms)
    # At a joint site text columns are kept, and no pixel column.
    values = pad(at.values, (0, 0, 0, key.shape[2] - at.values.shape[2])) if site.joint else at.values
    values = values.expand(-1, query.shape[1], -1, -1)
    mask = None if mask is None else mask.index_select(0, at.terms)
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
