"""Stable Diffusion 1.x and 2.x: one CLIP text encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.models.conditioning import TEXT, Conditioning
from p2p_bench.models.tokenizer import ClipReader
from p2p_bench.models.unet import LatentUNet
from p2p_bench.prompts.words import TokenizedPrompt


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class StableDiffusion(LatentUNet):
    """A loaded checkpoint of the family."""

    @property
    def tokenizer(self) -> Any:
        """CLIP's tokenizer; its `model_max_length` is `spec.max_tokens`."""
        assert isinstance(self.reader, ClipReader)
        return self.reader.tokenizer

    @property
    def text_encoder(self) -> Any:
        """Tokens to embeddings, a `CLIPTextModel`."""
        return self.encoders[0]

    def encode_one(self, prompt: TokenizedPrompt) -> Conditioning:
        """See `DiffusionModel.encode_one`."""
        ids = torch.tensor([prompt.ids], device=self.device)
        return {TEXT: self.text_encoder(ids).last_hidden_state}

    def encode_prompts(self, prompts: Sequence[str], truncate: bool = False) -> Float[Tensor, "n l d"]:
        """Text embeddings of prompts; the empty prompt is the unconditional one.

        Raises:
            PromptError: A prompt is longer than the model reads.
        """
        return self.encode([self.tokenize(prompt, truncate, allow_empty=True) for prompt in prompts])[TEXT]

    def inputs(self, conditioning: Conditioning) -> dict[str, Any]:
        """None."""
        return {}
