"""Whether a model, and what its rows are told, suit an edit."""

from p2p_bench.attention.sites import ANY_CROSS
from p2p_bench.controllers import BoundController
from p2p_bench.errors import ConfigError, P2PError
from p2p_bench.inversion.base import Prompts
from p2p_bench.models import ModelSpec


def check_features(spec: ModelSpec, bound: BoundController, steps: int) -> None:
    """See that a model has the features that an edit injects.

    Args:
        spec: Facts about the model.
        bound: The edit.
        steps: Number of denoising steps.

    Raises:
        ConfigError: It has not.
    """
    if "features" in spec.capabilities or not any(bound.features(step) for step in range(steps)):
        return
    raise _lacking(spec, f"{bound.control} injects features of a residual block in the decoder of a U-Net")


def check_maps(spec: ModelSpec, bound: BoundController, steps: int) -> None:
    """See that a model has the maps that the latents of an edit descend to, and gradients of them.

    Args:
        spec: Facts about the model.
        bound: The edit.
        steps: Number of denoising steps.

    Raises:
        ConfigError: It has not.
    """
    lacking = {"maps", "gradient"} - spec.capabilities
    if not lacking or not any(bound.map_guidance(step) for step in range(steps)):
        return
    needed = (
        "differentiable passes" if lacking == {"gradient"} else "maps of cross-attention to the text alone"
    )
    descent = "descends by gradients to the source's cross-attention maps and needs"
    raise _lacking(spec, f"{bound.control} {descent} {needed}")


def _lacking(spec: ModelSpec, needs: str) -> ConfigError:
    """What a controller needs, and that the model has none."""
    return ConfigError(
        f"controller: {needs}, which model {spec.name!r} of family {spec.family!r} does not have; take "
        "controller=self_attention or image_qk, or another model"
    )


def check_untold(bound: BoundController, steps: int) -> None:
    """See that an edit takes nothing from the source's words, for a source that is told none.

    Args:
        bound: The edit.
        steps: Number of denoising steps.

    Raises:
        ConfigError: It does.
    """
    guided = any(bound.map_guidance(step) for step in range(steps))
    blend = bound.blend
    blends = blend is not None and blend.records and bool(blend.source_columns)
    edits = (bound.site_edit(step, ANY_CROSS) or () for step in range(steps))
    if guided or blends or any(term.key == "source" for edit in edits for term in edit):
        raise ConfigError(
            f"controller: {bound.control} takes the source's attention to its words, and inversion."
            "inverted_with or replayed_with=empty tells the source none; take controller=masactrl, "
            "plug_and_play or self_attention, or leave these at source"
        )


def told_faults(
    spec: ModelSpec, prompts: Prompts, guidance: float, inversion_prompt: str | None
) -> list[P2PError]:
    """What is told that nobody reads, or told twice.

    Args:
        spec: Facts about the model.
        prompts: What the inversion tells.
        guidance: Guidance scale of the request.
        inversion_prompt: What the request inverts with, if it says so.
    """
    faults: list[P2PError] = []
    if prompts.inverted_empty and inversion_prompt is not None:
        faults.append(
            P2PError(
                "inversion_prompt: inversion.inverted_with=empty says already what the image is inverted "
                "with; leave one of them out"
            )
        )
    if prompts.negative and spec.guided_by != "passes":
        faults.append(
            ConfigError(
                f"inversion.negative_prompt: model {spec.name!r} takes no pass without the prompt that could "
                "be told it; leave it out"
            )
        )
    elif prompts.negative and guidance == 1:
        faults.append(
            ConfigError(
                "inversion.negative_prompt: at guidance 1 there is no pass that is told it; leave it out, or "
                "set sampler.guidance"
            )
        )
    return faults
