"""DeepFloyd IF, stage I: a U-Net of pixels with a T5 text encoder, the open counterpart of Imagen."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from p2p_bench.attention.plan import StepPlan
from p2p_bench.attention.processor import folded_attention
from p2p_bench.attention.sites import Site
from p2p_bench.models.conditioning import TEXT, Conditioning, EncodedPrompts
from p2p_bench.models.level import Denoised, Level, Thresholding
from p2p_bench.models.model import DiffusionModel
from p2p_bench.models.schedule import NoiseSchedule
from p2p_bench.models.spec import ModelSpec
from p2p_bench.models.t5 import SharedT5Tokenizer, T5Reader
from p2p_bench.models.timesteps import LevelKind, Spacing, check_spacing
from p2p_bench.prompts.words import TokenizedPrompt


@dataclass(frozen=True, eq=False, repr=False)
class DeepFloydIF(DiffusionModel):
    """A loaded checkpoint of the family; see `DiffusionModel` for what is not said here.

    Latents are pixels in [-1, 1]. The image is thresholded after guidance and the noise stays as predicted,
    as in diffusers' `DDIMScheduler`; inversion and EDICT, whose steps do not ask for the image, threshold
    nothing. The variance that the network predicts besides is not used, since DDIM has no use for it. A
    mean of the text joins the embedding of the timestep; it stays the target's own, whatever is edited.

    Attributes:
        spec: Facts about it.
        tokenizer: T5's tokenizer; its `model_max_length` is `spec.max_tokens`.
        schedule: Noise levels and the meaning of the network's output.
        thresholding: What is done to predicted images; None: nothing.
        sites: Attention sites of the U-Net.
        unet: The network, a `UNet2DConditionModel`.
        text_encoder: Tokens to embeddings, a `T5EncoderModel`.
        device: Where the weights are.
        dtype: Number format of the weights.
        encoded: The prompts that were encoded before.
    """

    spec: ModelSpec
    tokenizer: SharedT5Tokenizer
    schedule: NoiseSchedule
    thresholding: Thresholding | None
    sites: tuple[Site, ...]
    unet: nn.Module
    text_encoder: nn.Module
    device: torch.device
    dtype: torch.dtype
    encoded: EncodedPrompts = field(default_factory=EncodedPrompts)

    @property
    def network(self) -> nn.Module:
        """The U-Net."""
        return self.unet

    def ladder(self, steps: int) -> tuple[Level, ...]:
        """See `DiffusionModel.ladder`."""
        return self.schedule.ladder(steps)

    def spaced(self, spacing: Spacing | None) -> "DeepFloydIF":
        """See `DiffusionModel.spaced`."""
        if spacing is None:
            return self
        check_spacing(spacing)
        schedule = replace(self.schedule, timestep_spacing=spacing)
        return replace(self, spec=self.spec.spaced(spacing), schedule=schedule)

    def laid_out(self, kind: LevelKind) -> "DeepFloydIF":
        """See `DiffusionModel.laid_out`."""
        return replace(self, spec=self.spec.laid_out(kind), schedule=replace(self.schedule, kind=kind))

    def start(self, noise: Float[Tensor, "*shape"], steps: int) -> Float[Tensor, "*shape"]:
        """See `DiffusionModel.start`."""
        return noise * self.schedule.start_scale(steps)

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

    def controlled(self) -> AbstractContextManager[object]:
        """See `DiffusionModel.controlled`."""
        return folded_attention(self.unet)

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
        output = self.unet(inputs, level.timestep, encoder_hidden_states=text, return_dict=False, **extra)[0]
        # Behind the channels of the noise are those of its variance.
        predicted = output[:, : latents.shape[1]].to(latents.dtype)
        epsilon = self.schedule.to_epsilon(predicted, latents, level)
        return Denoised(latents, level, epsilon, thresholding=self.thresholding)

    def encode_images(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c k l"]:
        """The images in [-1, 1]."""
        return (2 * images.to(self.device) - 1).to(self.state_dtype)

    def decode_latents(self, latents: Float[Tensor, "n c k l"]) -> Float[Tensor, "n 3 h w"]:
        """Images of pixels in [-1, 1]: float32 in [0, 1], on the model's device."""
        return (latents.to(self.device).float() / 2 + 0.5).clamp(0, 1)
