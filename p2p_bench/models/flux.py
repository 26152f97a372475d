"""FLUX.1 (Black Forest Labs 2024): a flow transformer of packed latents, with T5 and a vector of CLIP."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.models.conditioning import GUIDANCE, POOLED, TEXT, Conditioning
from p2p_bench.models.flow_transformer import FlowTransformer
from p2p_bench.models.level import Level
from p2p_bench.models.t5 import T5Reader
from p2p_bench.models.tokenizer import TokenizerReader
from p2p_bench.prompts.words import TokenizedPrompt


@dataclass(frozen=True, eq=False)
class T5AndClipReader:
    """Reads prompts for T5, whose columns are the text's, and for CLIP, which adds a vector alone.

    A prompt that is too long for either is refused, or cut there alone.

    Attributes:
        t5: That of T5.
        clip: That of CLIP.
    """

    t5: T5Reader
    clip: TokenizerReader

    def tokenize(
        self, text: str, truncate: bool = False, allow_empty: bool = False, role: str = "prompt"
    ) -> TokenizedPrompt:
        """See `PromptReader.tokenize`."""
        prompt, pooled = (
            reader.tokenize(text, truncate, allow_empty, role) for reader in (self.t5, self.clip)
        )
        return replace(prompt, others=(pooled.ids,), truncated=prompt.truncated or pooled.truncated)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Flux(FlowTransformer):
    """A loaded checkpoint of the family.

    Text columns are T5's last layer, its padding included; the pooled vector is CLIP's and stays the target's
    own, whatever is edited. Latents are the VAE's; they are packed two by two on the way into the network.

    Attributes:
        embedded: Guidance scale that the network is told where nobody says another; None: it has no input.
    """

    embedded: float | None

    @property
    def identity(self) -> tuple[Any, ...]:
        """See `DiffusionModel.identity`."""
        return (*super().identity, self.embedded)

    def encode_one(self, prompt: TokenizedPrompt) -> Conditioning:
        """See `DiffusionModel.encode_one`."""
        clip, t5 = self.encoders
        (pooled,) = prompt.others
        found = {
            TEXT: t5(torch.tensor([prompt.ids], device=self.device))[0].to(self.dtype),
            POOLED: clip(torch.tensor([pooled], device=self.device)).pooler_output,
        }
        if self.embedded is None:
            return found
        return {**found, GUIDANCE: torch.tensor([self.embedded], device=self.device)}

    def velocity(
        self,
        latents: Float[Tensor, "n c h w"],
        level: Level,
        conditioning: Conditioning,
        attention: dict[str, Any] | None,
    ) -> Float[Tensor, "n c h w"]:
        """See `FlowTransformer.velocity`."""
        text = conditioning[TEXT].to(self.dtype)
        height, width = latents.shape[-2:]
        if attention is not None:
            attention = {**attention, "text_length": text.shape[1]}
        answer = self.ask(
            hidden_states=packed(latents),
            # As in the pipeline, which divides in the network's number format; the network multiplies again.
            timestep=torch.full((len(latents),), level.timestep, device=latents.device).to(self.dtype) / 1000,
            guidance=conditioning.get(GUIDANCE),
            pooled_projections=conditioning[POOLED].to(self.dtype),
            encoder_hidden_states=text,
            txt_ids=text.new_zeros(text.shape[1], 3),
            img_ids=positions(height // 2, width // 2).to(latents),
            joint_attention_kwargs=attention,
            return_dict=False,
        )[0]
        return unpacked(answer, height, width)


def packed(latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n s c4"]:
    """Two by two latents as one token of four times the channels."""
    rows, channels, height, width = latents.shape
    blocks = latents.reshape(rows, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return blocks.reshape(rows, height * width // 4, 4 * channels)


def unpacked(tokens: Float[Tensor, "n s c4"], height: int, width: int) -> Float[Tensor, "n c h w"]:
    """Latents of a height and width of such tokens."""
    rows, _, channels = tokens.shape
    blocks = tokens.reshape(rows, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return blocks.reshape(rows, channels // 4, height, width)


def positions(height: int, width: int) -> Float[Tensor, "s 3"]:
    """Position of each token: 0, its row and its column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3).float()
