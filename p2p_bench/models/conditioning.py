"""What a network is told besides latents and noise level: named tensors with a leading row axis."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from p2p_bench.prompts.words import TokenizedPrompt

Conditioning = Mapping[str, Tensor]
"""Tensors by name, a row per network row. "text" is what the text columns are made of, (n, W, d); others,
such as "pooled", are a family's own."""

TEXT = "text"
POOLED = "pooled"
"""One vector for the whole prompt, (n, d), of families that have it."""

IMAGE = "image"
"""Latents of the image that is to be edited, (n, c, k, l), of families that are told one; zeros: none."""

GUIDANCE = "guidance"
"""The guidance scale, (n,), of families whose network was distilled to be told it."""

VALUES = "values"
"""What cross-attention takes its values from in the place of "text", (n, W, d), of families with "maps"."""

_KEPT = 256


def select(conditioning: Conditioning, rows: Tensor) -> Conditioning:
    """Some rows, by index, in the given order."""
    return {name: tensor.index_select(0, rows) for name, tensor in conditioning.items()}


def joined(parts: Sequence[Conditioning]) -> Conditioning:
    """Rows of several, one under the other; all have the same names."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def repeated(conditioning: Conditioning, count: int) -> Conditioning:
    """A single row, `count` times."""
    return {name: tensor.expand(count, *tensor.shape[1:]) for name, tensor in conditioning.items()}


def row_of(conditioning: Conditioning, index: int) -> Conditioning:
    """One row, still with its leading axis."""
    return {name: tensor[index : index + 1] for name, tensor in conditioning.items()}


def told_guidance(conditioning: Conditioning, scales: Sequence[float]) -> Conditioning:
    """The same rows, whose network is told these guidance scales."""
    return {**conditioning, GUIDANCE: torch.tensor(scales, dtype=torch.float32).to(conditioning[TEXT].device)}


def without_prompt(conditioning: Conditioning) -> Conditioning:
    """The same with zeros in place of what a prompt says; sizes and such stay."""
    said = (TEXT, POOLED)
    return {
        name: torch.zeros_like(tensor) if name in said else tensor for name, tensor in conditioning.items()
    }


class EncodedPrompts:
    """The conditioning of prompts that were encoded before; the oldest of many are forgotten.

    A prompt is encoded alone, so that what else is asked for changes nothing. Threads may share it.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[TokenizedPrompt, Conditioning] = OrderedDict()
        self._lock = threading.Lock()

    def of(
        self, prompts: Sequence[TokenizedPrompt], encode: Callable[[TokenizedPrompt], Conditioning]
    ) -> Conditioning:
        """The rows of prompts.

        Args:
            prompts: At least one.
            encode: Makes the single row of a prompt that is not there.
        """
        rows = {prompt: self._row(prompt, encode) for prompt in dict.fromkeys(prompts)}
        return joined([rows[prompt] for prompt in prompts])

    def _row(
        self, prompt: TokenizedPrompt, encode: Callable[[TokenizedPrompt], Conditioning]
    ) -> Conditioning:
        with self._lock:
            if prompt in self._kept:
                self._kept.move_to_end(prompt)
                return self._kept[prompt]
        row = encode(prompt)
        with self._lock:
            self._kept[prompt] = row
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return row
