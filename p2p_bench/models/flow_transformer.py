"""What families share whose network is a transformer of latents that learnt a rectified flow."""

from abc import abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from p2p_bench.attention.plan import StepPlan
from p2p_bench.attention.processor import folded_attention
from p2p_bench.attention.sites import Site
from p2p_bench.models.autoencoder import decoded_latents, encoded_images
from p2p_bench.models.calls import NetworkCall
from p2p_bench.models.conditioning import Conditioning, EncodedPrompts
from p2p_bench.models.flow_levels import FlowLayout
from p2p_bench.models.level import Denoised, Level
from p2p_bench.models.model import DiffusionModel
from p2p_bench.models.spec import ModelSpec
from p2p_bench.models.timesteps import Spacing
from p2p_bench.prompts.words import PromptReader, TokenizedPrompt


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FlowTransformer(DiffusionModel):
    """A loaded checkpoint of such a family; see `DiffusionModel` for what is not said here.

    Attributes:
        spec: Facts about it.
        reader: Its tokenizers.
        sites: Attention sites of the transformer.
        transformer: The network.
        vae: Images to latents and back, an `AutoencoderKL`.
        encoders: Tokens to embeddings, in the order of the tokenizers.
        device: Where the weights are.
        dtype: Number format of the transformer and the encoders.
        encoded: The prompts that were encoded before.
        call: How the network is called; None: as it is.
    """

    spec: ModelSpec
    reader: PromptReader
    sites: tuple[Site, ...]
    transformer: Any
    vae: Any
    encoders: tuple[Any, ...]
    device: torch.device
    dtype: torch.dtype
    encoded: EncodedPrompts = field(default_factory=EncodedPrompts)
    call: NetworkCall | None = None

    @abstractmethod
    def velocity(
        self,
        latents: Float[Tensor, "n c h w"],
        level: Level,
        conditioning: Conditioning,
        attention: dict[str, Any] | None,
    ) -> Float[Tensor, "n c h w"]:
        """The network's answer, noise minus image, in its own number format.

        Args:
            latents: One per row, in the network's number format.
            level: Their noise level.
            conditioning: A row per row.
            attention: What attention processors are given.
        """

    @property
    def network(self) -> nn.Module:
        """The transformer."""
        network: nn.Module = self.transformer
        return network

    def ladder(self, steps: int) -> tuple[Level, ...]:
        """See `DiffusionModel.ladder`."""
        layout = self.spec.timesteps
        assert isinstance(layout, FlowLayout)
        noisy = [Level(_timestep(sigma, layout.train), 1 - sigma, sigma) for sigma in layout.sigmas(steps)]
        return (*noisy, Level(0.0, 1.0, 0.0))

    def spaced(self, spacing: Spacing | None) -> "FlowTransformer":
        """See `DiffusionModel.spaced`.

        Raises:
            ConfigError: There is a spacing; the levels of a flow have none.
        """
        self.spec.spaced(spacing)
        return self

    def tokenize(
        self, text: str, truncate: bool = False, allow_empty: bool = False, role: str = "prompt"
    ) -> TokenizedPrompt:
        """See `DiffusionModel.tokenize`."""
        return self.reader.tokenize(text, truncate, allow_empty, role)

    def controlled(self) -> AbstractContextManager[object]:
        """See `DiffusionModel.controlled`."""
        return folded_attention(self.transformer)

    def predict(
        self,
        latents: Float[Tensor, "n c h w"],
        level: Level,
        conditioning: Conditioning,
        plan: StepPlan | None = None,
    ) -> Denoised:
        """See `DiffusionModel.predict`."""
        attention = None if plan is None else {"plan": plan}
        velocity = self.velocity(latents.to(self.dtype), level, conditioning, attention)
        return Denoised(latents, level, velocity.to(latents.dtype), "flow")

    def encode_images(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c k l"]:
        """Shifted and scaled latents: the mean of the VAE's posterior, not a sample of it."""
        return encoded_images(self.vae, self.spec, images, self.device).to(self.state_dtype)

    def decode_latents(self, latents: Float[Tensor, "n c k l"]) -> Float[Tensor, "n 3 h w"]:
        """Images of such latents: float32 in [0, 1], on the model's device."""
        return decoded_latents(self.vae, self.spec, latents, self.device)


def _timestep(sigma: float, train: int) -> float:
    """What the network is told of a level, in single precision as in diffusers' scheduler."""
    return float(torch.tensor(sigma, dtype=torch.float32) * train)
