"""What an edit leaves."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.errors import P2PError, PromptError, nearest
from p2p_bench.prompts.words import TokenizedPrompt, columns_of


@dataclass(frozen=True, eq=False)
class EditResult:
    """Images of one source and its targets, and what they cost. All tensors are on the CPU.

    Attributes:
        id: Of the request.
        images: Source first, float32 in [0, 1]; NaN where the row has an error.
        latents: Final latents, same order.
        inversion_rows: UNet rows spent on inverting the source image.
        source_rows: UNet rows of the source.
        target_rows: UNet rows of each target. A target alone would cost this, the source and the inversion.
        errors: Error of each image, or None; source first.
        inversion_rows_backward: Rows that went backward through the network; in no other count.
        vae_reconstruction: A real source image through the VAE and back: what no edit can exceed.
        prompts: Tokenized prompts, source first; empty if the request could not be read.
        maps: Recorded cross-attention maps by image index: mean over heads, layers and steps, one map per
            text column.
    """

    id: str
    images: Float[Tensor, "n 3 h w"]
    latents: Float[Tensor, "n c k l"]
    inversion_rows: int
    source_rows: int
    target_rows: tuple[int, ...]
    errors: tuple[P2PError | None, ...]
    inversion_rows_backward: int = 0
    vae_reconstruction: Float[Tensor, "3 h w"] | None = None
    prompts: tuple[TokenizedPrompt, ...] = ()
    maps: Mapping[int, Float[Tensor, "columns s t"]] = field(default_factory=dict, repr=False)

    @property
    def unet_rows(self) -> int:
        """UNet rows spent in all."""
        return self.inversion_rows + self.source_rows + sum(self.target_rows)

    @property
    def error(self) -> P2PError | None:
        """The first error, or None."""
        return next((error for error in self.errors if error is not None), None)

    def heatmap(self, word: str, index: int | None = None) -> Float[Tensor, "s t"]:
        """Where an image attends to a word: float32, the maximum is 1.

        The mean over heads, recorded layers, steps and the word's tokens of the maps after the edit. It is a
        cue, not a segmentation.

        Args:
            word: A word or phrase of a prompt.
            index: Image, 0 is the source; None takes the first image whose prompt has the word.

        Raises:
            PromptError: No prompt has the word.
            P2PError: No maps were recorded, or there is no such image.
        """
        if not self.maps:
            raise P2PError("heatmap: no attention was recorded; edit with record=True")
        if index is None:
            index = self._image_with(word)
        if index not in self.maps:
            raise P2PError(f"heatmap: expected an image index from 0 to {len(self.prompts) - 1}, got {index}")
        heat = self.maps[index][list(columns_of(self.prompts[index], word))].mean(0).float()
        peak = heat.max()
        return heat / peak if peak > 0 else torch.zeros_like(heat)

    def _image_with(self, word: str) -> int:
        for index, prompt in enumerate(self.prompts):
            try:
                columns_of(prompt, word)
            except PromptError:
                continue
            return index
        words = [span.bare for prompt in self.prompts for span in prompt.words]
        quoted = " or ".join(repr(prompt.text) for prompt in self.prompts)
        raise PromptError(f"heatmap: word {word!r} is not in {quoted}.{nearest(word.lower(), words)}")
