"""Stable Diffusion 3 and 3.5 (Esser et al. 2024, arXiv 2403.03206): a flow transformer, two CLIPs and T5."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from p2p_bench.models.conditioning import POOLED, TEXT, Conditioning
from p2p_bench.models.flow_transformer import FlowTransformer
from p2p_bench.models.level import Level
from p2p_bench.models.sdxl import TwoClipReader
from p2p_bench.models.t5 import NoT5Reader, T5Reader
from p2p_bench.prompts.words import TokenizedPrompt, joined_blocks


@dataclass(frozen=True, eq=False)
class ClipAndT5Reader:
    """Reads prompts for two CLIPs, which share text columns, and T5, whose columns are behind theirs.

    Each kind has its own limit; a prompt that is too long for one is refused, or cut there alone.

    Attributes:
        clip: That of the CLIPs.
        t5: That of T5.
    """

    clip: TwoClipReader
    t5: T5Reader | NoT5Reader

    def tokenize(
        self, text: str, truncate: bool = False, allow_empty: bool = False, role: str = "prompt"
    ) -> TokenizedPrompt:
        """See `PromptReader.tokenize`."""
        return joined_blocks(
            [reader.tokenize(text, truncate, allow_empty, role) for reader in (self.clip, self.t5)]
        )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class StableDiffusion3(FlowTransformer):
    """A loaded checkpoint of the family.

    Text columns are the last layer but one of both CLIPs, side by side and filled up with zeros, then T5's
    last layer, its padding included; without T5 zeros in its place. The pooled vector is that of both CLIPs.
    The latter stays the target's own, whatever is edited.
    """

    def encode_one(self, prompt: TokenizedPrompt) -> Conditioning:
        """See `DiffusionModel.encode_one`."""
        clip, t5 = prompt.parts
        width = self.transformer.config.joint_attention_dim
        read = [
            encoder(torch.tensor([ids], device=self.device), output_hidden_states=True)
            for encoder, ids in zip(self.encoders[:2], (clip.ids, *clip.others), strict=True)
        ]
        text = torch.cat([one.hidden_states[-2] for one in read], dim=-1)
        if len(self.encoders) > 2:
            behind = self.encoders[2](torch.tensor([t5.ids], device=self.device))[0].to(self.dtype)
        else:
            behind = text.new_zeros(1, t5.width, width)
        text = torch.cat([pad(text, (0, width - text.shape[-1])), behind], dim=1)
        return {TEXT: text, POOLED: torch.cat([one.text_embeds for one in read], dim=-1)}

    def velocity(
        self,
        latents: Float[Tensor, "n c h w"],
        level: Level,
        conditioning: Conditioning,
        attention: dict[str, Any] | None,
    ) -> Float[Tensor, "n c h w"]:
        """See `FlowTransformer.velocity`."""
        timestep = torch.full((len(latents),), level.timestep, device=latents.device)
        answer: Tensor = self.ask(
            hidden_states=latents,
            timestep=timestep,
            encoder_hidden_states=conditioning[TEXT].to(self.dtype),
            pooled_projections=conditioning[POOLED].to(self.dtype),
            joint_attention_kwargs=attention,
            return_dict=False,
        )[0]
        return answer
