"""Latent Diffusion (Rombach et al. 2022): a BERT that was trained with the U-Net."""

from dataclasses import dataclass
from typing import Any

import torch

from p2p_bench.models.conditioning import TEXT, Conditioning
from p2p_bench.models.unet import LatentUNet
from p2p_bench.prompts.words import TokenizedPrompt


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LatentDiffusion(LatentUNet):
    """A loaded checkpoint of the family, as `LDMTextToImagePipeline` runs it: padding is attended to."""

    def encode_one(self, prompt: TokenizedPrompt) -> Conditioning:
        """See `DiffusionModel.encode_one`."""
        ids = torch.tensor([prompt.ids], device=self.device)
        return {TEXT: self.encoders[0](ids)[0]}

    def inputs(self, conditioning: Conditioning) -> dict[str, Any]:
        """None."""
        return {}
