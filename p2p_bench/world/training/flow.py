"""Trains the flow world: two text encoders and a joint-attention transformer, as in Stable Diffusion 3."""

import dataclasses
from pathlib import Path
from typing import Any

import lightning
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from jaxtyping import Float, Int
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from p2p_bench.world.training.grounding import grounding_loss, place_masks
from p2p_bench.world.training.latents import LATENT_SIDE, DenoisingBatch, DenoisingRecipe, fit_denoiser
from p2p_bench.world.training.muon import muon_adamw, muon_groups
from p2p_bench.world.training.runner import Average

T5_COLUMNS = 1
"""Columns of zeros where a T5 would stand: the fewest that the pipeline can be told."""

_SHALLOW = ("pos_embed", "proj_out", "context_embedder", "time_text_embed", "norm")
"""Layers from and to few, unlike channels, and those that only scale and shift: AdamW suits them better."""


@dataclasses.dataclass(frozen=True)
class FlowRecipe(DenoisingRecipe):
    """How text encoders and transformer are built and trained; what the rows are is in `DenoisingRecipe`.

    Attributes:
        width: of the transformer; its heads have 32 channels.
        depth: of the transformer, in blocks.
        text_width: of each of the two text encoders.
        text_layers: their depth; the transformer reads the last layer but one, and all of them by the
            pooled vector.
        shift: of the sampler's noise levels (Esser et al. 2024, eq. 23).
        level_mean: of the logit of a row's noise level, which is normally distributed (eq. 19 there).
        level_spread: its deviation.
        level_uniform: share of the rows whose noise level is uniform instead.
        learning_rate: peak of the schedule.
        object_weight: how much more an object's latents weigh than the background's, where the
            noise is so low that x_t tells where the object is.
        object_margin: latent pixels around an object that weigh as it does: were they lighter, a doubtful
            outline would be drawn outwards.
        grounding: weight of the grounding loss.
        grounding_from: share of the steps after which it is on.
        ema: decay of the weight average.
        compiled: whether to compile the loss.
    """

    steps: int = 18_000
    batch: int = 48
    width: int = 192
    depth: int = 7
    text_width: int = 96
    text_layers: int = 2
    shift: float = 1.5
    level_mean: float = 0.9
    level_spread: float = 0.9
    level_uniform: float = 0.2
    learning_rate: float = 1.2e-3
    object_weight: float = 4.0
    object_margin: int = 2
    grounding: float = 0.05
    grounding_from: float = 0.48
    ema: float = 0.998
    compiled: bool = True

    def draw_levels(self, count: int, generator: torch.Generator) -> Float[Tensor, " n"]:
        """Noise levels sigma in (0, 1), one per stratum of their distribution."""
        uniform = round(count * self.level_uniform)
        drawn = []
        for size in (uniform, count - uniform):
            strata = torch.randperm(size, generator=generator) + torch.rand(size, generator=generator)
            drawn.append((strata / max(1, size)).clamp(1e-4, 1 - 1e-4))
        normal = 2**0.5 * torch.erfinv(2 * drawn[1] - 1)
        shaped = torch.sigmoid(self.level_mean + self.level_spread * normal)
        levels = torch.cat([drawn[0], shaped])
        return levels[torch.randperm(count, generator=generator)]


class KeepingJointProcessor:
    """Joint attention with the maps written out; those from pixels to text are handed to the caller.

    Passed to the network as `joint_attention_kwargs={"maps": list}`: every block appends its maps,
    (n, pixels, text columns), averaged over heads. At this size the backward pass of the written-out form
    takes half the time of the fused call's on a CPU.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "n p d"],
        encoder_hidden_states: Float[Tensor, "n w d"],
        attention_mask: None = None,
        *,
        maps: list[Tensor],
    ) -> tuple[Float[Tensor, "n p d"], Float[Tensor, "n w d"]]:
        """See `diffusers.models.attention_processor.JointAttnProcessor2_0`."""
        pixels = hidden_states.shape[1]

        def heads(layer: nn.Module, states: Tensor) -> Tensor:
            split: Tensor = layer(states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            return split

        def both(image: Tensor, text: Tensor) -> Tensor:
            return torch.cat([image, text], 2)

        of: Any = attn  # its projections and norms are typed as absent
        query = both(
            of.norm_q(heads(of.to_q, hidden_states)),
            of.norm_added_q(heads(of.add_q_proj, encoder_hidden_states)),
        )
        key = both(
            of.norm_k(heads(of.to_k, hidden_states)),
            of.norm_added_k(heads(of.add_k_proj, encoder_hidden_states)),
        )
        value = both(heads(of.to_v, hidden_states), heads(of.add_v_proj, encoder_hidden_states))
        weights = (query @ key.transpose(-1, -2) * attn.scale).float().softmax(-1)
        maps.append(weights[:, :, :pixels, pixels:].mean(1))
        mixed = (weights.to(value.dtype) @ value).transpose(1, 2).flatten(2)
        text = mixed[:, pixels:] if attn.context_pre_only else attn.to_add_out(mixed[:, pixels:])
        return attn.to_out[0](mixed[:, :pixels]), text


def build_transformer(recipe: FlowRecipe) -> SD3Transformer2DModel:
    """Stable Diffusion 3's transformer, small, with norms of queries and keys; it starts as the identity."""
    transformer: SD3Transformer2DModel = SD3Transformer2DModel(
        sample_size=LATENT_SIDE,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=recipe.depth,
        attention_head_dim=32,
        num_attention_heads=recipe.width // 32,
        joint_attention_dim=2 * recipe.text_width,
        caption_projection_dim=recipe.width,
        pooled_projection_dim=2 * recipe.text_width,
        pos_embed_max_size=LATENT_SIDE // 2,
        qk_norm="rms_norm",
    )
    for name, parameter in transformer.named_parameters():
        if name.endswith((".linear.weight", ".linear.bias")) or name.startswith("proj_out"):
            nn.init.zeros_(parameter)
    return transformer


