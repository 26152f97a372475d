"""Which keys of a single file in the original layout belong to which network, and which to none."""

from collections.abc import Collection, Sequence

from p2p_bench.errors import ConfigError
from p2p_bench.models.layouts import SDXL, Layout

UNET = "model.diffusion_model."
FIRST_LAYER, LAST_LAYER = f"{UNET}input_blocks.0.0.weight", f"{UNET}out.2.weight"
AVERAGED = "model_ema."
COUNTERS = ("model_ema.decay", "model_ema.num_updates")
_VAES = (("first_stage_model.",), ("vae.",), ("encoder.", "decoder.", "quant_conv.", "post_quant_conv."))
"""How keys of a VAE begin: the usual way, another, and that of a VAE's own file."""
TEXT = {
    "v1": ("cond_stage_model.transformer.",),
    "v2": ("cond_stage_model.model.",),
    "xl": ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."),
}
"""How keys of text encoders begin, by the generation of the model."""
REFINER = "conditioner.embedders.0.model."
_TRANSFORMERS = ("joint_blocks.", "double_blocks.", "transformer_blocks.")
"""How keys of other networks begin, Stable Diffusion 3's and FLUX's."""
_IDLE = ("position_ids", ".logit_scale", ".attn_mask")
"""How keys end that no image depends on, or that networks compute themselves."""
_IDLE_OF_VAE = tuple(f"{prefix}{part}" for prefix in _VAES[0] + _VAES[1] for part in ("loss.", "model_ema."))
_OF_OPEN_CLIP = (
    "transformer.", "positional_embedding", "token_embedding.", "ln_final.", "text_projection"
)  # fmt: skip
_OF_TRAINING = (
    "betas", "alphas_cumprod", "sqrt_", "log_one_minus_", "posterior_", "logvar", "lvlb_weights",
    "scale_factor", "denoiser.", "v_pred", "global_step",
)  # fmt: skip
"""How buffers of the original code begin; those that say something are heeded elsewhere."""
_CHANGES = {
    "control_model.": "a ControlNet beside the model",
    "lora_": "a LoRA beside the model",
    "lycoris_": "a LoRA beside the model",
    "ip_adapter.": "an IP-Adapter beside the model",
}
"""How keys begin of what changes images and is not merged into the weights."""


def kind_of_other(keys: Sequence[str]) -> str:
    """What a file is that holds no model of Stable Diffusion, and what to do; "" if it may."""
    if transformer := [key for key in keys if key.removeprefix(UNET).startswith(_TRANSFORMERS)]:
        return (
            f"is no checkpoint of Stable Diffusion 1.x, 2.x or XL but of a transformer ({transformer[0]}); "
            "get the model as a directory in diffusers' format"
        )
    for prefix, what in _CHANGES.items():
        found = [key for key in keys if key.startswith(prefix)]
        if found and any(key.startswith(UNET) for key in keys):
            return f"holds {what} ({found[0]}), which would be left out; get the model without"
    unet = [key for key in keys if key.startswith(UNET)]
    if not unet:
        return (
            "is no whole checkpoint of Stable Diffusion in the original layout: no key starts with "
            f"{UNET}{_likely(keys)}"
        )
    if not any(key.startswith((f"{UNET}input_blocks.", f"{UNET}middle_block.")) for key in unet):
        return (
            f"is no checkpoint of Stable Diffusion in the original layout: its network has no {FIRST_LAYER}, "
            f"but {unet[0]}; get the model as a directory in diffusers' format"
        )
    return ""


def _likely(keys: Sequence[str]) -> str:
    """What a file without a U-Net seems to be, and where that is given."""
    if any("lora_" in key or ".lora." in key for key in keys):
        return f"; it is a LoRA ({keys[0]}), which is added to a checkpoint: model.lora=FILE"
    if len(keys) == 1 or set(keys) <= {"emb_params", "clip_l", "clip_g", "string_to_param"}:
        return f"; it seems to be a word learnt by textual inversion ({keys[0]}): model.embeddings=FILE"
    if any(key.startswith(("control_model.", "controlnet_cond_embedding.")) for key in keys):
        return "; it is a ControlNet, which is not known here"
    if any(key.startswith(AVERAGED) for key in keys):
        return (
            f"; it holds averaged weights ({AVERAGED}) alone, and those are of no layout that is known here"
        )
    if all(key.startswith((*_VAES[2], "loss.")) for key in keys):
        return "; it is a VAE alone, which is no model"
    return f" (but {keys[0]}); take a file with U-Net, VAE and text encoders" if keys else "; it is empty"


def check_apart(keys: Collection[str], where: str) -> None:
    """Refuses a file that holds a network of a kind twice, of which one would be left out.

    Raises:
        ConfigError: It does; names a key of each.
    """
    for kind, ways in (("VAEs", _VAES), ("text encoders", tuple(TEXT.values()))):
        first = (
            next((one for one in keys if one.startswith(way) and not is_idle(one)), None) for way in ways
        )
        found = [key for key in first if key is not None]
        if len(found) > 1:
            raise ConfigError(
                f"{where}: it holds {kind} of two models ({' and '.join(found)}); take a checkpoint of one"
            )


def vae_prefixes(keys: Collection[str]) -> tuple[str, ...]:
    """How the keys of a file's VAE begin."""
    return next((way for way in _VAES if any(key.startswith(way) for key in keys)), _VAES[0])


def is_idle(key: str) -> bool:
    """Whether no image depends on a tensor."""
    return key.endswith(_IDLE) or key.startswith(_IDLE_OF_VAE)


def foreign_to_open_clip(keys: Collection[str], prefix: str) -> list[str]:
    """Keys of a text encoder in OpenCLIP's layout that have no place in it."""
    known = tuple(prefix + one for one in _OF_OPEN_CLIP)
    return [key for key in keys if key.startswith(prefix) and not key.startswith(known) and not is_idle(key)]


def left_out(keys: Collection[str], layout: Layout) -> list[str]:
    """Keys of no network of a family and of no buffer of the original code, in order."""
    texts = TEXT["xl"] if layout == SDXL else (*TEXT["v1"], *TEXT["v2"])
    known = (UNET, AVERAGED, *vae_prefixes(keys), *texts, *_OF_TRAINING)
    return sorted(key for key in keys if not key.startswith(known) and not is_idle(key))
