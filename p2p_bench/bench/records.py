"""From edits to rows: costs, scores and pictures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.bench.attention_pictures import token_sheet
from p2p_bench.bench.heatmaps import change_heatmap
from p2p_bench.bench.module import Edited
from p2p_bench.bench.notes import edit_notes
from p2p_bench.bench.pictures import difference_image, file_stem, save_png
from p2p_bench.bench.requests import sample_seed
from p2p_bench.bench.rows import IMAGE_COLUMNS, SCORED_IMAGES
from p2p_bench.bench.scoring import edit_view, score
from p2p_bench.bench.task import Task, Variant
from p2p_bench.editing import EditResult
from p2p_bench.editing.pictures import heatmap_image
from p2p_bench.marks import mark_name
from p2p_bench.metrics.base import all_columns, split_reasons
from p2p_bench.models import ModelSpec
from p2p_bench.types import EditPair

NAN = float("nan")

_ROWS = ("unet_rows", "unet_rows_spent", "unet_rows_backward")

_TOKEN_SIDE = 96
"""Height of a picture in the sheets of attention to every token, in pixels."""


@dataclass(frozen=True)
class RowMaker:
    """Makes the rows of a run.

    Attributes:
        task: What is measured.
        spec: Facts about the model.
        run_id: Digest of what decides the numbers.
        run_dir: Where pictures go.
        pictured: Ids of the pairs whose pictures are kept.
        heatmaps: Whether heatmaps are among them.
        number: Number of the run among those that share a pass over the data.
    """

    task: Task
    spec: ModelSpec
    run_id: str
    run_dir: Path
    pictured: frozenset[str] = frozenset()
    heatmaps: bool = False
    number: int = 0

    def failed(self, pair: EditPair, variant: Variant, index: int, reason: str) -> dict[str, Any]:
        """The row of an edit that could not be made."""
        return self._row(pair, variant, index, {"status": "error", "error": reason})

    def rows(
        self, batch: Sequence[Edited], peak_memory_mb: float, device: torch.device
    ) -> list[dict[str, Any]]:
        """This run's rows of a batch, scored, with their pictures on the disk; their time is not in yet.

        Args:
            batch: Edited pairs.
            peak_memory_mb: Largest memory so far.
            device: Where metrics are computed.
        """
        mine = [
            (edited, place)
            for edited in batch
            for place, asked in enumerate(edited.edits)
            if asked.run == self.number
        ]
        reasons = [_error_of(*one) for one in mine]
        views = [edit_view(*one, device) for one, reason in zip(mine, reasons, strict=True) if not reason]
        scores = iter(score(self.task.metrics, views))
        rows = []
        for (edited, place), reason in zip(mine, reasons, strict=True):
            asked = edited.edits[place]
            done: dict[str, Any] = {"mask": edited.loaded.mask_state}
            done["source_checksum"] = edited.loaded.checksum
            if not self._looks_up:
                done |= {"peak_memory_mb": peak_memory_mb, **_costs(edited.result, place)}
            done |= self._what_was_done(edited, place)
            if not reason:
                values, reason = next(scores)
                scored, missing = split_reasons(values)
                done |= scored | self._pictures(edited, place)
                done["missing"] = json.dumps(missing, ensure_ascii=False) if missing else ""
            done |= {"status": "error" if reason else "ok", "error": reason}
            rows.append(self._row(edited.loaded.pair, asked.variant, asked.index, done))
        return rows

    @property
    def _looks_up(self) -> bool:
        """Whether edits were made elsewhere, so that what they cost and how they were made is not known."""
        return bool(self.task.editor.known_variants())

    def _row(self, pair: EditPair, variant: Variant, index: int, done: Mapping[str, Any]) -> dict[str, Any]:
        """A row: what was asked, and what was done; what was not is NaN, 0 or ""."""
        sampler, looks_up = self.task.sampler, self._looks_up
        steps = self.spec.steps if sampler.steps is None else sampler.steps
        guidance = self.spec.guidance if sampler.guidance is None else sampler.guidance
        return {
            "run_id": self.run_id,
            "sample_id": pair.id,
            "variant": variant.name,
            "target_index": index,
            "category": pair.category,
            "source_prompt": pair.source_prompt,
            "target_prompt": pair.target_prompts[index],
            "model": self.spec.name,
            "controller": variant.controller_name,
            "control": "",
            "tau_cross": variant.cross,
            "tau_self": variant.self_attn,
            "inversion": self.task.inversion_name if pair.has_image and not looks_up else "",
            "inversion_from": "",
            "dataset": self.task.dataset.name,
            "steps": None if looks_up else steps,
            "guidance": NAN if looks_up else guidance,
            "seed": sample_seed(self.task, pair),
            **dict.fromkeys(("status", "error", "mask", "mask_from", "source_checksum", "missing"), ""),
            "notes": edit_notes(self.spec, pair, index, variant.controller),
            **{column.name: NAN for column in all_columns(self.task.metrics)},
            "seconds": NAN if looks_up else 0.0,
            **dict.fromkeys(_ROWS, NAN if looks_up else 0.0),
            "peak_memory_mb": NAN,
            **dict.fromkeys(IMAGE_COLUMNS, ""),
            **done,
        }

    def _what_was_done(self, edited: Edited, place: int) -> dict[str, Any]:
        """What is only known once an edit is prepared: the control and notes on its prompts as read.

        Of an edit that was made elsewhere, what is known of it.
        """
        result, asked = edited.result, edited.edits[place]
        if result is None or not result.prompts:
            return {} if result is None or not result.known else dict(result.known[place])
        prompts = (result.prompts[0], result.prompts[1 + place])
        notes = edit_notes(self.spec, edited.loaded.pair, asked.index, asked.variant.controller, prompts)
        notes = "; ".join(filter(None, (notes, result.notes[place] if result.notes else "")))
        blend = result.mask_from[place] if result.mask_from else ""
        masks = dict.fromkeys(filter(None, (blend, self.task.repair.mask_from)))
        return {"control": result.controls[place], "mask_from": "+".join(masks), "notes": notes}

    def _pictures(self, edited: Edited, place: int) -> dict[str, str]:
        """Writes the pictures of an edit; their paths relative to the run directory."""
        pair, asked = edited.loaded.pair, edited.edits[place]
        if pair.id not in self.pictured or edited.result is None:
            return {}
        sample = file_stem(pair.id)
        edit = f"{sample}/{file_stem(asked.variant.name)}_{asked.index}"
        images = edited.result.images
        if not edited.result.has_source:
            return self._saved({"image_target": (f"images/{edit}.png", images[1 + place])})
        reference = images[0] if edited.loaded.image is None else edited.loaded.image
        wanted: dict[str, tuple[str, Float[Tensor, "3 h w"]]] = {
            "image_source": _source_picture(edited, place, sample, edit),
            "image_target": (f"images/{edit}.png", images[1 + place]),
            "image_difference": (
                f"images/{edit}_difference.png",
                difference_image(images[1 + place], reference),
            ),
        }
        if edited.loaded.image is not None:
            wanted["image_original"] = (f"images/{sample}/original.png", edited.loaded.image)
        if edited.result.vae_reconstruction is not None:
            wanted["image_vae"] = (f"images/{sample}/vae.png", edited.result.vae_reconstruction)
        sheet = None
        if self.heatmaps and edited.result.attention:
            sheet = token_sheet(edited.result, (0, 1 + place), _TOKEN_SIDE, names=("source", "edit"))
            wanted["heatmap_tokens"] = (f"heatmaps/{edit}_tokens.png", sheet)
            for role, at in (("source", 0), ("target", 1 + place)):
                heat = change_heatmap(edited.result, at, 1 + place, pair.word_weights)
                if heat is not None:
                    wanted[f"heatmap_{role}"] = (
                        f"heatmaps/{edit}_{role}.png",
                        heatmap_image(images[at], heat),
                    )
        return self._saved(wanted, sheet)

    def _saved(
        self, wanted: Mapping[str, tuple[str, Float[Tensor, "3 h w"]]], sheet: Tensor | None = None
    ) -> dict[str, str]:
        """Columns of some pictures once these are written; `sheet` is one that few colours are enough for."""
        for column, (path, image) in wanted.items():
            mark = mark_name(self.run_id, path) if column in SCORED_IMAGES else None
            save_png(self.run_dir / path, image, image is sheet, mark)
        return {column: path for column, (path, _) in wanted.items()}


def _source_picture(edited: Edited, place: int, sample: str, edit: str) -> tuple[str, Float[Tensor, "3 h w"]]:
    """What became of the source, and the path of its picture: the original where nothing is known of that."""
    result, real = edited.result, edited.loaded.image
    assert result is not None, "only edits without an error have pictures"
    if real is None or result.reconstructions is None:
        return f"images/{sample}/source.png", result.images[0]
    again = result.reconstructions[place]
    return (f"images/{sample}/original.png", real) if again is None else (f"images/{edit}_source.png", again)


def share_seconds(rows: Sequence[dict[str, Any]], seconds: float) -> None:
    """Enters the wall time of a batch into its rows, shared out by the UNet rows spent.

    Edits that were made elsewhere took a time that nobody knows; theirs stays NaN.
    """
    timed = [row for row in rows if not isnan(row["seconds"])]
    total = sum(row["unet_rows_spent"] for row in timed)
    for row in timed:
        row["seconds"] = seconds * (row["unet_rows_spent"] / total if total > 0 else 1 / len(timed))


def _error_of(edited: Edited, place: int) -> str:
    """Why an edit has no image; "" if it has one."""
    if edited.result is None:
        return edited.loaded.error or "the pair was not edited"
    error = edited.result.errors[1 + place] or edited.result.errors[0]
    return "" if error is None else str(error)


def _costs(result: EditResult | None, place: int) -> dict[str, float | str]:
    """What the edit costs alone, and its share of what was spent: source and inversion serve all edits.

    An inversion that was recalled is part of the cost and not of what was spent.
    """
    if result is None:
        return {}
    alone = result.inversion_rows + result.source_rows + result.target_rows[place]
    own = result.target_rows_spent[place]
    backward = result.inversion_rows_backward + (*result.target_rows_backward, *[0] * (1 + place))[place]
    computed = "network" if result.inversion_rows + result.inversion_rows_backward else ""
    shared = result.source_rows * result.source_passes
    shared += 0 if result.inversion_recalled else result.inversion_rows
    return {
        "inversion_from": "cache" if result.inversion_recalled else computed,
        "unet_rows": float(alone),
        "unet_rows_spent": shared / len(result.target_rows) + own,
        "unet_rows_backward": float(backward),
    }
