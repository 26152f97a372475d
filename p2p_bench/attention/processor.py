"""The attention processors that carry out a plan in one fused call per site, one for each kind of site."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from p2p_bench.attention.flux import FoldedFluxProcessor
from p2p_bench.attention.folding import check_rows, folded, heads, record_columns, summed, take, without
from p2p_bench.attention.joint import FoldedJointProcessor
from p2p_bench.attention.mass import normalised
from p2p_bench.attention.plan import PLAIN, StepPlan
from p2p_bench.attention.sites import Site, network_sites
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
        check_rows(hidden_states, plan)
        mask = _head_mask(attn, attention_mask, context)

        query = heads(attn, attn.to_q(take(hidden_states, at.query.rows)))
        key = heads(attn, attn.to_k(take(context, at.key.rows)))
        valued = _valued(attn, self.site, context, plan)
        value = folded(at, take(attn.to_v(take(valued, at.value.rows)), at.value.index))
        query = query if attn.norm_q is None else attn.norm_q(query)
        key = key if attn.norm_k is None else attn.norm_k(key)

        query, key = take(query, at.query.index), take(key, at.key.index)
        mask = None if mask is None else take(mask, at.key_rows)
        out = scaled_dot_product_attention(query, key, heads(attn, value), attn_mask=mask)
        for record in at.records:
            record_columns(record, self.site, query, key, mask)
        if plan is not None and plan.maps is not None and self.site.kind == "cross":
            plan.maps.read(self.site, query, key, mask)
        out = normalised(out, at.mass, query, key, mask=mask)
        return _finished(attn, summed(out, at, len(residual)).to(query.dtype), residual)


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
        check_rows(hidden_states, plan)
        if attn.norm_cross:
            text = attn.norm_encoder_hidden_states(text)
        pixels = attn.group_norm(hidden_states.flatten(2)).transpose(1, 2)

        query = take(heads(attn, attn.to_q(take(pixels, at.query.rows))), at.query.index)
        key = take(attn.add_k_proj(take(text, at.key.rows)), at.key.index)
        value = folded(at, take(attn.add_v_proj(take(text, at.value.rows)), at.value.index))
        mask = None if attention_mask is None else attention_mask[:, None]
        if self.site.joint:
            value = without(value, at.joint.no_text)
            own = at.joint.key, at.joint.value
            pixel_key, pixel_value = (
                take(project(take(pixels, gather.rows)), gather.index)
                for project, gather in zip((attn.to_k, attn.to_v), own, strict=True)
            )
            key = torch.cat([key, pixel_key], 1)
            value = torch.cat([value, without(pixel_value, at.joint.no_pixels)], 1)
            # All pixels are seen: the mask is one of text columns, added to the scores.
            mask = None if mask is None else pad(mask, (0, pixels.shape[1]))
        key, mask = heads(attn, key), None if mask is None else take(mask, at.key_rows)

        out = scaled_dot_product_attention(query, key, heads(attn, value), attn_mask=mask)
        for record in at.records:
            record_columns(record, self.site, query, key, mask)
        out = normalised(out, at.mass, query, key, pixels.shape[1] if self.site.joint else 0, mask)
        out = summed(out, at, len(residual))
        out = attn.to_out[1](attn.to_out[0](out)).transpose(-1, -2)
        finished: Tensor = out.reshape(residual.shape) + residual
        return finished


_FOLDED = SharedChange()


@contextmanager
def folded_attention(network: Any) -> Iterator[tuple[Site, ...]]:
    """Install a folded processor at every site of a network; the old processors come back on exit.

    Several threads may be within it with one network: the processors hold no state, since plans come with
    each pass, and the last to leave puts the old ones back. A pass without a plan computes the same with
    either.

    Args:
        network: A diffusers `UNet2DConditionModel`, or a transformer, see `network_sites`.

    Yields:
        The sites.
    """
    sites = network_sites(network)

    def change() -> Callable[[], None]:
        before = dict(network.attn_processors)
        folded = {f"{site.name}.processor": _processor(network, site) for site in sites}
        network.set_attn_processor({**before, **folded})
        return lambda: network.set_attn_processor(before)

    with _FOLDED.within(network, change):
        yield sites


def _processor(network: Any, site: Site) -> Callable[..., Any]:
    if hasattr(network, "single_transformer_blocks"):
        return FoldedFluxProcessor(site, network.get_submodule(site.name).processor)
    if site.place == "block":
        return FoldedJointProcessor(site) if site.joint else FoldedAttnProcessor(site)
    added = network.get_submodule(site.name).added_kv_proj_dim is not None
    return FoldedAddedKVProcessor(site) if added else FoldedAttnProcessor(site)


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


def _valued(
    attn: Attention, site: Site, context: Float[Tensor, "n w e"], plan: StepPlan | None
) -> Float[Tensor, "n w e"]:
    """What values are made of: the context, unless the plan has something else in the place of the text."""
    if plan is None or plan.values is None or site.kind != "cross":
        return context
    return attn.norm_encoder_hidden_states(plan.values) if attn.norm_cross else plan.values


def _head_mask(attn: Attention, mask: Tensor | None, context: Tensor) -> Float[Tensor, "n heads _ w"] | None:
    if mask is None:
        return None
    mask = attn.prepare_attention_mask(mask, context.shape[1], len(context))
    return mask.view(len(context), attn.heads, -1, mask.shape[-1])


def _finished(attn: Attention, out: Float[Tensor, "n s c"], residual: Tensor) -> Tensor:
    """Output projection, residual and rescaling."""
    out = attn.to_out[1](attn.to_out[0](out))
    if residual.ndim == 4:
        out = out.transpose(-1, -2).reshape(residual.shape)
    if attn.residual_connection:
        out = out + residual
    return out / attn.rescale_output_factor
