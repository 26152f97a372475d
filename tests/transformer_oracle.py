"""The oracle of diffusion transformers: joint maps written out, the rows of the pixels edited in blocks.

It shares no code with the folded processor. In the rows of the pixels the text columns are edited like a map
of cross-attention and the pixel columns like one of self-attention; the rows of the text are left alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from p2p_bench.attention.sites import Site, transformer_sites
from tests.oracle import Chain, MapRow


class MaterialisedJointProcessor:
    """Joint attention of Stable Diffusion 3 with all maps written out; also its attention of pixels alone.

    Args:
        site: Where it is installed. One of the pixels alone is edited by the name of the joint one beside it.
        edits: What is done to which row.
        step: The denoising step.
        saved: Receives the edited text columns of the rows of the pixels, by site name.
    """

    def __init__(
        self, site: Site, edits: Sequence[MapRow] = (), step: int = 0, saved: dict[str, Tensor] | None = None
    ) -> None:
        name = site.name.replace("attn2", "attn")
        self.cross = replace(site, name=name, kind="cross", joint=False)
        self.own = replace(self.cross, kind="self")
        self.name, self.edits, self.step, self.saved = site.name, edits, step, saved

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **ignored: Any,
    ) -> Any:
        def heads(states: Tensor, norm: Any = None) -> Tensor:
            split = states.reshape(*states.shape[:2], attn.heads, -1).transpose(1, 2)
            return split if norm is None else norm(split)

        pixels, text = hidden_states, encoder_hidden_states
        count = pixels.shape[1]
        query, key = heads(attn.to_q(pixels), attn.norm_q), heads(attn.to_k(pixels), attn.norm_k)
        value = heads(attn.to_v(pixels))
        if text is not None:
            query = torch.cat([query, heads(attn.add_q_proj(text), attn.norm_added_q)], 2)
            key = torch.cat([key, heads(attn.add_k_proj(text), attn.norm_added_k)], 2)
            value = torch.cat([value, heads(attn.add_v_proj(text))], 2)
        out = self._maps(query, key) @ value
        edited = self._edited(query[:, :, :count], key, count)
        out[:, :, :count] = edited @ self._with_mutual(value, count)
        if self.saved is not None and text is not None:
            self.saved[self.name] = edited[..., count:]
        out = out.transpose(1, 2).flatten(2)
        seen = attn.to_out[0](out[:, :count])
        if text is None:
            return seen
        return seen, out[:, count:] if attn.context_pre_only else attn.to_add_out(out[:, count:])

    def _maps(self, query: Tensor, key: Tensor) -> Tensor:
        return (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)

    def _edited(self, query: Tensor, key: Tensor, count: int) -> Tensor:
        """Maps of the rows of the pixels, edited."""
        plain, maps = self._maps(query, key), self._maps(query, self._with_mutual(key, count))
        edited = maps.clone()
        for place in self.edits:
            A_s, A_t = plain[place.source], maps[place.row]
            own = place.edit(self.step, self.own, A_s[..., :count], A_t[..., :count])
            if maps.shape[-1] > count:
                cross = place.edit(self.step, self.cross, A_s[..., count:], A_t[..., count:])
                own = torch.cat([own, cross], -1)
            edited[place.row] = own
        return edited

    def _with_mutual(self, states: Tensor, count: int) -> Tensor:
        """Keys or values, the source's pixels in place of a target's where its edit says so."""
        changed = states.clone()
        for place in self.edits:
            if isinstance(place.edit, Chain) and place.edit.takes_keys_and_values(self.step, self.own):
                changed[place.row, :, :count] = states[place.source, :, :count]
        return changed


@contextmanager
def materialised_joint(
    transformer: Any, edits: Sequence[MapRow], step: int = 0, saved: dict[str, Tensor] | None = None
) -> Iterator[None]:
    """Install the oracle at every site of a transformer."""
    before = dict(transformer.attn_processors)
    transformer.set_attn_processor(
        {
            f"{site.name}.processor": MaterialisedJointProcessor(site, edits, step, saved)
            for site in transformer_sites(transformer)
        }
    )
    try:
        yield
    finally:
        transformer.set_attn_processor(before)
