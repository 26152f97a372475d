"""The oracle of FLUX: joint maps over [text | pixels] written out, the rows of the pixels edited in blocks.

It shares no code with the folded processor; positions turn queries and keys by a formula of its own.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from p2p_bench.attention.sites import Site
from tests.oracle import Chain, MapRow


def turned(states: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Neighbouring channels as points of a plane, each turned by the angle of its position."""
    cos, sin = (part[None, :, None, 0::2] for part in rotary)
    a, b = states.float()[..., 0::2], states.float()[..., 1::2]
    return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2).to(states.dtype)


class MaterialisedFluxProcessor:
    """Joint attention of FLUX, in blocks of two streams and of one, with all maps written out.

    Args:
        site: Where it is installed.
        width: Number of text columns.
        edits: What is done to which row.
        step: The denoising step.
        saved: Receives the edited text columns of the rows of the pixels, by site name.
    """

    def __init__(
        self,
        site: Site,
        width: int,
        edits: Sequence[MapRow] = (),
        step: int = 0,
        saved: dict[str, Tensor] | None = None,
    ) -> None:
        self.cross, self.own = replace(site, joint=False), replace(site, kind="self", joint=False)
        self.name, self.width, self.edits, self.step, self.saved = site.name, width, edits, step, saved

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
        **ignored: Any,
    ) -> Any:
        def heads(states: Tensor, norm: Any = None) -> Tensor:
            split = states.reshape(*states.shape[:2], attn.heads, attn.head_dim)
            return split if norm is None else norm(split)

        parts = [
            heads(attn.to_q(hidden_states), attn.norm_q),
            heads(attn.to_k(hidden_states), attn.norm_k),
            heads(attn.to_v(hidden_states)),
        ]
        text = encoder_hidden_states
        if text is not None:
            added = [
                heads(attn.add_q_proj(text), attn.norm_added_q),
                heads(attn.add_k_proj(text), attn.norm_added_k),
                heads(attn.add_v_proj(text)),
            ]
            parts = [torch.cat(pair, 1) for pair in zip(added, parts, strict=True)]
        query, key = (turned(part, image_rotary_emb).transpose(1, 2) for part in parts[:2])
        value = parts[2].transpose(1, 2)
        out = self._maps(query, key) @ value
        edited = self._edited(query[:, :, self.width :], key)
        out[:, :, self.width :] = edited @ self._with_mutual(value)
        if self.saved is not None:
            self.saved[self.name] = edited[..., : self.width]
        out = out.transpose(1, 2).flatten(2)
        if text is None:
            return out
        return attn.to_out[0](out[:, self.width :]), attn.to_add_out(out[:, : self.width])

    def _maps(self, query: Tensor, key: Tensor) -> Tensor:
        return (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)

    def _edited(self, query: Tensor, key: Tensor) -> Tensor:
        plain, maps = self._maps(query, key), self._maps(query, self._with_mutual(key))
        edited, width = maps.clone(), self.width
        for place in self.edits:
            A_s, A_t = plain[place.source], maps[place.row]
            cross = place.edit(self.step, self.cross, A_s[..., :width], A_t[..., :width])
            own = place.edit(self.step, self.own, A_s[..., width:], A_t[..., width:])
            edited[place.row] = torch.cat([cross, own], -1)
        return edited

    def _with_mutual(self, states: Tensor) -> Tensor:
        """Keys or values, the source's pixels in place of a target's where its edit says so."""
        changed = states.clone()
        for place in self.edits:
            if isinstance(place.edit, Chain) and place.edit.takes_keys_and_values(self.step, self.own):
                changed[place.row, :, self.width :] = states[place.source, :, self.width :]
        return changed
