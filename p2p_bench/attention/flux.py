"""Joint attention of FLUX: [text, pixels], in blocks of two streams and in blocks of one."""

from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb
from jaxtyping import Float
from torch import Tensor

from p2p_bench.attention.folding import check_rows, folded, gathered, record_columns, take, without
from p2p_bench.attention.mass import normalised
from p2p_bench.attention.plan import PLAIN, SitePlan, StepPlan
from p2p_bench.attention.sites import Site

Rotary = tuple[Float[Tensor, "s d"], Float[Tensor, "s d"]]
"""Cosines and sines of the positions."""

Projection = tuple[Any, Any]
"""A projection, and the norm behind it."""

Blocks = tuple[Tensor, Tensor]
"""What belongs to the text, and what to the pixels."""


class FoldedFluxProcessor:
    """Joint attention of FLUX, edited in the rows of the pixels as `FoldedJointProcessor` does.

    Calls go through diffusers' attention backends. Without a plan for its site the old processor is asked.

    Args:
        site: The site it is installed at.
        plain: The processor that is there without an edit.
    """

    def __init__(self, site: Site, plain: Any) -> None:
        self.site, self.plain = site, plain

    def __call__(
        self,
        attn: Any,
        hidden_states: Float[Tensor, "n s c"],
        encoder_hidden_states: Float[Tensor, "n w c"] | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
        plan: StepPlan | None = None,
        text_length: int = 0,
    ) -> Any:
        """Attend. Arguments as in diffusers; the last two come through `joint_attention_kwargs`.

        Args:
            attn: The layer.
            hidden_states: The pixels; in blocks of one stream the text and then the pixels.
            encoder_hidden_states: The text; None in blocks of one stream.
            attention_mask: Not used by the model.
            image_rotary_emb: Positions of text and pixels.
            plan: What the sites do.
            text_length: Number of text columns.
        """
        at = PLAIN if plan is None else plan.sites.get(self.site.name, PLAIN)
        check_rows(hidden_states, plan)
        if at is PLAIN:
            return self.plain(attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb)
        single = encoder_hidden_states is None
        states: Blocks = (
            (hidden_states[:, :text_length], hidden_states[:, text_length:])
            if encoder_hidden_states is None
            else (encoder_hidden_states, hidden_states)
        )
        cos, sin = image_rotary_emb
        rotary = tuple((cos[part], sin[part]) for part in (slice(text_length), slice(text_length, None)))
        to_query, to_key, to_value = _projections(attn, single)
        asking = _turned(attn, to_query[0], states[0], rotary[0])
        query = _turned(attn, to_query[1], take(states[1], at.query.rows), rotary[1])
        keys = (
            _turned(attn, to_key[0], states[0], rotary[0]),
            _turned(attn, to_key[1], states[1], rotary[1]),
        )
        values = to_value[0](states[0]), to_value[1](states[1])

        key = torch.cat([keys[0], take(keys[1], at.joint.seen)], 1)
        whole = key, _split(attn, torch.cat(values, 1))
        query = take(query, at.query.index)
        if at.joint.whole:
            both = self._attended(torch.cat([asking, query], 1), *whole)
            read, seen = both[:, :text_length], both[:, text_length:]
            for record in at.records:
                record_columns(record, self.site, query.transpose(1, 2), key.transpose(1, 2))
        else:
            read = self._attended(asking, *whole)
            seen = self._edited(attn, at, query, keys, values)
        if single:
            return torch.cat([read, seen], 1)
        return attn.to_out[1](attn.to_out[0](seen)), attn.to_add_out(read)

    def _edited(
        self, attn: Any, at: SitePlan, query: Float[Tensor, "terms s heads d"], keys: Blocks, values: Blocks
    ) -> Float[Tensor, "n s c"]:
        """What the pixels get, edited."""
        text_value = without(folded(at, gathered(values[0], at.value)), at.joint.no_text)
        pixel_value = without(gathered(values[1], at.joint.value), at.joint.no_pixels)
        key = torch.cat([gathered(keys[0], at.key), gathered(keys[1], at.joint.key)], 1)
        value = _split(attn, torch.cat([text_value, pixel_value], 1))
        out = self._attended(query, key, value)
        for record in at.records:
            record_columns(record, self.site, query.transpose(1, 2), key.transpose(1, 2))
        if at.mass is not None:
            split = _split(attn, out).transpose(1, 2)
            turned = query.transpose(1, 2), key.transpose(1, 2)
            split = normalised(split, at.mass, *turned, keys[1].shape[1])
            out = split.transpose(1, 2).flatten(2)
        rows = len(values[0])
        return out if at.extra_rows is None else out[:rows].index_add(0, at.extra_rows, out[rows:])

    def _attended(
        self,
        query: Float[Tensor, "n q heads d"],
        key: Float[Tensor, "n k heads d"],
        value: Float[Tensor, "n k heads d"],
    ) -> Float[Tensor, "n q c"]:
        """One fused call, by the backend that the model was set to."""
        backend = getattr(self.plain, "_attention_backend", None)
        out: Tensor = dispatch_attention_fn(query, key, value, backend=backend)
        return out.flatten(2, 3).to(query.dtype)


def _projections(attn: Any, single: bool) -> tuple[Any, Any, Any]:
    """Projections and norms of queries and of keys, and projections of values: the text's, the pixels'."""
    query, key, value = (attn.to_q, attn.norm_q), (attn.to_k, attn.norm_k), attn.to_v
    if single:
        return (query, query), (key, key), (value, value)
    text_query, text_key = (attn.add_q_proj, attn.norm_added_q), (attn.add_k_proj, attn.norm_added_k)
    return (text_query, query), (text_key, key), (attn.add_v_proj, value)


def _turned(
    attn: Any, projection: Projection, states: Float[Tensor, "n s c"], rotary: Rotary
) -> Float[Tensor, "n s heads d"]:
    """Queries or keys of states, normed and turned by their positions."""
    project, norm = projection
    states = norm(_split(attn, project(states)))
    turned: Tensor = apply_rotary_emb(states, rotary, sequence_dim=1)  # type: ignore[arg-type, assignment]  # its hints
    return turned


def _split(attn: Any, states: Float[Tensor, "n s c"]) -> Float[Tensor, "n s heads d"]:
    """Channels split into heads."""
    return torch.unflatten(states, 2, (-1, attn.head_dim))
