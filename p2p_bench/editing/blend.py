"""Local blend: after a step, what lies outside a mask is taken from the source."""

from collections import defaultdict

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from p2p_bench.attention.recorder import Recorder, RecordSpec
from p2p_bench.controllers.blend import BoundBlend
from p2p_bench.editing.masks import attention_mask, blend_fraction, fitted_mask
from p2p_bench.editing.rows import RowTable
from p2p_bench.models import ModelSpec


class Blender:
    """The blends of the rows of a table; without any, it records and changes nothing.

    Its only state is the maps summed in `recorders`, a row's at its place on their leading axis. Maps are
    summed from the first step on, also where blending begins later.

    Args:
        spec: Facts about the model.
        table: The rows.
        before: The blends of the table before it, whose maps are summed on.
    """

    def __init__(self, spec: ModelSpec, table: RowTable, before: "Blender | None" = None) -> None:
        self._spec = spec
        self._blends = [
            (index, row.source, row.controller.blend)
            for index, row in enumerate(table.rows)
            if row.controller is not None and row.controller.blend is not None
        ]
        columns: dict[float, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
        for target, row in enumerate(table.rows):
            # A row stands for several targets until they part, and records what any of them will need.
            for blend in (controller.blend for controller in row.controllers):
                if blend is not None and blend.records:
                    columns[blend_fraction(spec, blend)][row.source] |= set(blend.source_columns)
                    columns[blend_fraction(spec, blend)][target] |= set(blend.target_columns)
        self.recorders: dict[float, Recorder] = {}
        """What has to be recorded at every step, by the side of its maps."""
        for fraction, by_row in columns.items():
            kept = {row: tuple(sorted(wanted)) for row, wanted in by_row.items()}
            self.recorders[fraction] = (
                _recorder(spec, kept, fraction)
                if before is None
                else before.recorders[fraction].forked(table.parents, kept)
            )

    def blended(self, step: int, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The rows' latents after a step (an index from 0), blended with those of their sources."""
        active = [place for place in self._blends if step >= place[2].start]
        if not active:
            return latents
        rows = list(latents)
        for target, source, blend in active:
            mask = self._mask(target, source, blend).to(latents.device)
            rows[target] = torch.where(mask, latents[target], latents[source])
        return torch.stack(rows)

    def _mask(self, target: int, source: int, blend: BoundBlend) -> Bool[Tensor, "h w"]:
        """Where the target keeps its own latents."""
        size = self._spec.latent_size
        if blend.mask is not None:
            return fitted_mask(blend.mask.tensor(), size)
        recorder = self.recorders[blend_fraction(self._spec, blend)]
        maps = {row: recorder.maps(row) for row in (source, target)}

        def union(words: dict[int, tuple[int, ...]], pool: int, threshold: float) -> Bool[Tensor, "h w"]:
            masks = [
                attention_mask(maps[row][list(columns)].sum(0), size, pool, threshold)
                for row, columns in words.items()
            ]
            return masks[0] | masks[1]

        mask = union({source: blend.source, target: blend.target}, blend.pool, blend.threshold)
        subtracted = {source: blend.subtract_source, target: blend.subtract_target}
        return mask & ~union(subtracted, 1, blend.subtract_threshold)


def _recorder(spec: ModelSpec, columns: dict[int, tuple[int, ...]], fraction: float) -> Recorder:
    wanted = RecordSpec(tuple(columns), tuple(columns.values()), fraction)
    return Recorder(wanted, spec.max_tokens, spec.latent_size)
