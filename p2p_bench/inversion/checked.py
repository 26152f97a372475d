"""An inversion at work, and a look at what comes of it: the method is anybody's."""

from collections.abc import Sequence

from torch import Tensor

from p2p_bench.inversion.base import Inversion, Sources, StepProgress, no_tick
from p2p_bench.models.model import DiffusionModel
from p2p_bench.sampling.replay import Replay
from p2p_bench.writes import writes


def inverted(
    inversion: Inversion, model: DiffusionModel, sources: Sources, steps: int, tick: StepProgress = no_tick
) -> list[Replay]:
    """What `Inversion.invert` gives.

    Raises:
        ValueError: It is not one replay an image, each with a start of the shape of the image's latents and
            a first step of the run; or the sources were changed.
    """
    name = type(inversion).__name__
    before = _writes(sources)
    made = inversion.invert(model, sources, steps, tick)
    if _writes(sources) != before:
        raise ValueError(
            f"{name}.invert changed its sources, which others read after it; work on a copy of them"
        )
    if not isinstance(made, Sequence) or not all(isinstance(replay, Replay) for replay in made):
        odd = next((one for one in made if not isinstance(one, Replay)), made) if _is_list(made) else made
        raise ValueError(
            f"{name}.invert gave a {type(odd).__name__}; expected a list of `Replay`, one an image"
        )
    if len(made) != len(sources):
        raise ValueError(f"{name}.invert gave {len(made)} replays for {len(sources)} images")
    for replay, latents in zip(made, sources.latents, strict=True):
        if fault := _start_fault(replay, latents) or _first_fault(replay, steps):
            raise ValueError(f"{type(replay).__name__} of {name}: {fault}")
    return list(made)


def _start_fault(replay: Replay, latents: Tensor) -> str:
    start = replay.start
    if not isinstance(start, tuple) or not start or not all(isinstance(part, Tensor) for part in start):
        return f"`start` is a {type(start).__name__}; expected a tuple of tensors, such as (latents,)"
    if not all(part.is_floating_point() for part in start):
        return f"`start` holds {', '.join(str(part.dtype) for part in start)}; expected floats"
    if start[0].shape != latents.shape:
        got, expected = tuple(start[0].shape), tuple(latents.shape)
        return f"`start` has the shape {got}; expected that of the image's latents, {expected}"
    return ""


def _first_fault(replay: Replay, steps: int) -> str:
    first = replay.first_step
    if isinstance(first, int) and 0 <= first <= steps:
        return ""
    return f"`first_step` is {first}; expected an index from 0 to {steps}, which takes no step"


def _is_list(made: object) -> bool:
    return isinstance(made, list | tuple)


def _writes(sources: Sources) -> list[int]:
    return writes((sources.images, sources.latents, *sources.conditioning.values()))
