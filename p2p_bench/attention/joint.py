"""Attention of diffusion transformers: queries, keys and values of pixels and text, side by side."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from p2p_bench.attention.folding import (
    check_rows,
    folded,
    gathered,
    heads,
    record_columns,
    summed,
    take,
    without,
)
from p2p_bench.attention.mass import normalised
from p2p_bench.attention.plan import PLAIN, SitePlan, StepPlan
from p2p_bench.attention.sites import Site


class FoldedJointProcessor:
    """Joint attention of Stable Diffusion 3: pixels and text ask and are asked, [pixels, text] in both.

    An edit acts on the rows of the pixels, in which text columns are cross-attention and pixel columns
    self-attention; rows of an edited map are not renormalised. The text's own rows stay as they are: they are
    asked for in a second call, which costs what they cost in the joint one. Where queries and keys of pixels
    are another row's and nothing else is edited, the text sees these keys too, and one call serves both.
    Without a plan for its site it computes exactly what diffusers' `JointAttnProcessor2_0` does.

    Args:
        site: The site it is installed at.
    """

    def __init__(self, site: Site) -> None:
        self.site = site

    def __call__(
        self,
        attn: Any,
        hidden_states: Float[Tensor, "n s c"],
        encoder_hidden_states: Float[Tensor, "n w c"],
        attention_mask: None = None,
        plan: StepPlan | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend. Arguments as in diffusers; `plan` comes through `joint_attention_kwargs`.

        Returns:
            What the pixels get and what the text gets. In the last block nobody reads the latter: it is not
            projected, and None where the site is edited.
        """
        at = PLAIN if plan is None else plan.sites.get(self.site.name, PLAIN)
        check_rows(hidden_states, plan)
        pixels, text, last = hidden_states, encoder_hidden_states, attn.context_pre_only
        query = _normed(attn.norm_q, heads(attn, attn.to_q(take(pixels, at.query.rows))))
        keys = (
            _normed(attn.norm_k, heads(attn, attn.to_k(pixels))),
            _normed(attn.norm_added_k, heads(attn, attn.add_k_proj(text))),
        )
        values = attn.to_v(pixels), attn.add_v_proj(text)
        if at is not PLAIN and last:
            seen, read = self._edited(attn, at, take(query, at.query.index), keys, values), None
            return attn.to_out[1](attn.to_out[0](seen)), read

        asking = _normed(attn.norm_added_q, heads(attn, attn.add_q_proj(text)))
        key = torch.cat([take(keys[0], at.joint.seen), keys[1]], 2)
        whole = key, heads(attn, torch.cat(values, 1))
        if at is PLAIN or at.joint.whole:
            query = take(query, at.query.index)
            both = _merged(scaled_dot_product_attention(torch.cat([query, asking], 2), *whole))
            seen, read = both[:, : pixels.shape[1]], both[:, pixels.shape[1] :]
            for record in at.records:
                record_columns(record, self.site, query, key, text_first=False)
        else:
            seen = self._edited(attn, at, take(query, at.query.index), keys, values)
            read = _merged(scaled_dot_product_attention(asking, *whole))
        return attn.to_out[1](attn.to_out[0](seen)), read if last else attn.to_add_out(read)

    def _edited(
        self,
        attn: Any,
        at: SitePlan,
        query: Float[Tensor, "terms heads s d"],
        keys: tuple[Float[Tensor, "n heads s d"], Float[Tensor, "n heads w d"]],
        values: tuple[Float[Tensor, "n s c"], Float[Tensor, "n w c"]],
    ) -> Float[Tensor, "n s c"]:
        """What the pixels get, edited."""
        pixel_value = without(gathered(values[0], at.joint.value), at.joint.no_pixels)
        text_value = without(folded(at, gathered(values[1], at.value)), at.joint.no_text)
        key = torch.cat([gathered(keys[0], at.joint.key), gathered(keys[1], at.key)], 2)
        value = heads(attn, torch.cat([pixel_value, text_value], 1))
        out = scaled_dot_product_attention(query, key, value)
        for record in at.records:
            record_columns(record, self.site, query, key, text_first=False)
        out = normalised(out, at.mass, query, key, keys[0].shape[2], text_first=False)
        return summed(out, at, len(values[0]))


def _merged(out: Float[Tensor, "n heads s d"]) -> Float[Tensor, "n s c"]:
    """Heads side by side."""
    return out.transpose(1, 2).flatten(2)


def _normed(norm: Any, states: Float[Tensor, "n heads s d"]) -> Float[Tensor, "n heads s d"]:
    """Queries or keys behind the norm that a model may have for them."""
    normed: Tensor = states if norm is None else norm(states)
    return normed