def build_clip(tokenizer: CLIPTokenizer, width: int, layers: int) -> CLIPTextModelWithProjection:
    """A CLIP text model with a pooled vector, of the tokenizer's vocabulary and length."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config)


def build_flow_scheduler(shift: float) -> FlowMatchEulerDiscreteScheduler:
    """Stable Diffusion 3's noise levels."""
    scheduler: FlowMatchEulerDiscreteScheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    return scheduler


class FlowNetworks(nn.Module):
    """The transformer and both text encoders."""

    def __init__(self, recipe: FlowRecipe, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.transformer = build_transformer(recipe)
        sizes = (tokenizer, recipe.text_width, recipe.text_layers)
        self.texts = nn.ModuleList([build_clip(*sizes), build_clip(*sizes)])

    def read(self, token_ids: Int[Tensor, "n w"]) -> tuple[Float[Tensor, "n v d"], Float[Tensor, "n p"]]:
        """Text columns, with zeros in the place of T5's, and the pooled vector."""
        read = [text(token_ids, output_hidden_states=True) for text in self.texts]
        columns = torch.cat([one.hidden_states[-2] for one in read], -1)
        columns = torch.cat([columns, columns.new_zeros(len(columns), T5_COLUMNS, columns.shape[-1])], 1)
        return columns, torch.cat([one.text_embeds for one in read], -1)


class FlowModule(lightning.LightningModule):
    """Loss on the velocity of a rectified flow (Liu et al. 2022); averages its weights."""

    def __init__(self, recipe: FlowRecipe, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.recipe = recipe
        self.live = FlowNetworks(recipe, tokenizer)
        self.averaged = FlowNetworks(recipe, tokenizer)
        self.averaged.load_state_dict(self.live.state_dict())
        self.live.transformer.set_attn_processor(KeepingJointProcessor())  # type: ignore[arg-type]  # diffusers lists its own only
        self._average = Average(self.live, self.averaged, recipe.ema)
        self._loss = torch.compile(self.loss) if recipe.compiled else self.loss

    def loss(
        self,
        latents: Tensor,
        objects: Tensor,
        noise: Tensor,
        levels: Tensor,
        token_ids: Tensor,
        owners: Tensor,
        grounding: float,
    ) -> Tensor:
        """Mean weighted loss of a `DenoisingBatch`, given by its fields, with the grounding loss added."""
        # x_t = (1 - sigma) x_0 + sigma epsilon, velocity = epsilon - x_0
        sigma = levels.view(-1, 1, 1, 1)
        x_t = (1 - sigma) * latents + sigma * noise
        maps: list[Tensor] = []
        with torch.autocast(latents.device.type, torch.bfloat16):
            columns, pooled = self.live.read(token_ids)
            velocity = self.live.transformer(
                hidden_states=x_t,
                timestep=levels * 1000,
                encoder_hidden_states=columns,
                pooled_projections=pooled,
                joint_attention_kwargs={"maps": maps},
            ).sample
        snr = ((1 - sigma) / sigma).square()
        margin = self.recipe.object_margin
        near = nn.functional.max_pool2d(objects.sum(1, keepdim=True), 2 * margin + 1, 1, margin)
        by_place = 1 + self.recipe.object_weight * near * (4 * snr).clamp(max=1.0)
        matching: Tensor = (by_place * (velocity.float() - (noise - latents)).square()).mean()
        if not grounding:
            return matching
        # Where the noise hides the layout, no map can be right.
        visible = (10 * snr).clamp(max=1.0).flatten()
        words = [one[:, :, : token_ids.shape[1]] for one in maps]
        return matching + grounding * grounding_loss(words, owners, place_masks(objects), visible)

    def training_step(self, batch: DenoisingBatch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        grounded = self.global_step >= self.recipe.grounding_from * self.recipe.steps
        return self._loss(*batch, self.recipe.grounding if grounded else 0.0)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Updates the averaged weights."""
        self._average.update(self.global_step)

    def configure_optimizers(self) -> Any:
        """Optimiser and schedule of the recipe."""
        groups = muon_groups([self.live.transformer, self.live.texts], _SHALLOW)
        return muon_adamw(groups, self.recipe.learning_rate, self.recipe.steps)


def train_flow(
    recipe: FlowRecipe,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    out_dir: Path,
    device: str = "cpu",
    seed: int = 0,
    observers: tuple[Callback, ...] = (),
) -> FlowModule:
    """Trains, or resumes, or just loads; the caller takes the averaged networks.

    Encoded scenes are kept in `out_dir`/latents.safetensors. `vae.config.scaling_factor` must be set.
    """
    lightning.seed_everything(seed, verbose=False)
    module = FlowModule(recipe, tokenizer)
    fit_denoiser(
        module,
        recipe,
        vae,
        tokenizer,
        name="flow",
        out_dir=out_dir,
        device=device,
        seed=seed,
        observers=observers,
    )
    return module
