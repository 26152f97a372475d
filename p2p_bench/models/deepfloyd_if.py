"""DeepFloyd IF, stage I: a U-Net of pixels with a T5 text encoder, the open counterpart of Imagen."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from p2p_bench.attention.plan import StepPlan
from p2p_bench.models.conditioning import TEXT, Conditioning
from p2p_bench.models.level import Denoised, Level, Thresholding
from p2p_bench.models.t5 import SharedT5Tokenizer, T5Reader
from p2p_bench.models.unet import DDPMUNet
from p2p_bench.models.upscaler import Upscaler
from p2p_bench.prompts.words import TokenizedPrompt


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class DeepFloydIF(DDPMUNet):
    """A loaded checkpoint of the family; see `DiffusionModel` for what is not said here.

    Latents are pixels in [-1, 1]. The image is thresholded after guidance and the noise stays as predicted,
    as in diffusers' `DDIMScheduler`; inversion and EDICT, whose steps do not ask for the image, threshold
    nothing. The variance that the network predicts besides is not used, since DDIM has no use for it. A
    mean of the text joins the embedding of the timestep; it stays the target's own, whatever is edited.

    Attributes:
        tokenizer: T5's tokenizer; its `model_max_length` is `spec.max_tokens`.
        thresholding: What is done to predicted images; None: nothing.
        text_encoder: Tokens to embeddings, a `T5EncoderModel`.
        upscaler: Stage II; None: images are those of stage I.
    """

    tokenizer: SharedT5Tokenizer
    thresholding: Thresholding | None
    text_encoder: nn.Module
    upscaler: Upscaler | None = None

    def tokenize(
        self, text: str, truncate: bool = False, allow_empty: bool = False, role: str = "prompt"
    ) -> TokenizedPrompt:
        """See `DiffusionModel.tokenize`."""
        return T5Reader(self.tokenizer).tokenize(text, truncate, allow_empty, role)

    def encode_one(self, prompt: TokenizedPrompt) -> Conditioning:
        """The text of a prompt. Padding is masked in T5, and is seen by the U-Net, as in `IFPipeline`."""
        ids = torch.tensor([prompt.ids], device=self.device)
        mask = torch.arange(prompt.width, device=self.device)[None] <= prompt.end
        return {TEXT: self.text_encoder(ids, attention_mask=mask.long())[0].to(self.dtype)}

    def predict(
        self,
        latents: Float[Tensor, "n c h w"],
        level: Level,
        conditioning: Conditioning,
        plan: StepPlan | None = None,
    ) -> Denoised:
        """See `DiffusionModel.predict`."""
        extra = {} if plan is None else {"cross_attention_kwargs": {"plan": plan}}
        inputs, text = latents.to(self.dtype), conditioning[TEXT].to(self.dtype)
        output = self.ask(inputs, level.timestep, encoder_hidden_states=text, return_dict=False, **extra)[0]
        # Behind the channels of the noise are those of its variance.
        predicted = output[:, : latents.shape[1]].to(latents.dtype)
        epsilon = self.schedule.to_epsilon(predicted, latents, level)
        return Denoised(latents, level, epsilon, thresholding=self.thresholding)

    def encode_images(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c k l"]:
        """The images in [-1, 1]; at the size of stage I, each pixel the mean of those in its place."""
        pixels = (2 * images.to(self.device) - 1).to(self.state_dtype)
        if self.upscaler is None:
            return pixels
        return nn.functional.avg_pool2d(pixels, self.upscaler.settings.factor)

    def decode_latents(self, latents: Float[Tensor, "n c k l"]) -> Float[Tensor, "n 3 h w"]:
        """Images of pixels in [-1, 1]: float32 in [0, 1], on the model's device."""
        return (latents.to(self.device).float() / 2 + 0.5).clamp(0, 1)
