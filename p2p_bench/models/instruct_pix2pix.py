"""InstructPix2Pix (Brooks et al., arXiv 2211.09800): Stable Diffusion that is shown an image."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.models.conditioning import IMAGE, Conditioning
from p2p_bench.models.stable_diffusion import StableDiffusion


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class InstructPix2Pix(StableDiffusion):
    """A loaded checkpoint of the family.

    The U-Net takes the latents of an image as further channels, zeros where there is none; its prompts are
    instructions.
    """

    def shown(self, images: Float[Tensor, "n 3 h w"]) -> Conditioning:
        """See `DiffusionModel.shown`: the mean of the VAE's posterior, which is not scaled here."""
        return {IMAGE: self.encode_images(images) / self.spec.vae_scaling}

    def given(
        self, latents: Float[Tensor, "n c h w"], conditioning: Conditioning
    ) -> Float[Tensor, "n d h w"]:
        """The latents, and those of the image."""
        image = conditioning.get(IMAGE)
        return torch.cat([latents, torch.zeros_like(latents) if image is None else image.to(latents)], 1)
