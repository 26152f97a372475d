"""What the loop asks of a replay and of a step function, and a look at each answer: both are anybody's.

Tensors of other shapes would be stretched to those of the rows by torch, and a wrong number come of it.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.attention.terms import Role
from p2p_bench.errors import P2PError
from p2p_bench.models import DiffusionModel
from p2p_bench.models.conditioning import Conditioning
from p2p_bench.models.level import Denoised, Prediction
from p2p_bench.sampling import Replay, RowState, Stepper


def guidance_of(replay: Replay, step: int, role: Role, default: float) -> float:
    """Guidance of a row at a step.

    Raises:
        ValueError: It is no number.
    """
    scale = replay.guidance(step, role, default)
    try:
        return float(scale)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(_wrong(replay, "guidance", step, "a number", scale)) from error


def unconditional_of(replay: Replay, step: int, role: Role, empty: Conditioning) -> Conditioning:
    """What the unconditional pass of a row is told at a step.

    Args:
        replay: The replay.
        step: Index from 0.
        role: Of the row.
        empty: What the empty prompt says.

    Raises:
        ValueError: It is no mapping of single rows as the empty prompt has them.
    """
    own = replay.unconditional(step, role)
    if own is None:
        return empty
    if not isinstance(own, Mapping) or not own.keys() <= empty.keys():
        names = f"None or a mapping with names among {sorted(empty)}"
        got = sorted(own) if isinstance(own, Mapping) else own
        raise ValueError(_wrong(replay, "unconditional", step, names, got))
    for name, tensor in own.items():
        if not isinstance(tensor, Tensor) or tensor.shape != empty[name].shape:
            expected = f"a tensor of the shape {tuple(empty[name].shape)} as {name!r}"
            raise ValueError(_wrong(replay, "unconditional", step, expected, tensor))
    return {**empty, **{name: tensor.to(empty[name]) for name, tensor in own.items()}}


def values_of(
    model: DiffusionModel, replay: Replay, step: int, role: Role, text: Float[Tensor, "l d"]
) -> Float[Tensor, "l d"] | None:
    """What cross-attention takes a row's values from; None where it is the text.

    Raises:
        ValueError: It is not of the text's shape.
        P2PError: The model has no cross-attention to the text alone.
    """
    made = replay.values(step, role, text)
    if made is None:
        return None
    if "maps" not in model.spec.capabilities:
        raise P2PError(
            f"{type(replay).__name__} changes the values of cross-attention to the text alone, which model "
            f"{model.spec.name!r} does not have; take another inversion, or another model"
        )
    if not isinstance(made, Tensor) or made.shape != text.shape:
        expected = f"None or a tensor of the shape {tuple(text.shape)}"
        raise ValueError(_wrong(replay, "values", step, expected, made))
    return made


def combined(
    replay: Replay,
    step: int,
    roles: tuple[Role, ...],
    halves: tuple[Denoised, Denoised],
    guidance: Float[Tensor, "n 1 1 1"],
) -> Denoised:
    """What is stepped with, from the predictions without and with the prompt.

    Raises:
        ValueError: It is no prediction of all these rows.
    """
    made = replay.combine(step, roles, *halves, guidance)
    shape = halves[1].output.shape
    if not isinstance(made, Denoised) or made.output.shape != shape or made.x_t.shape != shape:
        got = f"one of {tuple(made.output.shape)}" if isinstance(made, Denoised) else made
        expected = f"a Denoised with an output of the shape {tuple(shape)}"
        raise ValueError(_wrong(replay, "combine", step, expected, got))
    return made


def noise_of(replay: Replay, step: int, shape: Sequence[int]) -> Float[Tensor, "c h w"] | None:
    """Noise of a stochastic step; None where the replay has none.

    Raises:
        ValueError: It is not of the shape of a row's latents, as often as the replay draws.
    """
    noise = replay.noise(step)
    shape = (replay.draws * shape[0], *shape[1:])
    if noise is not None and (not isinstance(noise, Tensor) or tuple(noise.shape) != tuple(shape)):
        raise ValueError(
            _wrong(replay, "noise", step, f"None or a tensor of the shape {tuple(shape)}", noise)
        )
    return noise


def corrected(
    replay: Replay,
    step: int,
    roles: tuple[Role, ...],
    latents: Float[Tensor, "n c h w"],
    prediction: Prediction,
) -> Float[Tensor, "n c h w"]:
    """The latents of a sample's rows after a step, put right.

    Raises:
        ValueError: They are not of the shape that they had.
    """
    made = replay.correct(step, roles, latents, prediction)
    if not isinstance(made, Tensor) or made.shape != latents.shape:
        expected = f"the rows' latents, a tensor of the shape {tuple(latents.shape)}"
        raise ValueError(_wrong(replay, "correct", step, expected, made))
    return made


def check_state(
    stepper: Stepper, step: int, before: RowState, after: object, asked: Sequence[object]
) -> None:
    """Sees that a step leaves what it was given, and has asked the network.

    Raises:
        ValueError: It does not.
    """
    name = type(stepper).__name__
    if not isinstance(after, tuple) or [_shape(one) for one in after] != [_shape(one) for one in before]:
        got = [_shape(one) for one in after] if isinstance(after, tuple) else f"a {type(after).__name__}"
        raise ValueError(
            f"{name}.step at step {step}: expected a state as it was given, a tuple of tensors of the shapes "
            f"{[_shape(one) for one in before]}, got {got}"
        )
    if not asked:
        raise ValueError(f"{name}.step at step {step}: expected `context.predict` to be called at least once")


def check_prediction(model: DiffusionModel, latents: Float[Tensor, "n c h w"], predicted: object) -> None:
    """Sees that a model has answered for all the latents it was given.

    Raises:
        ValueError: It has not.
    """
    made = isinstance(predicted, Denoised) and predicted.output.shape == latents.shape == predicted.x_t.shape
    if not made:
        got = predicted.output if isinstance(predicted, Denoised) else predicted
        raise ValueError(
            f"{type(model).__name__}.predict: expected a Denoised with an output of the shape "
            f"{tuple(latents.shape)} of the latents, got {_shape(got)}"
        )


def _shape(value: object) -> tuple[int, ...] | str:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


def _wrong(replay: Replay, hook: str, step: int, expected: str, got: object) -> str:
    shown = f"a tensor of the shape {tuple(got.shape)}" if isinstance(got, torch.Tensor) else _plain(got)
    return f"{type(replay).__name__}.{hook} at step {step}: expected {expected}, got {shown}"


def _plain(got: object) -> str:
    if isinstance(got, str):
        return got
    return repr(got) if got is None or isinstance(got, list) else f"a {type(got).__name__}"
