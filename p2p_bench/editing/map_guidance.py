"""Cross-attention guidance (pix2pix-zero, arXiv 2302.03027, section 3.3): a gradient step before a step.

The released code samples the source first and keeps its maps of all steps; here the source is sampled beside
its targets, and its maps are kept for one step at a time.

Notation:
    A, A_s       maps of a pass and of the source's like pass, at the latents that a step begins with
    distance     sum of (A - A_s)^2, see `attention.maps`; its mean over the passes of a row, as released
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.attention.maps import KeptMaps, MapDistances
from p2p_bench.attention.plan import StepPlan
from p2p_bench.models import DiffusionModel
from p2p_bench.models.conditioning import Conditioning, joined
from p2p_bench.models.level import Level


class Half(NamedTuple):
    """One pass of a row.

    Attributes:
        row: The row.
        unprompted: Whether it is the pass without the prompt.
    """

    row: int
    unprompted: bool


@dataclass(frozen=True, eq=False)
class Descended:
    """Latents after the descent.

    Attributes:
        latents: What the step goes on from, of all rows: of a row that takes a pass without the prompt the
            latents of that pass, as released.
        conditional: Latents of the passes with the prompt, of all rows.
        shown: For each pass that went forward and backward, the pass that showed it the maps of the source.
    """

    latents: Float[Tensor, "n c h w"]
    conditional: Float[Tensor, "n c h w"]
    shown: Mapping[Half, Half]


def descended(
    model: DiffusionModel,
    x_t: Float[Tensor, "n c h w"],
    level: Level,
    references: Mapping[Half, Half],
    told: Mapping[Half, Conditioning],
    amounts: Mapping[int, float],
) -> Descended:
    """One gradient step of some rows toward the maps of others.

    Args:
        model: The model, within `controlled`.
        x_t: Latents of all rows.
        level: Their level.
        references: For each pass that descends, the pass whose maps it descends to.
        told: What each of these passes is told, a single row each.
        amounts: By row, what the gradient is multiplied with.

    Raises:
        P2PError: The model's weights were loaded within `torch.inference_mode`.
    """
    model.check_differentiable("controller: cross-attention guidance")
    halves = list(references)
    shown = _distinct([references[half] for half in halves], told)
    asked = list(dict.fromkeys(shown))
    # Tensors made in inference mode cannot be differentiated through; everything here is made outside.
    with torch.inference_mode(False):
        kept = KeptMaps()
        with torch.no_grad():
            plan = StepPlan(len(asked), {}, maps=kept)
            model.predict(_of(x_t, asked), level, joined([_own(told[half]) for half in asked]), plan)
        places = torch.tensor([asked.index(half) for half in shown], device=x_t.device)
        seen = MapDistances(kept.maps, places)
        text = joined([_own(told[half]) for half in halves])
        with torch.enable_grad():
            x = _of(x_t, halves).requires_grad_(True)
            model.predict(x, level, text, StepPlan(len(halves), {}, maps=seen))
            # Rows do not mix, so the gradient of the sum is that of each row's own distance.
            (gradient,) = torch.autograd.grad(seen.total().sum(), x)
        passes = {half.row: sum(other.row == half.row for other in halves) for half in halves}
        factors = x_t.new_tensor([amounts[half.row] / passes[half.row] for half in halves])
        found = x.detach() - factors[:, None, None, None] * gradient
    moved = dict(zip(halves, found, strict=True))
    at = [[moved.get(Half(row, unprompted)) for row in range(len(x_t))] for unprompted in (False, True)]
    conditional = torch.stack([x_t[row] if one is None else one for row, one in enumerate(at[0])])
    latents = torch.stack([conditional[row] if one is None else one for row, one in enumerate(at[1])])
    return Descended(latents, conditional, dict(zip(halves, shown, strict=True)))


def _distinct(shown: list[Half], told: Mapping[Half, Conditioning]) -> list[Half]:
    """The passes whose maps are needed: of a row whose two passes are told the same, one."""
    made = []
    for half in shown:
        prompted = Half(half.row, False)
        alike = half.unprompted and prompted in told and _same(told[half], told[prompted])
        made.append(prompted if alike else half)
    return made


def _same(one: Conditioning, other: Conditioning) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _of(x_t: Float[Tensor, "n c h w"], halves: list[Half]) -> Float[Tensor, "m c h w"]:
    """Latents of some passes, in memory of their own."""
    return x_t.clone().index_select(0, torch.tensor([half.row for half in halves], device=x_t.device))


def _own(told: Conditioning) -> Conditioning:
    return {name: tensor.clone() for name, tensor in told.items()}
