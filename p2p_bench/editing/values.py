"""What cross-attention takes its values from, where a replay tells it something else than keys are told."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch

from p2p_bench.attention.terms import Role
from p2p_bench.editing import hooks
from p2p_bench.models import DiffusionModel
from p2p_bench.models.conditioning import TEXT, VALUES, Conditioning
from p2p_bench.sampling import Replay

K = TypeVar("K")


def valued(
    model: DiffusionModel, told: Conditioning, prompted: Sequence[tuple[Replay, Role]], step: int
) -> Conditioning:
    """The same conditioning, with values of their own for rows whose replay gives them.

    Args:
        model: The model.
        told: A row per network row, those with the prompt first.
        prompted: Replay and role of the rows with the prompt; the others keep their text.
        step: Index from 0.

    Raises:
        ValueError: A replay gives what no row of text is.
        P2PError: The model has no values of the text alone.
    """
    text = told[TEXT]
    own = [
        hooks.values_of(model, replay, step, role, row)
        for (replay, role), row in zip(prompted, text, strict=False)
    ]
    if all(one is None for one in own):
        return told
    rows = [row if one is None else one.to(row) for one, row in zip(own, text, strict=False)]
    return {**told, VALUES: torch.cat([torch.stack(rows), text[len(rows) :]])}


def alike(told: Mapping[K, Conditioning]) -> dict[K, Conditioning]:
    """Conditionings that can be put under one another: all have values of their own, or none has."""
    if not any(VALUES in one for one in told.values()):
        return dict(told)
    return {key: {VALUES: one[TEXT], **one} for key, one in told.items()}
