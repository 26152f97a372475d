"""From sampled rows to results, each built once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.editing.attention import AttentionMaps, kept_maps
from p2p_bench.editing.loop import Sampled
from p2p_bench.editing.notes import edit_notes
from p2p_bench.editing.request import EditRequest, PreparedRequest
from p2p_bench.editing.result import EditResult
from p2p_bench.editing.rows import RowTable
from p2p_bench.errors import P2PError
from p2p_bench.inversion.recall import Made
from p2p_bench.models import DiffusionModel


@dataclass(frozen=True, eq=False)
class Part:
    """What sampling the source and some targets of a request left, by image; 0 is the source.

    Attributes:
        images: Decoded, on the CPU.
        latents: Final latents.
        rows: UNet rows taken.
        spent: Share of the UNet rows that went through the network.
        backward: UNet rows that went backward.
        errors: What went wrong, or None.
        attention: Recorded maps.
    """

    images: Mapping[int, Float[Tensor, "3 h w"]]
    latents: Mapping[int, Float[Tensor, "c k l"]]
    rows: Mapping[int, int]
    spent: Mapping[int, float]
    backward: Mapping[int, int]
    errors: Mapping[int, P2PError | None]
    attention: tuple[AttentionMaps, ...]


def sampled_parts(
    model: DiffusionModel, table: RowTable, sampled: Sampled, images: Float[Tensor, "n 3 h w"]
) -> list[Part]:
    """The part of every sample of a batch.

    Args:
        model: The model.
        table: The rows at the end.
        sampled: What the loop left of them.
        images: Their images; NaN where a row has an error.
    """
    parts = []
    for sample in table.samples:
        row_of = sample.row_of
        parts.append(
            Part(
                images={image: images[row] for image, row in row_of.items()},
                latents={image: sampled.latents[row] for image, row in row_of.items()},
                rows={image: sampled.unet_rows[row] for image, row in row_of.items()},
                spent={image: sampled.unet_rows_spent[row] for image, row in row_of.items()},
                backward={image: sampled.unet_rows_backward[row] for image, row in row_of.items()},
                errors={
                    image: sampled.errors[row] or image_error(model, sample.id, images[row])
                    for image, row in row_of.items()
                },
                attention=kept_maps(sampled.recorders, row_of),
            )
        )
    return parts


def gathered(
    model: DiffusionModel,
    prepared: PreparedRequest,
    made: Made,
    parts: Sequence[Part],
    vae_reconstruction: Float[Tensor, "3 h w"] | None,
    steps: int,
) -> EditResult:
    """The result of a request. Targets that were not sampled are NaN, with their error.

    Args:
        model: The model.
        prepared: The request.
        made: How it started.
        parts: What was sampled, part after part; at least one.
        vae_reconstruction: A real source image through the VAE and back.
        steps: Number of steps of the run.
    """
    unsuited = {1 + i: one for i, one in enumerate(prepared.controllers) if isinstance(one, P2PError)}
    errors: dict[int, P2PError | None] = {}
    images, latents = blank_images(model, len(prepared.prompts), parts[0].latents[0].dtype)
    rows, spent, backward = [0] * len(images), [0.0] * len(images), [0] * len(images)
    unchanged = set()
    for part in parts:
        for image in part.images:
            if torch.equal(part.latents[image], part.latents[0]):
                unchanged.add(image)
            images[image], latents[image] = part.images[image], part.latents[image]
            rows[image], spent[image] = part.rows[image], part.spent[image]
            backward[image] = part.backward[image]
            # The source is sampled in every part; what it broke in one is broken.
            errors[image] = errors.get(image) or part.errors[image]
    taken = range(made.replay.first_step, steps)
    return EditResult(
        id=prepared.request.id,
        images=images,
        latents=latents,
        inversion_rows=made.replay.unet_rows,
        inversion_recalled=made.recalled,
        inversion_rows_backward=made.replay.unet_rows_backward,
        source_rows=rows[0],
        source_passes=len(parts),
        target_rows=tuple(rows[1:]),
        target_rows_spent=tuple(spent[1:]),
        target_rows_backward=tuple(backward[1:]),
        errors=tuple(unsuited.get(image) or errors.get(image) for image in range(len(images))),
        vae_reconstruction=vae_reconstruction,
        prompts=prepared.prompts,
        controls=tuple("" if isinstance(one, P2PError) else one.control for one in prepared.controllers),
        mask_from=tuple(
            "" if isinstance(one, P2PError) or one.blend is None else one.blend.mask_from
            for one in prepared.controllers
        ),
        attention=_joined([maps for part in parts for maps in _of_words(part.attention, prepared)]),
        source_told=prepared.told is None,
        notes=tuple(
            ""
            if isinstance(one, P2PError)
            else edit_notes(one, model.sites, taken, image in unchanged, model.spec.latent_size)
            for image, one in enumerate(prepared.controllers, start=1)
        ),
    )


def refused(model: DiffusionModel, request: EditRequest, errors: Sequence[P2PError]) -> EditResult:
    """The result of a request that was not carried out.

    Args:
        model: The model.
        request: The request.
        errors: The one reason, or that of each image, source first.
    """
    images, latents = blank_images(model, len(request.prompts), torch.float32)
    each = errors if len(errors) == len(images) else [errors[0]] * len(images)
    return replace(EditResult.made(request.id, images, each), latents=latents)


def blank_images(
    model: DiffusionModel, count: int, dtype: torch.dtype
) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n c k l"]]:
    """Images and latents, NaN, to be filled in."""
    spec = model.spec
    images = torch.full((count, 3, *spec.image_size), torch.nan)
    return images, torch.full((count, spec.latent_channels, *spec.latent_size), torch.nan, dtype=dtype)


def image_error(model: DiffusionModel, sample: str, image: Float[Tensor, "3 h w"]) -> P2PError | None:
    """Why an image of finite latents is none; None if it is one.

    Args:
        model: Which made it.
        sample: Id of the sample.
        image: The image.
    """
    if bool(image.isfinite().all()):
        return None
    maker = "VAE" if model.upscaler is None else "upscaler"
    return P2PError(
        f"sample {sample!r}: the {maker} of model {model.spec.name!r} made a non-finite image of finite "
        "latents; set model.dtype=float32 or bfloat16"
    )


def _of_words(kept: Sequence[AttentionMaps], prepared: PreparedRequest) -> list[AttentionMaps]:
    """The maps without those of a source that was told nothing: their columns are no words of its prompt."""
    return [
        one
        if one.kind == "self" or prepared.told is None
        else replace(one, maps={image: maps for image, maps in one.maps.items() if image})
        for one in kept
    ]


def _joined(kept: Sequence[AttentionMaps]) -> tuple[AttentionMaps, ...]:
    """Maps of one kind and size together; there are several only where a request exceeds the row budget."""
    joined: dict[tuple[str, float], AttentionMaps] = {}
    for one in kept:
        known = joined.get((one.kind, one.fraction))
        maps = one.maps if known is None else {**known.maps, **one.maps}
        joined[one.kind, one.fraction] = replace(one, maps=maps)
    return tuple(sorted(joined.values(), key=lambda one: one.kind))
