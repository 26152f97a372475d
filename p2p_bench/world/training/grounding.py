"""Grounding: teaches the words of an object, and of the background, to look at their own pixels.

The attention loss of TokenCompose (Wang et al., arXiv 2312.03626): the share of a word's attention that
falls on the pixels it names should be 1. The renderer knows these pixels.
"""

from collections.abc import Sequence
from functools import partial

import torch
from diffusers.models.attention_processor import Attention
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d
from transformers import CLIPTokenizer

from p2p_bench.world.scenes.attributes import MAX_OBJECTS
from p2p_bench.world.scenes.captions import BACKGROUND_OWNER, Owner

_PLACES: dict[Owner, int] = {None: 0, **{i: i + 1 for i in range(MAX_OBJECTS)}}
_PLACES[BACKGROUND_OWNER] = MAX_OBJECTS + 1
NUM_PLACES = MAX_OBJECTS + 2

Words = Sequence[tuple[str, Owner]]


class KeepingAttnProcessor:
    """Attention with the maps written out; those of cross-attention are handed to the caller.

    Passed to the network as `cross_attention_kwargs={"maps": list}`: every cross-attention appends its
    maps, (n, queries, keys), averaged over heads.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        """See `diffusers.models.attention_processor.AttnProcessor2_0`."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        heads = partial(torch.unflatten, dim=-1, sizes=(attn.heads, -1))
        query = heads(attn.to_q(hidden_states)).transpose(1, 2)
        key = heads(attn.to_k(context)).transpose(1, 2)
        value = heads(attn.to_v(context)).transpose(1, 2)
        if encoder_hidden_states is None or maps is None:
            mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        else:
            weights = (query @ key.transpose(-1, -2) * attn.scale).float().softmax(-1)
            maps.append(weights.mean(1))
            mixed = weights.to(value.dtype) @ value
        output: Tensor = attn.to_out[1](attn.to_out[0](mixed.transpose(1, 2).flatten(2)))
        return output


def token_owners(tokenizer: CLIPTokenizer, captions: Sequence[Words]) -> Int[Tensor, "n w"]:
    """For each token column the index of the pixels it names, in the order of `place_masks`.

    Args:
        tokenizer: words are tokenized one by one, as it does itself.
        captions: the words of each caption.
    """
    owners = torch.zeros(len(captions), tokenizer.model_max_length, dtype=torch.int64)
    for row, words in enumerate(captions):
        column = 1
        for word, owner in words:
            length = len(tokenizer.tokenize(word))
            owners[row, column : column + length] = _PLACES[owner]
            column += length
    return owners


def place_masks(objects: Float[Tensor, "n k hl wl"]) -> Float[Tensor, "n places hl wl"]:
    """Pixels that are nobody's (none), each object's, and the background's, from the objects' cover."""
    background = (1 - objects.sum(1, keepdim=True)).clamp(min=0)
    return torch.cat([torch.zeros_like(background), objects, background], 1)


def grounding_loss(
    maps: Sequence[Float[Tensor, "n _ w"]],
    owners: Int[Tensor, "n w"],
    places: Float[Tensor, "n places hl wl"],
    weight: Float[Tensor, " n"],
) -> Float[Tensor, ""]:
    """Mean over layers and owned words of (1 - share of attention on the word's own pixels) squared.

    Args:
        maps: cross-attention maps of some layers; their queries are a square of pixels.
        owners: of each token.
        places: pixels of each owner.
        weight: of each row, such as 0 where the noise hides the layout.
    """
    owned = (owners > 0).float() * weight[:, None]
    total = places.new_zeros(())
    for layer in maps:
        side = int(layer.shape[1] ** 0.5)
        small = adaptive_avg_pool2d(places, (side, side)).flatten(2)
        own = small.gather(1, owners[:, :, None].expand(-1, -1, small.shape[2]))
        by_word = layer.transpose(1, 2)
        share = (by_word * own).sum(2) / by_word.sum(2).clamp(min=1e-6)
        total = total + ((1 - share).square() * owned).sum() / owned.sum().clamp(min=1.0)
    return total / len(maps)
