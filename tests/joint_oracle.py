"""The oracle of sites with added keys and values: maps over [text | pixels] written out and edited in blocks.

It shares no code with the folded processor. The text columns are edited like a map of cross-attention, the
pixel columns like one of self-attention, by the same formulas as at separate sites.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from p2p_bench.attention.sites import Site, unet_sites
from tests.oracle import Chain, MapRow


class MaterialisedAddedKVProcessor:
    """Attention over text and pixels with all maps written out; follows diffusers' `AttnAddedKVProcessor`.

    Args:
        site: Where it is installed.
        edits: What is done to which row.
        step: The denoising step.
        saved: Receives the edited maps by site name, (rows, heads, pixels, columns); None keeps none.
    """

    def __init__(
        self, site: Site, edits: Sequence[MapRow] = (), step: int = 0, saved: dict[str, Tensor] | None = None
    ) -> None:
        self.edits, self.step, self.saved = edits, step, saved
        self.cross = replace(site, joint=False)
        self.own = replace(site, kind="self", joint=False)
        self.name = site.name

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        **ignored: Any,
    ) -> Tensor:
        rows, channels = hidden_states.shape[:2]
        text = encoder_hidden_states
        text = attn.norm_encoder_hidden_states(text) if attn.norm_cross else text
        pixels = attn.group_norm(hidden_states.reshape(rows, channels, -1)).mT

        def heads(states: Tensor) -> Tensor:
            return states.reshape(rows, -1, attn.heads, states.shape[-1] // attn.heads).transpose(1, 2)

        query, width = heads(attn.to_q(pixels)), text.shape[1]
        key, value = heads(attn.add_k_proj(text)), heads(attn.add_v_proj(text))
        if not attn.only_cross_attention:
            own = heads(attn.to_k(pixels)), heads(attn.to_v(pixels))
            key, value = (
                torch.cat([of_text, self._with_mutual(of_pixels)], 2)
                for of_text, of_pixels in zip((key, value), own, strict=True)
            )
        scores = query @ key.mT / query.shape[-1] ** 0.5
        if attention_mask is not None:
            scores[..., :width] += attention_mask[:, None]
        maps = scores.softmax(-1)
        edited = maps.clone()
        for place in self.edits:
            A_s, A_t = maps[place.source], maps[place.row]
            parts = [place.edit(self.step, self.cross, A_s[..., :width], A_t[..., :width])]
            if maps.shape[-1] > width:
                parts.append(place.edit(self.step, self.own, A_s[..., width:], A_t[..., width:]))
            edited[place.row] = torch.cat(parts, -1)
        if self.saved is not None:
            self.saved[self.name] = edited
        out = attn.to_out[0]((edited @ value).transpose(1, 2).flatten(2))
        return out.mT.reshape(hidden_states.shape) + hidden_states

    def _with_mutual(self, states: Tensor) -> Tensor:
        """Keys or values of pixels, the source's in place of a target's where its edit says so."""
        changed = states.clone()
        for place in self.edits:
            if isinstance(place.edit, Chain) and place.edit.takes_keys_and_values(self.step, self.own):
                changed[place.row] = states[place.source]
        return changed


@contextmanager
def materialised_added_kv(
    unet: Any, edits: Sequence[MapRow], step: int = 0, saved: dict[str, Tensor] | None = None
) -> Iterator[None]:
    """Install the oracle at every site of a U-Net all of whose sites have added keys and values."""
    before = dict(unet.attn_processors)
    unet.set_attn_processor(
        {
            f"{site.name}.processor": MaterialisedAddedKVProcessor(site, edits, step, saved)
            for site in unet_sites(unet)
        }
    )
    try:
        yield
    finally:
        unet.set_attn_processor(before)
