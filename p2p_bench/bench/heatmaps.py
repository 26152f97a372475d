"""Attention to the words that an edit changes."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.editing import EditResult
from p2p_bench.prompts.changes import changed_words
from p2p_bench.prompts.words import places_of


def change_heatmap(
    result: EditResult, image: int, target: int, word_weights: Mapping[str, float]
) -> Float[Tensor, "s t"] | None:
    """Where an image attends to the words that the edit changes.

    Args:
        result: An edit with recorded attention.
        image: Index of the image, 0 or `target`.
        target: Index of the edited image.
        word_weights: Words the pair weights; they count as changed in the target.

    Returns:
        Mean of the words' heatmaps; None where the image's prompt has no changed word, or was not told.
    """
    if image == 0 and not result.source_told:
        return None
    removed, added = changed_words(result.prompts[0], result.prompts[target])
    words = removed if image == 0 else added
    words = words or tuple(word for word in word_weights if places_of(result.prompts[image], word))
    if not words:
        return None
    return torch.stack([result.heatmap(word, image) for word in words]).mean(0)


def edit_attention(
    result: EditResult, target: int, word_weights: Mapping[str, float]
) -> Float[Tensor, "s t"] | None:
    """Where the edited image attends to the words that it gains, else the source to those that are lost.

    Args:
        result: An edit.
        target: Index of the edited image.
        word_weights: As of `change_heatmap`.

    Returns:
        None where no cross-attention was recorded, or no word is gained, lost or weighted.
    """
    if not any(maps.kind == "cross" for maps in result.attention):
        return None
    heat = change_heatmap(result, target, target, word_weights)
    return change_heatmap(result, 0, target, word_weights) if heat is None else heat
