"""What the configurations of a latent U-Net's checkpoint have to say for it to run as in its pipeline."""

import re
from collections.abc import Mapping

from p2p_bench.errors import ConfigError
from p2p_bench.models.layouts import Layout
from p2p_bench.models.part_config import PartConfig
from p2p_bench.models.spec import Capability

_ADDED = {"sdxl": "text_time"}
"""What the U-Net of a family adds to its time embedding, `addition_embed_type`."""
_INPUTS = ("addition_embed_type", "class_embed_type", "num_class_embeds", "encoder_hid_dim_type")
"""Settings of a U-Net that name inputs besides latents, timestep and text."""
_BLOCKS = {"attention_type": "default", "dual_cross_attention": False}
"""Settings of a U-Net's blocks that have to be so: others read boxes, or two texts."""
_OTHER_CHANNELS = {
    False: "inpainting and depth checkpoints cannot be edited with (and that of InstructPix2Pix is one whose "
    "model_index.json names a StableDiffusionInstructPix2PixPipeline)",
    True: "that of InstructPix2Pix takes twice as many as it returns, the latents of an image beside its own",
}
"""What is said of a U-Net with other channels, by whether the family's reads an image."""
_SIDE = 64
"""Side of the latents that Stable Diffusion 1 was trained on."""
_SIZES_SAID = 9
"""Minor release of diffusers from which on the files say it."""


def check_blocks(layout: Layout, unet: PartConfig) -> None:
    """Refuses a U-Net that needs more than latents, timestep and what its family tells it.

    Args:
        layout: The family.
        unet: Its configuration.

    Raises:
        ConfigError: It does.
    """
    values = unet.values
    given, returned = values.get("in_channels"), unet.integer("out_channels")
    if given != returned * (1 + layout.reads_image):
        raise ConfigError(
            f"model {unet.model!r}: the U-Net takes {given} channels and returns {returned}; "
            + _OTHER_CHANNELS[layout.reads_image]
        )
    own = {"addition_embed_type": _ADDED.get(layout.family)}
    for key in _INPUTS:
        if values.get(key) != own.get(key):
            raise ConfigError(
                f"model {unet.model!r}: the U-Net needs other inputs than those of {layout.title}: "
                f"{key}={values.get(key)}"
            )
    for key, usual in _BLOCKS.items():
        if values.get(key, usual) != usual:
            raise ConfigError(
                f"model {unet.model!r}: the U-Net has blocks that are not known here: {key}={values.get(key)}"
            )


def check_pooled_heads(unet: PartConfig) -> None:
    """Sees that the heads that pool the text of DeepFloyd IF share its width.

    Raises:
        MissingWeightsError: They do not.
    """
    width, heads = unet.integer("encoder_hid_dim"), unet.integer("addition_embed_type_num_heads", 64)
    if unet.values.get("addition_embed_type") == "text" and width % heads:
        raise unet.fault("addition_embed_type_num_heads", f"a divisor of its encoder_hid_dim ({width})")


def unet_features(unet: PartConfig) -> frozenset[Capability]:
    """The capability "features" of a U-Net with the residual block that `attention.features` names."""
    blocks = unet.values.get("up_block_types")
    # A block of the decoder has one residual block more than `layers_per_block`, and so two at least.
    return frozenset({"features"}) if isinstance(blocks, list) and len(blocks) > 1 else frozenset()


def check_together(
    layout: Layout, unet: PartConfig, vae: PartConfig, encoders: Mapping[str, PartConfig]
) -> None:
    """Refuses configurations of networks that are not the family's, or do not fit one another.

    Args:
        layout: The family.
        unet: That of the U-Net.
        vae: That of the autoencoder.
        encoders: Those of the text encoders, by their folders.

    Raises:
        MissingWeightsError: They are of other classes, or of different models.
        ConfigError: They are used in a way that is not known here.
    """
    unet.check_class("UNet2DConditionModel")
    vae.check_class("AutoencoderKL")
    for config, key in ((unet, "attention_head_dim"), (unet, "norm_num_groups"), (vae, "norm_num_groups")):
        if config.values.get(key) is not None:
            config.integers(key)
    for part, config in encoders.items():
        config.check_class(layout.encoders[part])
        if layout.family in ("sd", "ip2p") and config.values.get("use_attention_mask"):
            raise ConfigError(
                f"model {config.model!r}: {config.file}: use_attention_mask is on, but padding is read here "
                "too; take a checkpoint without"
            )
    if layout.family == "sdxl" and vae.values.get("latents_mean") and vae.values.get("latents_std"):
        raise ConfigError(
            f"model {vae.model!r}: {vae.file}: latents_mean and latents_std scale each channel of the "
            "latents, which is not known here; take a VAE with a scaling_factor alone"
        )
    if layout.family == "sdxl":
        _check_added(unet, list(encoders.values())[-1])
    latent, encoded = unet.integer("out_channels"), vae.integer("latent_channels", 4)
    if latent != encoded:
        raise vae.fault("latent_channels", f"the {latent} out_channels of the U-Net")
    attended = set(unet.integers("cross_attention_dim"))
    width = "d_model" if layout.family == "ldm" else "hidden_size"
    written = sum(config.integer(width) for config in encoders.values())
    if attended != {written}:
        last = list(encoders.values())[-1]
        others = f" less {written - last.integer(width)} of the other encoder" if len(encoders) > 1 else ""
        raise last.fault(width, f"the cross_attention_dim of the U-Net ({min(attended)}){others}")


def _check_added(unet: PartConfig, encoder: PartConfig) -> None:
    """Sees that the U-Net of Stable Diffusion XL is told a pooled text and six sizes."""
    sizes = 6 * unet.integer("addition_time_embed_dim")
    told = unet.integer("projection_class_embeddings_input_dim")
    pooled = encoder.integer("projection_dim", 512)
    if told != sizes + pooled:
        raise ConfigError(
            f"model {unet.model!r}: the U-Net is told {told} numbers, expected the pooled text ({pooled}) "
            f"and six sizes ({sizes}); a refiner, which is told five, cannot be edited with"
        )


def latent_size(unet: PartConfig, layout: Layout) -> tuple[int, int]:
    """Height and width of the latents that a U-Net was trained on.

    Args:
        unet: Its configuration.
        layout: The family.

    Raises:
        MissingWeightsError: It does not say them.
    """
    sides = unet.integers("sample_size")
    if len(sides) > 2:
        raise unet.fault("sample_size", "one or two integers")
    # Files of the first releases say 32 for Stable Diffusion, which was trained on 64; its pipeline knows.
    version = re.match(r"0\.(\d+)\.", str(unet.values.get("_diffusers_version")))
    if layout.family == "sd" and version and int(version[1]) < _SIZES_SAID and max(sides) < _SIDE:
        return _SIDE, _SIDE
    return sides[0], sides[-1]
