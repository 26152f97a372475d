"""Masks of local blend: from attention, or given."""

from collections.abc import Sequence

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, interpolate, max_pool2d

from p2p_bench.attention.recorder import Recorder, RecordSpec
from p2p_bench.attention.sites import Site
from p2p_bench.controllers.blend import BoundBlend
from p2p_bench.errors import ConfigError
from p2p_bench.models import ModelSpec


def attention_mask(
    heat: Float[Tensor, "s t"], size: tuple[int, int], pool: int, threshold: float
) -> Bool[Tensor, "h w"]:
    """Where attention is high, as the released code of Prompt-to-Prompt finds it.

    Args:
        heat: Attention to the words, on any scale; without any attention nothing is in the mask.
        size: Height and width of the mask; `heat` is brought to it without interpolation.
        pool: Side of the max-pooling.
        threshold: Share of the maximum above which a position belongs to the mask.
    """
    pooled = max_pool2d(heat[None, None], pool, stride=1, padding=pool // 2)
    resized = interpolate(pooled, size=size)[0, 0]
    return resized / resized.max() > threshold


def fitted_mask(mask: Bool[Tensor, "y x"], size: tuple[int, int]) -> Bool[Tensor, "h w"]:
    """A mask at the size of the latents: a position may change if any part of it may."""
    return adaptive_max_pool2d(mask[None].float(), size)[0].bool()


def check_blend(spec: ModelSpec, sites: Sequence[Site] | None, blend: BoundBlend) -> None:
    """See that a blend can be made with a model.

    Args:
        spec: Facts about the model.
        sites: Its attention sites; None where it is not loaded, and they are not looked at.
        blend: The blend.

    Raises:
        ConfigError: It has no cross-attention of the wanted size, or a given mask has other proportions.
    """
    if blend.mask is None:
        if sites is None:
            return
        try:
            wanted = RecordSpec((0,), ((0,),), blend_fraction(spec, blend))
            Recorder(wanted, spec.max_tokens, spec.latent_size).check(sites)
        except ConfigError as error:
            raise ConfigError(f"local_blend fraction: {error}") from error
    elif blend.mask.height * spec.image_size[1] != blend.mask.width * spec.image_size[0]:
        raise ConfigError(
            f"local_blend mask: {blend.mask.width} x {blend.mask.height} pixels have other proportions than "
            f"the {spec.image_size[1]} x {spec.image_size[0]} of model {spec.name!r}; crop the mask"
        )


def blend_fraction(spec: ModelSpec, blend: BoundBlend) -> float:
    """Side of the maps that a blend looks at, as a fraction of the latent side."""
    return spec.record_fraction if blend.fraction is None else blend.fraction
