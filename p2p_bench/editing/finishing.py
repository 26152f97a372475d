"""From final latents to images: decoded, or enlarged by the model's upscaler.

In a cascade the attention of the first stage is edited, and the others follow without control: Hertz et al.
(arXiv 2208.01626) edit Imagen's 64 x 64 stage. Each row is enlarged with its own prompt; noise is that of the
sample, so that rows that are equal before, and are told the same, are equal after.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from p2p_bench.editing.budget import is_out_of_memory
from p2p_bench.editing.loop import Sampled
from p2p_bench.editing.request import PreparedRequest
from p2p_bench.editing.rows import RowTable
from p2p_bench.hashing import noise_seed
from p2p_bench.models import DiffusionModel
from p2p_bench.models.conditioning import Conditioning, repeated, select
from p2p_bench.models.device import free_memory
from p2p_bench.models.level import Level
from p2p_bench.models.upscaler import Upscaler
from p2p_bench.prompts.words import TokenizedPrompt
from p2p_bench.sampling import initial_noise
from p2p_bench.sampling.ddpm import ddpm_step


def finished(
    model: DiffusionModel,
    table: RowTable,
    sampled: Sampled,
    members: Sequence[PreparedRequest],
    max_rows: int,
    tick: Callable[[], None],
) -> tuple[Float[Tensor, "n 3 h w"], Sampled]:
    """Images of all rows, NaN where a row has an error; and what was sampled, the upscaler's rows counted.

    Args:
        model: The model.
        table: The rows at the end.
        sampled: What the loop left of them.
        members: The requests of the batch.
        max_rows: Rows through the first stage at once; as many pixels go through an upscaler.
        tick: Called after each step of an upscaler.
    """
    images = torch.full((len(sampled.latents), 3, *model.spec.image_size), torch.nan)
    fine = [index for index, error in enumerate(sampled.errors) if error is None]
    if not fine:
        return images, sampled
    if model.upscaler is None:
        images[fine] = model.decode_latents(sampled.latents[fine]).cpu()
        return images, sampled
    rows = [table.rows[index] for index in fine]
    # A source is told its own prompt here, also where an inversion has it sampled without.
    prompts = [row.prompt if row.targets else members[row.sample].prompts[0] for row in rows]
    seeds = [members[row.sample].request.seed for row in rows]
    most = max_rows // (model.upscaler.settings.passes * model.upscaler.settings.factor**2)
    images[fine] = enlarged(model, model.upscaler, sampled.latents[fine], prompts, seeds, most, tick).cpu()
    return images, _counted(table, sampled, fine, model.upscaler.settings.rows)


@torch.no_grad()
def enlarged(
    model: DiffusionModel,
    upscaler: Upscaler,
    small: Float[Tensor, "n 3 y x"],
    prompts: Sequence[TokenizedPrompt],
    seeds: Sequence[int],
    most: int,
    tick: Callable[[], None] = lambda: None,
) -> Float[Tensor, "n 3 h w"]:
    """Images of another stage: in [0, 1], float32.

    Args:
        model: Encodes prompts.
        upscaler: Enlarges.
        small: Images in [-1, 1].
        prompts: What each shows.
        seeds: Seed of each one's sample; its noise is a function of that and of the step.
        most: Images through the network at once, one at least; fewer where memory does not suffice.
        tick: Called after each step.
    """
    noise, parts = _Noise(upscaler, seeds, small), _Parts(most)
    told = model.encode(prompts), model.unconditional()
    x_t, shown = noise.of("start"), upscaler.shown(small, noise.of("image"))
    for step, levels in enumerate(pairwise(upscaler.ladder())):
        drawn = noise.of(f"step {step}") if levels[0].timestep > 0 else None
        x_t = parts.joined(partial(_stepped, upscaler, levels, x_t, shown, drawn, told), x_t)
        tick()
    return (x_t.float() / 2 + 0.5).clamp(0, 1)


def _stepped(
    upscaler: Upscaler,
    levels: tuple[Level, Level],
    x_t: Float[Tensor, "n 3 h w"],
    shown: Float[Tensor, "n 3 h w"],
    noise: Float[Tensor, "n 3 h w"] | None,
    told: tuple[Conditioning, Conditioning],
    rows: Int64[Tensor, " k"],
) -> Float[Tensor, "k 3 h w"]:
    """Some of the rows after a step from a level to the next."""
    x_t, (here, there), (conditional, empty) = x_t[rows], levels, told
    without = repeated(empty, len(rows))
    predicted, said = upscaler.predict(x_t, here, shown[rows], select(conditional, rows), without)
    return ddpm_step(predicted, here, there, None if noise is None else noise[rows], upscaler.variance, said)


class _Noise:
    """Standard normal noise of samples, drawn on the CPU.

    Args:
        upscaler: Whose images it is for.
        seeds: Seed of each row's sample; rows of a sample share its noise.
        like: What says the number format and the device.
    """

    def __init__(self, upscaler: Upscaler, seeds: Sequence[int], like: Tensor) -> None:
        self._shape = (like.shape[1], *upscaler.size)
        self._seeds = seeds
        self._like = like

    def of(self, name: str) -> Float[Tensor, "n 3 h w"]:
        """The noise of a step, or of what else has some."""
        drawn = {
            seed: initial_noise(noise_seed(seed, f"upscaler {name}"), self._shape) for seed in self._seeds
        }
        return torch.stack([drawn[seed] for seed in self._seeds]).to(self._like)


class _Parts:
    """Rows that are computed some at a time; fewer from then on where memory does not suffice.

    Args:
        most: At a time.
    """

    def __init__(self, most: int) -> None:
        self._most = max(1, most)

    def joined(self, compute: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
        """What is computed of all rows, by their indices on the device."""
        every = torch.arange(len(like), device=like.device)
        while True:
            try:
                return torch.cat([compute(rows) for rows in torch.split(every, self._most)])
            except RuntimeError as error:
                if self._most == 1 or not is_out_of_memory(error):
                    raise
            # Here the traceback, which holds what had been computed, is gone.
            self._most //= 2
            free_memory(like.device)


def _counted(table: RowTable, sampled: Sampled, fine: Sequence[int], rows: int) -> Sampled:
    """The same with the upscaler's rows in the counts of the rows that it enlarged."""
    taken, spent = list(sampled.unet_rows), list(sampled.unet_rows_spent)
    for index in fine:
        taken[index] += rows
        spent[index] += rows / max(1, len(table.rows[index].targets))
    return replace(sampled, unet_rows=tuple(taken), unet_rows_spent=tuple(spent))
