"""Metrics that only the embedded world allows: exact answers, and attributes read from the image."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from p2p_bench.metrics.base import UNDEFINED, EditView, MetricColumn
from p2p_bench.metrics.embedded import WORLD, embedded_weights
from p2p_bench.metrics.oracle import LABELS, WEIGHTS, AttributeOracle, OracleReading, load_oracle
from p2p_bench.metrics.pixel import mse_outside, psnr
from p2p_bench.world.scenes.render import SIDE


class WorldAnswer:
    """The edited image against the exact answer: the same scene rendered with one attribute changed.

    `answer_psnr` (counterfactual PSNR) covers the whole image: it falls if the edit did not happen and
    if anything else changed. `background_error` is the MSE against the answer over the pixels that
    the edit cannot reach, where answer and source are equal exactly.

    Both are defined for rendered scenes only. A pair that starts from noise has no answer and no mask,
    since its layout comes from the noise; both are NaN there, as is `background_error` where the edit
    reaches every pixel (style, weather) or none (an attribute set to what it is).
    """

    columns = (
        MetricColumn("answer_psnr", True, "dB", label="PSNR to the exact answer", role="other"),
        MetricColumn("background_error", False, label="MSE where nothing may change", role="fidelity"),
    )

    def check(self) -> None:
        """Needs no files."""

    @torch.inference_mode()
    def __call__(self, views: Sequence[EditView]) -> list[dict[str, float]]:
        """Scores each view; see the class."""
        return [self._score(view) for view in views]

    def _score(self, view: EditView) -> dict[str, float]:
        row = {"answer_psnr": UNDEFINED, "background_error": UNDEFINED}
        if view.answer is not None:
            edited, answer = view.edited[None], view.answer[None]
            row["answer_psnr"] = psnr(edited, answer).item()
            if view.mask is not None:
                row["background_error"] = mse_outside(edited, answer, view.mask[None]).item()
        return row


def attribute_changed(edited: OracleReading, scene: Mapping[str, Any], edit: Mapping[str, Any]) -> float:
    """Whether the oracle reads the asked-for value in the edited image: 1 or 0.

    With two objects, shape and colour count as changed if the oracle sees an object of that shape
    *and* colour; the pattern of one of two objects is not readable.

    Args:
        edited: What the oracle reads in the edited image.
        scene: The source scene.
        edit: `{"attribute", "value", "index"}`.

    Returns:
        NaN where the oracle cannot tell (numbers such as a size, the pattern of one of two objects).
    """
    name = edit["attribute"]
    if name not in LABELS or (name == "pattern" and len(scene["objects"]) > 1):
        return UNDEFINED
    if name in ("shape", "colour") and len(scene["objects"]) > 1:
        return float(_shape_and_colour(scene, edit, changed=True) in edited.pairs)
    return float(edited.values[name] == edit["value"])


def others_kept(
    source: OracleReading, edited: OracleReading, scene: Mapping[str, Any], edit: Mapping[str, Any]
) -> float:
    """Whether the oracle reads everything but the edited attribute alike in source and edited image: 1 or 0.

    For one object these are shape, colour, pattern, background, style and weather. For two objects
    they are background, style and weather, and every (shape, colour) that is read in the source,
    the edited object's apart, must be read in the edited image. What the oracle reads in the source
    counts, not what the source was meant to show. A change of the weather's strength leaves out
    the weather.

    Args:
        source: What the oracle reads in the source image.
        edited: What it reads in the edited image.
        scene: The source scene.
        edit: `{"attribute", "value", "index"}`.
    """
    name = "weather" if edit["attribute"] == "weather_strength" else edit["attribute"]
    single = len(scene["objects"]) == 1
    names = list(LABELS) if single else ["background", "style", "weather"]
    if any(source.values[other] != edited.values[other] for other in names if other != name):
        return 0.0
    if single:
        return 1.0
    to_keep = set(source.pairs)
    if name in ("shape", "colour"):
        to_keep.discard(_shape_and_colour(scene, edit, changed=False))
    return float(to_keep <= set(edited.pairs))


def _shape_and_colour(scene: Mapping[str, Any], edit: Mapping[str, Any], changed: bool) -> tuple[str, str]:
    """Shape and colour of the edited object, before or after the edit."""
    item = dict(scene["objects"][edit.get("index", 0)])
    if changed:
        item[edit["attribute"]] = edit["value"]
    return item["shape"], item["colour"]


class WorldAttributes:
    """What a classifier that never saw the generator reads in the edited image.

    `attribute_changed` and `others_kept` are 1 or 0, defined by the functions of these names, and NaN
    for pairs that bring no scene. The judge is the second of the world's two oracles; the first one is
    left for selecting.

    Args:
        weights: Folder of another oracle; None takes the shipped one.
    """

    columns = (
        MetricColumn(
            "attribute_changed", True, label="Attribute changed (oracle)", backbone=WORLD, role="editability"
        ),
        MetricColumn(
            "others_kept", True, label="Other attributes kept (oracle)", backbone=WORLD, role="fidelity"
        ),
    )

    def __init__(self, weights: str | Path | None = None) -> None:
        self.weights = weights
        self._oracle: AttributeOracle | None = None

    def check(self) -> None:
        """Looks for the oracle's weights.

        Raises:
            MissingWeightsError: They are not there.
        """
        self._locate()

    @torch.inference_mode()
    def __call__(self, views: Sequence[EditView]) -> list[dict[str, float]]:
        """Scores each view; see the class."""
        rows = [{"attribute_changed": UNDEFINED, "others_kept": UNDEFINED} for _ in views]
        judged = [i for i, view in enumerate(views) if view.scene is not None and view.scene_edit is not None]
        if not judged:
            return rows
        readings = self._read([views[i].source for i in judged] + [views[i].edited for i in judged])
        for place, i in enumerate(judged):
            source, edited = readings[place], readings[len(judged) + place]
            scene, edit = views[i].scene, views[i].scene_edit
            assert scene is not None
            assert edit is not None
            rows[i] = {
                "attribute_changed": attribute_changed(edited, scene, edit),
                "others_kept": others_kept(source, edited, scene, edit),
            }
        return rows

    def _read(self, images: Sequence[Float[Tensor, "3 h w"]]) -> list[OracleReading]:
        """Readings of images, brought to the size the oracle knows."""
        if self._oracle is None:
            self._oracle = load_oracle(self._locate())
        stacked = torch.stack(list(images))
        if stacked.shape[-2:] != (SIDE, SIDE):
            stacked = interpolate(stacked, size=(SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)
        return self._oracle.to(stacked.device).read(stacked)

    def _locate(self) -> Path:
        return embedded_weights("oracle_b", self.weights, WEIGHTS)
