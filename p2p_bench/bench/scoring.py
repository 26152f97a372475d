"""From an edited pair to scores: what metrics see of it, and what is done where one fails."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.bench.heatmaps import edit_attention
from p2p_bench.bench.isolation import check_device
from p2p_bench.bench.module import Edited
from p2p_bench.bench.references import NO_EDIT, VAE, Place
from p2p_bench.errors import P2PError
from p2p_bench.metrics.base import UNDEFINED, EditView, Metric, all_columns, evaluate, split_reasons

log = logging.getLogger(__name__)


def edit_view(edited: Edited, place: int, device: torch.device) -> EditView:
    """What metrics see of an edit.

    Args:
        edited: A pair whose edit has no error.
        place: Of the edit among those that were asked for.
        device: Where metrics are computed.
    """
    assert edited.result is not None, "only edits without an error are scored"
    loaded, pair, index = edited.loaded, edited.loaded.pair, edited.edits[place].index

    def moved(image: Tensor | None) -> Tensor | None:
        return None if image is None else image.to(device)

    result = edited.result
    images = result.images.to(device)
    real = loaded.image is not None
    again = images[0] if result.reconstructions is None else moved(result.reconstructions[place])
    generated = images[0] if result.has_source else images[1 + place]
    return EditView(
        source=loaded.image.to(device) if loaded.image is not None else generated,
        edited=images[1 + place],
        source_prompt=pair.source_prompt,
        target_prompt=pair.target_prompts[index],
        reconstruction=again if real else None,
        vae_reconstruction=moved(result.vae_reconstruction),
        mask=moved(loaded.mask),
        answer=moved(loaded.answer),
        scene=pair.scene,
        scene_edit=pair.scene_edit,
        lossy=bool(result.lossy) and result.lossy[place],
        attention=moved(edit_attention(result, 1 + place, pair.word_weights)),
        has_source=result.has_source,
    )


def score(metrics: Mapping[str, Metric], views: Sequence[EditView]) -> list[tuple[dict[str, float], str]]:
    """Scores of each view, undefined ones with their reason, and why where it cannot be scored."""
    try:
        return [(values, "") for values in evaluate(metrics, views)]
    except P2PError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever a metric trips over, the others have their values
        check_device(views[0].edited.device, error)
        log.warning("a metric failed on a batch, trying its edits one by one: %s", error)
    return [_score_alone(metrics, view) for view in views]


def _score_alone(metrics: Mapping[str, Metric], view: EditView) -> tuple[dict[str, float], str]:
    try:
        return evaluate(metrics, [view])[0], ""
    except P2PError:
        raise
    except Exception as error:
        check_device(view.edited.device, error)
        log.exception("a metric failed")
        return {}, str(error) or type(error).__name__


def score_references(
    metrics: Mapping[str, Metric], batch: Iterable[Edited], wanted: Iterable[Place], device: torch.device
) -> list[dict[str, Any]]:
    """The references of a batch.

    Args:
        metrics: Metric by the name it has in the configuration.
        batch: Edited pairs; one whose source has an error has no references.
        wanted: Samples and targets to score.
        device: Where metrics are computed.
    """
    left = set(wanted)
    heads: list[dict[str, Any]] = []
    views: list[EditView] = []
    for edited in batch:
        result = edited.result
        if result is None or result.errors[0] is not None or not result.has_source:
            continue
        pair = edited.loaded.pair
        for place, asked in enumerate(edited.edits):
            if (pair.id, asked.index) not in left:
                continue
            left.remove((pair.id, asked.index))
            view = edit_view(edited, place, device)
            for kind, image in ((NO_EDIT, view.source), (VAE, view.vae_reconstruction)):
                if image is None:
                    continue
                heads.append(
                    {
                        "sample_id": pair.id,
                        "target_index": asked.index,
                        "reference": kind,
                        "category": pair.category,
                    }
                )
                views.append(_instead_of_the_edit(view, image))
    undefined = {column.name: UNDEFINED for column in all_columns(metrics)}
    scores = score(metrics, views) if views else []
    return [
        {**head, **undefined, **split_reasons(values)[0]}
        for head, (values, _) in zip(heads, scores, strict=True)
    ]


def _instead_of_the_edit(view: EditView, image: Float[Tensor, "3 h w"]) -> EditView:
    """The same with another picture in the place of the edit.

    The picture is the reconstruction too, unless it is the source, of which nothing was reconstructed.
    """
    reconstruction = None if image is view.source else image
    return replace(
        view,
        edited=image,
        reconstruction=reconstruction,
        vae_reconstruction=reconstruction,
        attention=None,
        lossy=False,
    )
