"""Stable Diffusion XL (Podell et al. 2023, arXiv 2307.01952): two CLIP text encoders."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from p2p_bench.errors import PromptError
from p2p_bench.models.conditioning import POOLED, TEXT, Conditioning
from p2p_bench.models.tokenizer import TokenizerReader
from p2p_bench.models.unet import LatentUNet
from p2p_bench.prompts.words import TokenizedPrompt

SIZES = "time_ids"
"""Height and width of the original, top and left of the crop, height and width of the target, in pixels."""


@dataclass(frozen=True, eq=False)
class TwoClipReader:
    """Reads prompts for two text encoders that share text columns.

    The second tokenizer of SDXL pads with "!", and so takes an exclamation mark for a special token of its
    own: a prompt of which a word has other columns in one than in the other is refused.

    Attributes:
        first: That of the first encoder, which says where words are.
        second: That of the second.
    """

    first: TokenizerReader
    second: TokenizerReader

    def tokenize(
        self, text: str, truncate: bool = False, allow_empty: bool = False, role: str = "prompt"
    ) -> TokenizedPrompt:
        """See `PromptReader.tokenize`.

        Raises:
            PromptError: As there; or the tokenizers part.
        """
        prompt = self.first.tokenize(text, truncate, allow_empty, role)
        one, two = (len(reader.tokenizer(prompt.text).input_ids) for reader in (self.first, self.second))
        mark = "'!'" if "!" in prompt.text else "its words"
        if one != two:
            raise PromptError(
                f"{role} {text!r}: the model's two tokenizers read {mark} in different numbers of tokens "
                f"({one - 2} and {two - 2}), so words have no columns in common; write it without {mark}"
            )
        other = self.second.tokenize(prompt.text, truncate, allow_empty, role)
        if other.words != prompt.words:
            raise PromptError(
                f"{role} {text!r}: the model's two tokenizers cut {mark} otherwise, so words have other "
                f"columns in each; write it without {mark}"
            )
        unread = dict.fromkeys((*prompt.unread, *other.unread))
        return replace(prompt, others=(other.ids,), unread=tuple(unread))


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class StableDiffusionXL(LatentUNet):
    """A loaded checkpoint of the family.

    Text columns are the last layer but one of both encoders, side by side; the pooled vector is the second's.
    The model is told that the original had the size of the image, uncropped.
    """

    def encode_one(self, prompt: TokenizedPrompt) -> Conditioning:
        """See `DiffusionModel.encode_one`."""
        (other,) = prompt.others
        read = [
            encoder(torch.tensor([ids], device=self.device), output_hidden_states=True)
            for encoder, ids in zip(self.encoders, (prompt.ids, other), strict=True)
        ]
        height, width = self.spec.image_size
        sizes = torch.tensor([[height, width, 0, 0, height, width]], device=self.device, dtype=self.dtype)
        text = torch.cat([one.hidden_states[-2] for one in read], dim=-1)
        return {TEXT: text, POOLED: read[1].text_embeds, SIZES: sizes}

    def inputs(self, conditioning: Conditioning) -> dict[str, Any]:
        """Pooled vector and sizes."""
        pooled, sizes = (conditioning[name].to(self.dtype) for name in (POOLED, SIZES))
        return {"added_cond_kwargs": {"text_embeds": pooled, SIZES: sizes}}
