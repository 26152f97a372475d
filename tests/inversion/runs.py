"""Edits of random images with an inversion, on the tiny model in float64."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.editing.run import run_edits
from p2p_bench.inversion import Inversion
from tests.models.tiny import tiny_model

SOURCE, TARGET, OTHER = "a red circle on grass", "a blue circle on grass", "a cat in fog"
STEPS = 4


def images(count: int) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def encoded(image: Tensor | None = None) -> Tensor:
    """Latents of an image; the first random one where none is given."""
    return tiny_model().encode_images(images(1) if image is None else image[None])[0]


def edited(
    inversion: Inversion,
    targets: tuple[str, ...] = (TARGET,),
    image: Tensor | None = None,
    source: str = SOURCE,
    seed: int = 3,
    controller: p2p.Controller | None = None,
    steps: int = STEPS,
    guidance: float = 7.5,
    **options: Any,
) -> p2p.EditResult:
    """One request."""
    request = p2p.EditRequest(
        "x",
        source,
        tuple(p2p.Target(target, controller or p2p.NoControl()) for target in targets),
        image=images(1)[0] if image is None else image,
        inversion=inversion,
        seed=seed,
    )
    (result,) = run_edits(tiny_model(), [request], steps=steps, guidance=guidance, **options)
    assert result.error is None
    return result


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def assert_batches_change_nothing(make: Callable[[], Inversion]) -> None:
    """Three images at once, with one and with two targets, against one at a time with one target."""
    pictures, sources = images(3), (SOURCE, OTHER, "a dog in water")
    targets = ((TARGET,), (SOURCE, "a cat in water"), (OTHER,))
    replace = p2p.Reweight({"a": 2.0}, inner=p2p.Refine())
    requests = [
        p2p.EditRequest(
            str(index), source, tuple(p2p.Target(text, replace) for text in texts),
            image=image, inversion=make(), seed=index,
        )
        for index, (image, source, texts) in enumerate(zip(pictures, sources, targets, strict=True))
    ]  # fmt: skip
    together = run_edits(tiny_model(), requests, steps=STEPS, guidance=5.0)
    for index, (result, texts) in enumerate(zip(together, targets, strict=True)):
        assert result.error is None
        for place, text in enumerate(texts):
            alone = edited(make(), (text,), pictures[index], sources[index], index, replace, guidance=5.0)
            assert distance(result.latents[[0, 1 + place]], alone.latents) <= 1e-10
            assert (result.source_rows, result.target_rows[place]) == (
                alone.source_rows, alone.target_rows[0],
            )  # fmt: skip
            assert result.inversion_rows == alone.inversion_rows
